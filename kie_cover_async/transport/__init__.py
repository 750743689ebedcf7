"""The way to the API and back.

`http_client` sends one request over aiohttp and turns every failure into one of our errors;
`transport` puts the limits of a `throttle`, the retries and the observers around it; `open_calls`
ends what runs when the client is closed. `downloader` is the client without credentials,
`addresses` where it may lead.
"""

from .downloader import ImageDownloader
from .http_client import HttpClient
from .throttle import Throttle, share_places
from .transport import Transport

__all__ = ["HttpClient", "ImageDownloader", "Throttle", "Transport", "share_places"]
