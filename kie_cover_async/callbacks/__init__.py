"""Callbacks: being notified that a cover has ended, instead of polling for it.

`inbox` receives callbacks and wakes waits, `signature` signs and verifies them, `song_urls` gives
each song a URL of its own, and `web` answers callbacks in aiohttp.web.
"""

from kie_cover_async.api.callback import CoverCallback, parse_callback

from .inbox import CallbackInbox
from .signature import sign_callback, verify_signature
from .song_urls import SongCallbackUrls, SongTokens

__all__ = [
    "CallbackInbox",
    "CoverCallback",
    "SongCallbackUrls",
    "SongTokens",
    "parse_callback",
    "sign_callback",
    "verify_signature",
]
