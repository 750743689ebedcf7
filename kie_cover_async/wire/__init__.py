"""The API's rules, and nothing that awaits: what is asked, and what an answer means.

`calls` knows the paths, `records` the shape of `data`, `answers` the envelope and the error codes.
"""

from .answers import Answer, read
from .calls import Call, download_url, generate, get_credits, record_info
from .records import structure_details, unstructure_details

__all__ = [
    "Answer",
    "Call",
    "download_url",
    "generate",
    "get_credits",
    "read",
    "record_info",
    "structure_details",
    "unstructure_details",
]
