"""Retries: whether a failed request is retried, and after what pause."""

import random
from itertools import islice

import backoff
from attrs import field, frozen

from .errors import DownloadError, KieCoverError, RateLimitedError
from .schedule import exponential
from .validation import number_validator

LONGEST_PAUSE = 120.0
"""Seconds: no single refusal stops a rate limiter for longer, whatever its `Retry-After` says."""

_MOST_DOUBLINGS = 100


@frozen(kw_only=True)
class RetryPolicy:
    """How often and after what pauses a call is retried after a passing failure.

    `max_attempts` includes the first one; 1 means no retry. Pauses are random, from zero up to a
    bound that starts at `initial_delay` and doubles up to `max_delay`, both in seconds. After a
    refusal for too many requests the pause is at least what the server asked for, or the whole
    bound.

    Example:
        >>> retry = RetryPolicy(max_attempts=6, initial_delay=1.0, max_delay=60.0)
        >>> async with CoverClient(retry=retry) as client:
        ...     credits_left = await client.get_credits()
    """

    max_attempts: int = field(default=4, validator=number_validator(at_least=1, whole=True))
    initial_delay: float = field(default=0.5, validator=number_validator(above=0))
    max_delay: float = field(default=20.0, validator=number_validator(above=0))

    def next_pause(self, error: KieCoverError, tries: int) -> float | None:
        """Return the seconds before a single call is retried after failure number `tries`.

        `None` means no retry, also if the server asks for more than the longest pause. A refusal by
        the API needs no pause here, since the rate limiter is paused. A host of images gets the
        time that it asks for.
        """
        if not error.retryable or tries >= self.max_attempts:
            return None
        asked = error.retry_after if isinstance(error, (RateLimitedError, DownloadError)) else None
        if asked is not None and asked > LONGEST_PAUSE:
            return None
        if isinstance(error, RateLimitedError):
            return 0.0
        return self.pause(tries) if asked is None else self.shared_pause(tries, asked)

    def pause(self, failures: int) -> float:
        """Return the seconds to pause after this many failures in a row."""
        return backoff.full_jitter(self._bound(failures))

    def shared_pause(self, refusals: int, retry_after: float | None) -> float:
        """Return the seconds for which requests of a kind stop after so many refusals in a row.

        Never less than `retry_after` (up to `LONGEST_PAUSE`); the jitter comes on top.
        """
        asked = self._bound(refusals) if retry_after is None else retry_after
        return min(asked + random.uniform(0, self.initial_delay), LONGEST_PAUSE)

    def _bound(self, failures: int) -> float:
        series = exponential(self.initial_delay, 2, self.max_delay)
        return next(islice(series, min(max(failures, 1), _MOST_DOUBLINGS) - 1, None))
