"""Hearing that a cover has ended, instead of asking.

`inbox` receives callbacks and wakes waits, `memory` is what it remembers of them, `verification`
joins a body to its signature, and `web` answers for aiohttp.web. `bounded_log` keeps a flood of
refusals from filling the log.
"""

from kie_cover_async.api.callback import CoverCallback, parse_callback

from .inbox import CallbackInbox
from .verification import sign_callback, verify_signature

__all__ = ["CallbackInbox", "CoverCallback", "parse_callback", "sign_callback", "verify_signature"]
