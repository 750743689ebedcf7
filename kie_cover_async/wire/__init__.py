"""The API's rules, and nothing that awaits: what is asked, and what an answer means.

`calls` knows the paths, `records` the shape of `data`, `envelope` what is around it, `answers` the
error codes, and `callback` what is posted to a callback URL.
"""

from .answers import Answer, read
from .callback import CoverCallback, parse_callback
from .calls import Call, download_url, generate, get_credits, record_info
from .records import structure_details, unstructure_details

__all__ = [
    "Answer",
    "Call",
    "CoverCallback",
    "download_url",
    "generate",
    "get_credits",
    "parse_callback",
    "read",
    "record_info",
    "structure_details",
    "unstructure_details",
]
