"""When to poll again: the `Schedule` protocol and its two implementations."""

import random
from bisect import bisect, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import accumulate, islice, pairwise, repeat
from math import inf, isqrt, sqrt
from typing import Any, Protocol, Self, runtime_checkable

import backoff
from attrs import define, field, frozen

from .models import CoverDetails
from .validation import at_least_field, number_validator, short_repr, validate_number

# The last interval of a series that grows very slowly stays in force.
_MAX_SERIES_LENGTH = 10_000
# Seconds: pressure stretches intervals up to this, and never shortens a longer one.
_MAX_STRETCHED_DELAY = 30.0

# Seconds, from documents and recorded jobs: most covers take 30 to 60, one took 146.
PRIOR_GENERATION_TIMES = (25.0, 31.0, 37.0, 43.0, 47.0, 54.0, 63.0, 78.0, 100.0, 146.0)
_MAX_TIMES = 400
# The vendor ends a job long before; above this, a clock or a time zone is wrong.
_MAX_GENERATION_TIME = 3600.0
# The server's clock shows whole seconds, so ages are not known more exactly.
_MIN_BLOCK = 1.0
_STATE_KEY = "generation_times"


@runtime_checkable
class Schedule(Protocol):
    """Any object that can say when to poll again; one object serves any number of waits."""

    def delay(self, age: float, pressure: float) -> float:
        """Return the seconds until the next poll of a job that is `age` seconds old.

        `pressure` is 1 while the rate limiter keeps up, plus one for every second that its queue
        will take. Only requests that have a concurrency slot queue there: at most
        `max_concurrent_requests` of each client are counted.
        """
        ...


@runtime_checkable
class LearningSchedule(Protocol):
    """A schedule that also wants to receive the records of jobs that have ended."""

    def learn(self, details: CoverDetails) -> None:
        """Receive a record in a terminal state, once per wait; exceptions are logged."""
        ...


def exponential(initial: float, factor: float, maximum: float) -> Iterator[float]:
    """Yield `initial`, `initial * factor`, … never above `maximum`, forever (`backoff.expo`)."""
    # Floats: the sum of large ints can exceed every float although each of them does not.
    values = backoff.expo(base=factor, factor=float(initial), max_value=maximum)
    # The distributions `backoff` and `python-backoff` prime their generators with different values.
    next(values)
    try:
        yield from values
    except OverflowError:  # the power exceeds every float
        yield from repeat(maximum)


def _with_jitter(delay: float, jitter: float) -> float:
    return delay * random.uniform(1 - jitter, 1 + jitter)


@frozen(kw_only=True)
class ExponentialSchedule:
    """Intervals that grow with the age of the job: 2 s, 3 s, 4.5 s, then 6 s.

    A wait that is resumed when the job is 80 s old therefore continues at the long interval.

    `initial_delay`, `max_delay` and `not_before` are in seconds. `jitter` is the share by which an
    interval is lengthened or shortened at random, never above `max_delay`. After the first poll,
    the next one comes at the age of `not_before` or later.

    While the rate limiter is busy, intervals and `max_delay` are multiplied by its `pressure`, up
    to 30 s: many jobs share the limiter's capacity instead of filling a long queue.

    Example:
        >>> schedule = ExponentialSchedule(initial_delay=1.0, factor=2.0, jitter=0.0)
        >>> [schedule.delay(age) for age in (0.0, 1.0, 3.0, 7.0)]
        [1.0, 2.0, 4.0, 6.0]
    """

    initial_delay: float = field(default=2.0, validator=number_validator(above=0))
    factor: float = field(default=1.5, validator=number_validator(at_least=1))
    max_delay: float = field(default=6.0, validator=number_validator(above=0))
    jitter: float = field(default=0.1, validator=number_validator(at_least=0, below=1))
    not_before: float = field(default=0.0, validator=number_validator(at_least=0))

    @cached_property
    def _intervals(self) -> tuple[float, ...]:
        series = exponential(self.initial_delay, self.factor, self.max_delay)
        intervals = [next(series)]
        for interval in islice(series, _MAX_SERIES_LENGTH):
            if interval == intervals[-1]:
                break
            intervals.append(interval)
        return tuple(intervals)

    @cached_property
    def _interval_ends(self) -> tuple[float, ...]:
        # Halfway before each planned poll, so that a poll which jitter or a busy rate limiter has
        # moved a little still gets the interval that was meant to follow it.
        ends = accumulate(self._intervals[:-1])
        return tuple(end - last / 2 for end, last in zip(ends, self._intervals, strict=False))

    def delay(self, age: float, pressure: float = 1.0) -> float:
        """Return the seconds until the next poll."""
        maximum = min(self.max_delay * pressure, max(self.max_delay, _MAX_STRETCHED_DELAY))
        interval = min(self._intervals[bisect(self._interval_ends, age)] * pressure, maximum)
        jittered = min(_with_jitter(interval, self.jitter), maximum)
        return max(jittered, self.not_before - max(age, 0.0))


@frozen
class HazardRate:
    """The probability that a job ends in the next second, by its age; stored as square roots.

    The rate is constant up to each of `ends`. Beyond the last one it is 1 / age: the longer a job
    has outlasted all others, the longer it will still take.
    """

    ends: list[float]
    roots: list[float]

    @classmethod
    def estimate(cls, durations: Iterable[float]) -> Self:
        """Return the Nelson–Aalen estimate from at least one duration, over blocks of neighbours.

        The cumulative hazard grows by 1 / (jobs still running) at each end of a job: W. Nelson,
        "Theory and applications of hazard plotting for censored failure data", 1972; O. Aalen,
        "Nonparametric inference for a family of counting processes", 1978.
        """
        known = sorted(durations)
        # Two imaginary jobs are added: one ends before all others, and one outlasts them.
        ends = [max(known[0], _MIN_BLOCK)]
        roots = [sqrt(1 / (len(known) + 1) / ends[0])]
        block_size, count, hazard = max(2, isqrt(len(known)) // 2), 0, 0.0
        for index, (duration, following) in enumerate(pairwise([*known, inf])):
            count += 1
            hazard += 1 / (len(known) - index + 1)
            min_end = ends[-1] + _MIN_BLOCK
            if following == inf or (count >= block_size and following > min_end):
                end = max(duration, min_end)
                roots.append(sqrt(hazard / (end - ends[-1])))
                ends.append(end)
                count, hazard = 0, 0.0
        return cls(ends, roots)

    def time_until(self, age: float, integral: float) -> float:
        """Return the seconds from `age` on in which √hazard integrates to `integral`."""
        elapsed = 0.0
        for index in range(bisect_right(self.ends, age), len(self.ends)):
            end, root = self.ends[index], self.roots[index]
            if (end - age) * root >= integral:
                return elapsed + integral / root
            integral -= (end - age) * root
            elapsed += end - age
            age = end
        return elapsed + integral * sqrt(age) + integral * integral / 4


@define(kw_only=True, eq=False)
class AdaptiveSchedule:
    """Learns how long covers take, and polls most often at the age when one is likely to end.

    `poll_cost` is the price of a poll: the seconds of lag that you would accept to save it. If a
    job ends in the next second with probability *h*, a poll every √(2 · cost / h) seconds costs
    least, lag and polls together (J. B. Keller, "Optimum checking schedules for systems subject to
    random failure", 1974). The pressure of a busy rate limiter raises the cost.

    `min_delay` and `max_delay`, which must not be less, bound the interval, in seconds; `jitter` is
    the share by which it is lengthened or shortened at random within them. One schedule may serve
    any number of clients: it stores the last 400 generation times that any wait has seen, and
    starts from a built-in estimate.

    Example:
        >>> schedule = AdaptiveSchedule(poll_cost=0.3)
        >>> async with CoverClient(schedule=schedule) as client:
        ...     details = await client.wait_for_cover("first-cover")
        >>> state = schedule.dump_state()  # a dict, ready for JSON
        >>> AdaptiveSchedule(poll_cost=0.3).load_state(state)
    """

    poll_cost: float = field(default=0.3, validator=number_validator(above=0))
    min_delay: float = field(default=0.25, validator=number_validator(above=0))
    max_delay: float = field(
        default=15.0, validator=[number_validator(above=0), at_least_field("min_delay")]
    )
    jitter: float = field(default=0.1, validator=number_validator(at_least=0, below=1))
    _times: deque[float] = field(factory=lambda: deque(maxlen=_MAX_TIMES), init=False, repr=False)
    _hazard: HazardRate = field(
        factory=lambda: HazardRate.estimate(PRIOR_GENERATION_TIMES), init=False, repr=False
    )
    _new_times: int = field(default=0, init=False, repr=False)

    def delay(self, age: float, pressure: float = 1.0) -> float:
        """Return the seconds until the next poll."""
        interval = self._hazard.time_until(max(age, 0.0), sqrt(2 * self.poll_cost * pressure))
        return min(max(_with_jitter(interval, self.jitter), self.min_delay), self.max_delay)

    def learn(self, details: CoverDetails) -> None:
        """Record how long the job took, if its times are present and plausible."""
        duration = details.generation_time
        if duration is not None and duration.total_seconds() < _MAX_GENERATION_TIME:
            self._times.append(duration.total_seconds())
            self._new_times += 1
            # Estimating again for every job would cost more than it improves.
            if self._new_times * 20 >= len(self._times):
                self._estimate()

    def dump_state(self) -> dict[str, Any]:
        """Return the recorded times, ready for JSON."""
        return {_STATE_KEY: list(self._times)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Replace all recorded times by those that `dump_state()` returned.

        Raises `TypeError` or `ValueError`, and changes nothing, if *state* has another form.
        """
        self._times = deque(_generation_times(state), maxlen=_MAX_TIMES)
        self._estimate()

    def _estimate(self) -> None:
        self._new_times = 0
        self._hazard = HazardRate.estimate([*PRIOR_GENERATION_TIMES, *self._times])


def _generation_times(state: Any) -> list[float]:
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping, not {short_repr(state)}")
    times = state.get(_STATE_KEY)
    if not isinstance(times, (list, tuple)):
        raise TypeError(f'state["{_STATE_KEY}"] must be a list of seconds, not {short_repr(times)}')
    for index, seconds in enumerate(times):
        name = f'state["{_STATE_KEY}"][{index}]'
        validate_number(name, seconds, at_least=0, below=_MAX_GENERATION_TIME)
    return [float(seconds) for seconds in times]
