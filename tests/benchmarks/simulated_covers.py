"""Simulated covers, whose durations follow a distribution, and the costs of schedules."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from math import log
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
from attrs import define, evolve, field, frozen
from support.scripted_polls import FakeTransport, coalescer_of
from support.virtual_time import VirtualTimeLoop

from kie_cover_async import (
    AdaptiveSchedule,
    CoverDetails,
    CoverResponse,
    RateLimiter,
    RetryPolicy,
    Schedule,
)
from kie_cover_async.polling import WaitOptions
from kie_cover_async.polling.task_watch import TaskWatch
from kie_cover_async.polling.waiter import Waiter
from kie_cover_async.schedule import LearningSchedule

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
# A schedule that learns has seen this many covers before it is measured.
WARM_UP = 500

# Mean seconds of lag, and mean polls for each cover.
Costs = tuple[float, float]


def poll_cost_within(polls: float, costs: Callable[[float], Costs]) -> float:
    """Return the lowest poll cost with at most so many polls, by bisection."""
    low, high = 0.05, 10.0
    for _ in range(14):
        middle = (low * high) ** 0.5
        if costs(middle)[1] > polls:
            low = middle
        else:
            high = middle
    return high


def best_possible(done_by: Callable[[float], float], poll_cost: float) -> Costs:
    """Return lag and polls of the optimal schedule for a known distribution.

    By dynamic programming, backwards over a grid of ages.
    """
    step, furthest = 0.5, 400
    ages = np.arange(0, furthest, step)
    done = np.array([done_by(age) for age in ages])
    born = np.concatenate([[0.0], np.cumsum(np.diff(done) * (ages[1:] - step / 2))])
    cost, following = np.zeros(len(ages)), np.zeros(len(ages), int)

    def lag_to(here: int, there: int | slice) -> Any:
        return ages[there] * (done[there] - done[here]) - (born[there] - born[here])

    for here in range(len(ages) - 2, -1, -1):
        later = slice(here + 1, None)
        costs = lag_to(here, later) + poll_cost * (1 - done[here]) + cost[later]
        following[here] = here + 1 + int(costs.argmin())
        cost[here] = costs.min()
    here, lag, polls = 0, 0.0, 1.0
    while here < len(ages) - 1:
        lag += lag_to(here, following[here])
        polls += 1 - done[here]
        here = following[here]
    return float(lag), float(polls)


@frozen
class Distribution:
    """How long covers take, in seconds: a random draw, and the share that is done by an age."""

    name: str
    draw: Callable[[random.Random], float]
    done_by: Callable[[float], float]

    def sample(self, count: int) -> list[float]:
        rng = random.Random(1)
        return [self.draw(rng) for _ in range(count)]

    @property
    def mean(self) -> float:
        return fmean(self.sample(10_000))

    def best_within(self, polls: float) -> Costs:
        """Return the least lag that so many polls allow if the distribution is known."""

        def best(poll_cost: float) -> Costs:
            return best_possible(self.done_by, poll_cost)

        return best(poll_cost_within(polls, best))


_LOG47, _AT30, _AT120 = NormalDist(log(47), 0.35), NormalDist(30, 3), NormalDist(120, 12)

DISTRIBUTIONS = (
    Distribution(
        "lognormal, median 47 s, sigma 0.35",
        lambda rng: rng.lognormvariate(_LOG47.mean, _LOG47.stdev),
        lambda age: _LOG47.cdf(log(age)) if age > 0 else 0.0,
    ),
    Distribution(
        "uniform, 20 to 150 s",
        lambda rng: rng.uniform(20, 150),
        lambda age: min(max((age - 20) / 130, 0.0), 1.0),
    ),
    Distribution(
        "bimodal, 30 or 120 s, sigma a tenth",
        lambda rng: rng.gauss(*((30, 3) if rng.random() < 0.5 else (120, 12))),
        lambda age: (_AT30.cdf(age) + _AT120.cdf(age)) / 2,
    ),
)


@frozen
class Every:
    """A fixed interval, as in most hand-written loops."""

    seconds: float

    def delay(self, age: float, pressure: float) -> float:
        return self.seconds


@frozen
class WithoutPressure:
    """A schedule that ignores the pressure of the rate limiter."""

    schedule: AdaptiveSchedule

    def delay(self, age: float, pressure: float) -> float:
        return self.schedule.delay(age, 1.0)

    def learn(self, details: CoverDetails) -> None:
        self.schedule.learn(details)


def finished(created: float, duration: float, task_id: str = "a-cover") -> CoverDetails:
    """Return the record of a finished cover; times are seconds after noon."""
    return CoverDetails(
        task_id=task_id,
        create_time=NOON + timedelta(seconds=created),
        complete_time=NOON + timedelta(seconds=created + duration),
        response=CoverResponse(images=("https://images.example/1.png",)),
        success_flag=1,
    )


def polls_at(schedule: Schedule, until: float) -> Iterator[float]:
    """Yield the ages at which one cover is polled, the last of them at or after `until`."""
    age = 0.0
    yield age
    while age < until:
        age += schedule.delay(age, 1.0)
        yield age


def lag_and_polls(schedule: Schedule, durations: Sequence[float]) -> Costs:
    """Return the means over covers that are polled one after the other."""
    random.seed(1)
    lags, polls = [], []
    for duration in durations:
        *earlier, last = polls_at(schedule, duration)
        lags.append(last - duration)
        polls.append(len(earlier) + 1)
        if isinstance(schedule, LearningSchedule):
            schedule.learn(finished(0.0, duration))
    return fmean(lags[WARM_UP:]), fmean(polls[WARM_UP:])


@define
class VendorLimits:
    """Many covers at the vendor's documented limits: 20 new covers in 10 s, 10 polls a second."""

    distribution: Distribution
    covers: int
    new_a_second: float = 2.0
    polls_a_second: int = 10
    latency: float = 0.2
    _jobs: dict[str, tuple[float, float]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        rng, created = random.Random(2), 0.0
        for number, duration in enumerate(self.distribution.sample(self.covers)):
            created += rng.expovariate(self.new_a_second)
            self._jobs[f"cover-{number}"] = created, duration

    def run(self, schedule: Schedule) -> "Results":
        """Wait for all covers, each from its creation on, in virtual time."""
        random.seed(1)
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(self._all(schedule))

    async def _all(self, schedule: Schedule) -> "Results":
        transport = FakeTransport(self._answer, RateLimiter(self.polls_a_second))
        results, coalescer = Results(transport), coalescer_of(transport)
        options = WaitOptions(
            timeout=None, not_found_grace=90.0, schedule=schedule, retry=RetryPolicy()
        )

        async def wait_for(task_id: str) -> None:
            created, duration = self._jobs[task_id]
            await asyncio.sleep(created)
            watch = TaskWatch(coalescer, None, task_id)
            await Waiter(transport, watch, options, expects_callback=False).run()
            results.lags[created] = asyncio.get_running_loop().time() - created - duration

        await asyncio.gather(*map(wait_for, self._jobs))
        return results

    async def _answer(self, task_id: str) -> tuple[CoverDetails, datetime]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.latency / 2)
        created, duration = self._jobs[task_id]
        details, clock = finished(created, duration, task_id), int(loop.time())
        if loop.time() < created + duration:
            details = evolve(details, complete_time=None, response=CoverResponse(), success_flag=2)
        await asyncio.sleep(self.latency / 2)
        return details, NOON + timedelta(seconds=clock)


@define
class Results:
    """The lags, and the polls that were sent."""

    transport: FakeTransport
    lags: dict[float, float] = field(factory=dict)

    @property
    def sent(self) -> list[float]:
        """The time of each poll."""
        return self.transport.slots

    @property
    def lag(self) -> float:
        """The mean in the steady state, without the first and the last covers."""
        begin, end = max(self.lags) * 0.15, max(self.lags) * 0.95
        return fmean(lag for created, lag in self.lags.items() if begin <= created <= end)

    @property
    def polls(self) -> float:
        return len(self.sent) / len(self.lags)

    @property
    def queue(self) -> float:
        return fmean(self.transport.queued)

    @property
    def most_polls(self) -> int:
        """The largest number of polls within one second."""
        window: deque[float] = deque()
        most = 0
        for time in self.sent:
            window.append(time)
            while window[0] <= time - 1 + 1e-6:
                window.popleft()
            most = max(most, len(window))
        return most
