"""The API's rules: what to ask, and what an answer means. Nothing here awaits.

`requests` says what a request and a route are, and has the requests that belong to no route; `suno`
is a route. `responses` parses what is around `data` and knows the codes, `records` reads the shape
of a cover's `data`, and `callback` reads what is posted to a callback URL.
"""

from .callback import CoverCallback, parse_callback
from .records import structure_details, unstructure_details
from .requests import Request, Route, download_url, get_credits
from .responses import Response, parse_response
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
