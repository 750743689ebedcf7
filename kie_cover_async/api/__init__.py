"""The API's rules: what to ask, and what an answer means. Nothing here awaits.

`requests` says what a request and a route are, and has the requests that belong to no route; `suno`
and `market` are the routes. `responses` parses what is around `data` and knows the codes, and
`records` reads the shape of a cover's `data`. `callback` reads what is posted to a callback URL;
few users need it, so it is imported by its own path.
"""

from .market import MARKET
from .records import structure_details, unstructure_details
from .requests import CREDITS, Request, Route, download_url
from .responses import Response, parse_response
from .suno import SUNO

ROUTES = {route.name: route for route in (SUNO, MARKET)}
"""The routes by their names."""

__all__ = [
    "CREDITS",
    "ROUTES",
    "Request",
    "Response",
    "Route",
    "download_url",
    "parse_response",
    "structure_details",
    "unstructure_details",
]
