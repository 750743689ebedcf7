"""File descriptors: how many the process may open, and waiting for one to be free."""

import errno
import logging
import os
import sys
import time

_log = logging.getLogger(__name__)

# What a process needs next to its requests and downloads: standard streams, the event loop, the
# archive's record, name lookups, and some of the caller's own.
_RESERVED = 32
# Seconds; Ctrl-C has to wait for the threads that wait here.
_LONGEST_WAIT, _PAUSE = 10.0, 0.05
_NONE_FREE = {errno.EMFILE, errno.ENFILE}


def affordable(wanted: int, what: str, *, each: int = 1) -> int:
    """Return how many requests or downloads may run at the same time, `wanted` at most.

    They get half of the descriptors that are not reserved. If that is less, a warning is logged,
    in which `what` names them. `each` is how many descriptors one of them may hold.
    """
    limit = _limit()
    share = max((limit - _RESERVED) // 2 // each, 1)
    if wanted <= share:
        return wanted
    _log.warning(
        "%s at the same time: %d instead of %d, since this process may open %d files (ulimit -n)",
        what,
        share,
        wanted,
        limit,
    )
    return share


def open_file(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """Open a file as `os.open` does, but wait while no descriptor is free.

    It blocks for at most 10 seconds.
    """
    deadline = time.monotonic() + _LONGEST_WAIT
    is_waiting = False
    while True:
        try:
            return os.open(path, flags, mode)
        except OSError as error:
            if not none_is_free(error) or time.monotonic() >= deadline:
                raise
        if not is_waiting:
            _log.warning("too many open files: waiting for one to be closed to open %s", path)
            is_waiting = True
        time.sleep(_PAUSE)


def none_is_free(error: OSError) -> bool:
    """Return whether the error was raised because too many files are open."""
    return error.errno in _NONE_FREE


def _limit() -> int:
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
