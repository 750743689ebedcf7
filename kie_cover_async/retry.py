"""Whether and after what pause a failed request is repeated."""

import random
from itertools import islice

import backoff
from attrs import field, frozen

from .arguments import checked
from .errors import DownloadError, KieCoverError, RateLimitedError
from .schedule import exponential

LONGEST_HOLD = 120.0
"""Seconds: no single refusal stops a budget for longer, whatever its `Retry-After` says."""

_MOST_DOUBLINGS = 100


@frozen(kw_only=True)
class RetryPolicy:
    """How often and at what pace a call that failed in passing is repeated.

    `attempts` counts the first try too; 1 is no repetition. Pauses are drawn from nothing up to a
    bound that starts at `first_delay` and doubles up to `longest_delay`, both in seconds. After a
    refusal for too many requests the pause is at least what the server named, or the whole bound.
    """

    attempts: int = field(default=4, validator=checked(at_least=1, whole=True))
    first_delay: float = field(default=0.5, validator=checked(above=0))
    longest_delay: float = field(default=20.0, validator=checked(above=0))

    def next_pause(self, error: KieCoverError, tries: int) -> float | None:
        """Seconds before a single call goes on after its failure number `tries`; `None`: no more.

        After the API's refusal there is no pause of its own, since the budget is held; a host of
        images is given the time it asks for. Who asks for more than the longest hold is not waited
        for.
        """
        if not error.safe_to_repeat or tries >= self.attempts:
            return None
        asked = error.retry_after if isinstance(error, (RateLimitedError, DownloadError)) else None
        if asked is not None and asked > LONGEST_HOLD:
            return None
        if isinstance(error, RateLimitedError):
            return 0.0
        return self.pause(tries) if asked is None else self.hold(tries, asked)

    def pause(self, failures: int) -> float:
        """Seconds of rest after this many failures in a row."""
        return backoff.full_jitter(self._bound(failures))

    def hold(self, refusals: int, retry_after: float | None) -> float:
        """Seconds for which all requests stop after this many refusals in a row.

        Never less than `retry_after` (up to `LONGEST_HOLD`); the jitter comes on top.
        """
        asked = self._bound(refusals) if retry_after is None else retry_after
        return min(asked + random.uniform(0, self.first_delay), LONGEST_HOLD)

    def _bound(self, failures: int) -> float:
        series = exponential(self.first_delay, 2, self.longest_delay)
        return next(islice(series, min(max(failures, 1), _MOST_DOUBLINGS) - 1, None))
