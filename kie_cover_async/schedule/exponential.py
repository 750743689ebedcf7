"""Intervals that grow with the age of the job."""

import random
from bisect import bisect
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate, islice, repeat

import backoff
from attrs import field, frozen

from kie_cover_async.validation import checked

# The last interval of a series that grows very slowly stays in force.
_LONGEST_SERIES = 10_000
# Seconds: pressure stretches intervals up to this, and shortens none that is longer by itself.
_LONGEST_STRETCHED = 30.0


def exponential(first: float, factor: float, longest: float) -> Iterator[float]:
    """`first`, `first * factor`, … never above `longest`, without end; from `backoff.expo`."""
    # Floats, since the sum of whole numbers that are each within all floats may not be.
    values = backoff.expo(base=factor, factor=float(first), max_value=longest)
    # The distributions `backoff` and `python-backoff` prime their generators with different values.
    next(values)
    try:
        yield from values
    except OverflowError:  # of a power that is past all floats
        yield from repeat(longest)


@frozen(kw_only=True)
class ExponentialSchedule:
    """Intervals that grow with the age of the job: 2 s, 3 s, 4.5 s, then 6 s.

    A wait that is resumed when the job is 80 s old therefore goes on at the long interval.

    `initial_delay`, `max_delay` and `not_before` are in seconds. `jitter` is the share by which an
    interval is lengthened or shortened at random, never above `max_delay`. Before the age of
    `not_before` there is no poll but the first.

    While the rate limiter is busy, intervals and `max_delay` are multiplied by its `pressure`, up
    to 30 s: many jobs share what the limiter lets through, and fill no long queue.

    Example:
        >>> schedule = ExponentialSchedule(initial_delay=1.0, factor=2.0, jitter=0.0)
        >>> [schedule.delay(age) for age in (0.0, 1.0, 3.0, 7.0)]
        [1.0, 2.0, 4.0, 6.0]
    """

    initial_delay: float = field(default=2.0, validator=checked(above=0))
    factor: float = field(default=1.5, validator=checked(at_least=1))
    max_delay: float = field(default=6.0, validator=checked(above=0))
    jitter: float = field(default=0.1, validator=checked(at_least=0, below=1))
    not_before: float = field(default=0.0, validator=checked(at_least=0))

    @cached_property
    def _intervals(self) -> tuple[float, ...]:
        series = exponential(self.initial_delay, self.factor, self.max_delay)
        intervals = [next(series)]
        for interval in islice(series, _LONGEST_SERIES):
            if interval == intervals[-1]:
                break
            intervals.append(interval)
        return tuple(intervals)

    @cached_property
    def _switches(self) -> tuple[float, ...]:
        # Halfway before each planned poll, so that a poll which jitter or a busy rate limiter has
        # moved a little still gets the interval that was meant to follow it.
        ends = accumulate(self._intervals[:-1])
        return tuple(end - last / 2 for end, last in zip(ends, self._intervals, strict=False))

    def delay(self, age: float, pressure: float = 1.0) -> float:
        """Return the seconds until the next poll."""
        longest = min(self.max_delay * pressure, max(self.max_delay, _LONGEST_STRETCHED))
        interval = min(self._intervals[bisect(self._switches, age)] * pressure, longest)
        spread = random.uniform(1 - self.jitter, 1 + self.jitter)
        return max(min(interval * spread, longest), self.not_before - max(age, 0.0))
