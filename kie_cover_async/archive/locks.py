"""Waiting until another program unlocks a database, and giving up early if the caller leaves."""

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds. Another process writes for milliseconds; a disk that is asleep may take seconds.
PATIENCE = 30.0
ATTEMPT = 0.25
"""Seconds that SQLite itself waits for a lock: it cannot be interrupted meanwhile."""
# Seconds before the log says what is waited for.
_SILENCE = 1.0


def when_unlocked(path: Path, attempt: Callable[[], T], is_wanted: Callable[[], bool]) -> T:
    """Return the result of *attempt*, repeating it while another program has *path* locked.

    *attempt* must leave nothing behind when it fails. A warning names the file after a second.

    Raises `sqlite3.OperationalError` after 30 seconds, or once the result is not wanted any more.
    """
    began, is_logged = time.monotonic(), False
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            waited = time.monotonic() - began
            if not _is_locked(error) or waited >= PATIENCE or not is_wanted():
                raise
        if waited >= _SILENCE and not is_logged:
            _log.warning("waiting for %s, which another program has locked", path)
            is_logged = True


def _is_locked(error: sqlite3.OperationalError) -> bool:
    # The extended codes have the primary one in their lowest byte. Errors of our own have none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
