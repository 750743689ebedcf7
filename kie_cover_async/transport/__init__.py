"""The way to the API and back.

`http_client` sends one request over aiohttp and turns every failure into one of our errors;
`transport` puts the rate limiter, the repetitions and the observer around it; `lifetime` ends what
runs when the client is closed. `downloader` is the client without credentials, `addresses` where it
may lead.
"""

from .downloader import ImageDownloader
from .http_client import HttpClient
from .lifetime import Lifetime
from .transport import Transport

__all__ = ["HttpClient", "ImageDownloader", "Lifetime", "Transport"]
