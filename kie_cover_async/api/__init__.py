"""The API's rules, and nothing that awaits: what is asked, and what an answer means.

`requests` knows the paths, `records` the shape of `data`, `envelope` what is around it, `responses`
the error codes, and `callback` what is posted to a callback URL.
"""

from .callback import CoverCallback, parse_callback
from .records import structure_details, unstructure_details
from .requests import Request, download_url, generate, get_credits, record_info
from .responses import Response, parse_response

__all__ = [
    "CoverCallback",
    "Request",
    "Response",
    "download_url",
    "generate",
    "get_credits",
    "parse_callback",
    "parse_response",
    "record_info",
    "structure_details",
    "unstructure_details",
]
