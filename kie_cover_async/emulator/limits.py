"""How often the emulated service may be asked."""

from collections import deque
from collections.abc import Mapping

from attrs import field, frozen

from kie_cover_async.emulator import accepted

Window = tuple[int, float]
"""A number of requests, and the seconds in which they may come."""


@frozen(kw_only=True)
class Limits:
    """How many requests the service takes of its account; the defaults are the vendor's.

    Each limit is a number and the seconds of a sliding window: `(10, 1.0)` takes a request if fewer
    than ten were taken in the second before it. `None` is no limit. `submits` is for `generate`,
    `polls` for all other requests to the API; images have no limit.
    """

    polls: Window | None = field(default=(10, 1.0), validator=accepted.window)
    submits: Window | None = field(default=(20, 10.0), validator=accepted.window)


class LimitKeeper:
    """The requests that were taken, as far as they still count, and how many were refused.

    A refused request does not count: it delays no later one.
    """

    def __init__(self, limits: Limits | None) -> None:
        limits = limits or Limits(polls=None, submits=None)
        self._windows: Mapping[str, Window | None] = {
            "polls": limits.polls,
            "submits": limits.submits,
        }
        self._taken: dict[str, deque[float]] = {kind: deque() for kind in self._windows}
        self.refusals: dict[str, int] = dict.fromkeys(self._windows, 0)

    def takes(self, endpoint: str, now: float) -> bool:
        """Whether the service takes a request at this time; counts it either way."""
        kind = "submits" if endpoint == "generate" else "polls"
        window, taken = self._windows[kind], self._taken[kind]
        if window is None:
            return True
        number, seconds = window
        while taken and taken[0] <= now - seconds:
            taken.popleft()
        if len(taken) >= number:
            self.refusals[kind] += 1
            return False
        taken.append(now)
        return True
