"""The API's rules, and nothing that awaits: what to ask, and what an answer means.

`routes` says what a family of endpoints is made of, and `suno` is one; `requests` has the endpoints
that belong to none. `responses` knows the codes, `envelope` what surrounds `data`, `records` the
shape of a cover's `data`, and `callback` what is posted to a callback URL.
"""

from .callback import CoverCallback, parse_callback
from .records import structure_details, unstructure_details
from .requests import Request, download_url, get_credits
from .responses import Response, parse_response
from .routes import Route
from .suno import SUNO

__all__ = [
    "SUNO",
    "CoverCallback",
    "Request",
    "Response",
    "Route",
    "download_url",
    "get_credits",
    "parse_callback",
    "parse_response",
    "structure_details",
    "unstructure_details",
]
