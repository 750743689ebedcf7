"""Failures that a command gets through by itself, named on stderr at a bounded rate."""

import re
import time
from collections.abc import Callable

from attrs import define

from kie_cover_async import ApiError, DownloadError, KieCoverError, RateLimitedError
from kie_cover_async.events import Event, Observer, RequestFinished, RequestsPaused, RetryScheduled

from .output import say

# Seconds between two lines about the same kind of failure.
_INTERVAL = 30.0


@define
class _Said:
    """When a kind of failure had its last line, and how many came since without one."""

    at: float
    more: int = 0


class TemporaryFailures:
    """An observer that names temporary failures: at most one line for each kind in 30 seconds.

    The kind is the class of the error with the API's code, or with the reason without its figures.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, _Said] = {}

    def hear(self, event: Event) -> None:
        """Take in an event of the client's."""
        if isinstance(event, RequestsPaused):
            said = f"too many requests: all of them stop for {event.seconds:.1f} s"
            self._count("too many requests", said)
        elif (error := _temporary_failure(event)) is not None:
            self._count(_kind(error), f"temporary failure: {error}")

    def _count(self, kind: str, text: str) -> None:
        now, last = self._clock(), self._said.get(kind)
        if last is not None and now - last.at < _INTERVAL:
            last.more += 1
            return
        self._said[kind] = _Said(now)
        if last is not None and last.more:
            text += f" ({last.more:,} more in the last {now - last.at:.0f} s)"
        say(text)


def reporting_failures(observer: Observer) -> Observer:
    """Return an observer that passes events on, and names temporary failures on stderr."""
    failures = TemporaryFailures()

    def hear(event: Event) -> None:
        observer(event)
        failures.hear(event)

    return hear


def _temporary_failure(event: Event) -> KieCoverError | None:
    """Return the error of a request or a download that is repeated, or may be."""
    if isinstance(event, RetryScheduled) and isinstance(event.error, DownloadError):
        return event.error
    if not isinstance(event, RequestFinished) or event.error is None:
        return None
    # A refusal for too many requests is a `RequestsPaused`, too.
    is_named = isinstance(event.error, RateLimitedError) or not event.error.transient
    return None if is_named else event.error


def _kind(error: KieCoverError) -> str:
    if isinstance(error, ApiError):
        return f"{type(error).__name__} {error.code}"
    reason, _, _ = getattr(error, "reason", "").partition(":")
    return f"{type(error).__name__} {re.sub('[0-9.]+', '', reason)}"
