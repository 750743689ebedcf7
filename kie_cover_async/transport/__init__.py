"""The way to the API and back.

`transport` puts limits, retries and observers around a request; `limits` says what a request passes
before it is sent, and ends what runs when the client closes. `http_client` sends it over aiohttp,
`connections` are those of its own session, and `failures` turns aiohttp's errors into ours.
`downloader` is the client without credentials, which `addresses` keeps out of private networks; it
is imported when it is first used.
"""

from .http_client import HttpClient
from .limits import OpenCalls, Throttle, share_places
from .transport import Answer, Transport

__all__ = ["Answer", "HttpClient", "OpenCalls", "Throttle", "Transport", "share_places"]
