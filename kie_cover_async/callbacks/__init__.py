"""Callbacks: being notified that a cover has ended, instead of polling for it.

`inbox` receives callbacks and wakes waits, `signature` signs and verifies them, and `web` answers
them in aiohttp.web.
"""

from kie_cover_async.api.callback import CoverCallback, parse_callback

from .inbox import CallbackInbox
from .signature import sign_callback, verify_signature

__all__ = ["CallbackInbox", "CoverCallback", "parse_callback", "sign_callback", "verify_signature"]
