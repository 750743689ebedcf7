"""Polls that are densest where covers have been seen to end."""

import random
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import inf, isqrt, sqrt
from typing import Any, Self

from attrs import define, field, frozen

from kie_cover_async.models import CoverDetails
from kie_cover_async.validation import checked, not_below, short_repr, validate_number

# Seconds, from what has been told and seen of covers: most take 30 to 60, one took 146.
PRIOR = (25.0, 31.0, 37.0, 43.0, 47.0, 54.0, 63.0, 78.0, 100.0, 146.0)
_MEMORY = 400
# The vendor gives a job up long before; a clock or a time zone is wrong.
_ABSURD = 3600.0
# Ages are known no better than this: the server's clock shows whole seconds.
_NARROWEST = 1.0
_KEY = "generation_times"


@frozen
class Hazard:
    """How likely a job is to end in the next second, by its age; kept as square roots.

    Constant up to each of `ends`, as far as ages are known. Beyond, it is one over the age: the
    longer a job has outlasted all others, the longer it will still take.
    """

    ends: list[float]
    roots: list[float]

    @classmethod
    def seen_in(cls, durations: Iterable[float]) -> Self:
        """Estimated from at least one duration, over blocks of neighbours (Nelson and Aalen)."""
        known = sorted(durations)
        # One more is imagined that ends before all others, and one that outlasts them.
        ends = [max(known[0], _NARROWEST)]
        roots = [sqrt(1 / (len(known) + 1) / ends[0])]
        size, count, mass = max(2, isqrt(len(known)) // 2), 0, 0.0
        for place, (duration, following) in enumerate(pairwise([*known, inf])):
            count += 1
            mass += 1 / (len(known) - place + 1)
            narrowest = ends[-1] + _NARROWEST
            if following == inf or (count >= size and following > narrowest):
                end = max(duration, narrowest)
                roots.append(sqrt(mass / (end - ends[-1])))
                ends.append(end)
                count, mass = 0, 0.0
        return cls(ends, roots)

    def walk(self, age: float, effort: float) -> float:
        """Seconds from `age` on in which the root of the hazard adds up to `effort`."""
        walked = 0.0
        for place in range(bisect_right(self.ends, age), len(self.ends)):
            end, root = self.ends[place], self.roots[place]
            if (end - age) * root >= effort:
                return walked + effort / root
            effort -= (end - age) * root
            walked += end - age
            age = end
        return walked + effort * sqrt(age) + effort * effort / 4


@define(kw_only=True, eq=False)
class AdaptiveSchedule:
    """Learns how long covers take, and polls most often at the age where one is likely to end.

    `poll_cost` is what a poll is worth: the seconds of lag one would give to save it. Where a job
    ends in the next second with probability *h*, a poll every √(2 · cost / h) seconds costs least,
    lag and polls together (Keller, "Optimum checking schedules for systems subject to random
    failure", 1974). The pressure of a busy rate limiter raises the cost.

    `min_delay` and `max_delay`, which must not be less, bound the interval, in seconds; `jitter` is
    the share by which it is lengthened or shortened at random within them. One schedule may serve
    any number of clients: it knows the last 400 generation times that any wait has seen, and begins
    with a guess.

    Example:
        >>> schedule = AdaptiveSchedule(poll_cost=0.3)
        >>> async with CoverClient(schedule=schedule) as client:
        ...     details = await client.wait_for_cover("first-cover")
        >>> state = schedule.dump_state()  # a dict, ready for JSON
        >>> AdaptiveSchedule(poll_cost=0.3).load_state(state)
    """

    poll_cost: float = field(default=0.3, validator=checked(above=0))
    min_delay: float = field(default=0.25, validator=checked(above=0))
    max_delay: float = field(default=15.0, validator=[checked(above=0), not_below("min_delay")])
    jitter: float = field(default=0.1, validator=checked(at_least=0, below=1))
    _known: deque[float] = field(factory=lambda: deque(maxlen=_MEMORY), init=False, repr=False)
    _hazard: Hazard = field(factory=lambda: Hazard.seen_in(PRIOR), init=False, repr=False)
    _untabled: int = field(default=0, init=False, repr=False)

    def delay(self, age: float, pressure: float = 1.0) -> float:
        """Seconds until the next poll."""
        interval = self._hazard.walk(max(age, 0.0), sqrt(2 * self.poll_cost * pressure))
        spread = random.uniform(1 - self.jitter, 1 + self.jitter)
        return min(max(interval * spread, self.min_delay), self.max_delay)

    def learn(self, details: CoverDetails) -> None:
        """Remember how long the job took, if its times say so and make sense."""
        taken = details.generation_time
        if taken is not None and taken.total_seconds() < _ABSURD:
            self._known.append(taken.total_seconds())
            self._untabled += 1
            # A table made anew for every job would cost more than it is better.
            if self._untabled * 20 >= len(self._known):
                self._tabulate()

    def dump_state(self) -> dict[str, Any]:
        """What was learned, ready for JSON."""
        return {_KEY: list(self._known)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Know this from now on, as `dump_state()` once gave it, and nothing else.

        Raises `TypeError` or `ValueError`, and changes nothing, where it is not of that form.
        """
        self._known = deque(_generation_times(state), maxlen=_MEMORY)
        self._tabulate()

    def _tabulate(self) -> None:
        self._untabled = 0
        self._hazard = Hazard.seen_in([*PRIOR, *self._known])


def _generation_times(state: Any) -> list[float]:
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping, not {short_repr(state)}")
    times = state.get(_KEY)
    if not isinstance(times, (list, tuple)):
        raise TypeError(f'state["{_KEY}"] must be a list of seconds, not {short_repr(times)}')
    for place, seconds in enumerate(times):
        validate_number(f'state["{_KEY}"][{place}]', seconds, at_least=0, below=_ABSURD)
    return [float(seconds) for seconds in times]
