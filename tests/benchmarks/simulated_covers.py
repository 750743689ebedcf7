"""Covers that take as long as a distribution says, and what schedules make of them."""

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
from kie_cover_async.polling import TaskWatch, Waiter, WaitOptions
from kie_cover_async.schedule import LearningSchedule

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
# A schedule that learns has seen this many before it is judged.
SCHOOLING = 500


# Mean seconds of lag, and mean polls for each cover.
Costs = tuple[float, float]


def price_within(polls: float, costs: Callable[[float], Costs]) -> float:
    """The lowest cost of a poll at which there are no more of them, by bisection."""
    low, high = 0.05, 10.0
    for _ in range(14):
        middle = (low * high) ** 0.5
        if costs(middle)[1] > polls:
            low = middle
        else:
            high = middle
    return high


def best_possible(done_by: Callable[[float], float], price: float) -> Costs:
    """Mean lag and polls of whoever knows the distribution: backwards, over a grid of ages."""
    step, furthest = 0.5, 400
    ages = np.arange(0, furthest, step)
    done = np.array([done_by(age) for age in ages])
    born = np.concatenate([[0.0], np.cumsum(np.diff(done) * (ages[1:] - step / 2))])
    cost, following = np.zeros(len(ages)), np.zeros(len(ages), int)

    def lag_to(here: int, there: int | slice) -> Any:
        return ages[there] * (done[there] - done[here]) - (born[there] - born[here])

    for here in range(len(ages) - 2, -1, -1):
        later = slice(here + 1, None)
        costs = lag_to(here, later) + price * (1 - done[here]) + cost[later]
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
    """How long covers take, in seconds: by a draw, and the share that is done by an age."""

    name: str
    draw: Callable[[random.Random], float]
    done_by: Callable[[float], float]

    def sample(self, count: int) -> list[float]:
        chance = random.Random(1)
        return [self.draw(chance) for _ in range(count)]

    @property
    def mean(self) -> float:
        return fmean(self.sample(10_000))

    def best_within(self, polls: float) -> Costs:
        """The least lag that so many polls allow, for whoever knows the distribution."""

        def best(price: float) -> Costs:
            return best_possible(self.done_by, price)

        return best(price_within(polls, best))


_LOG47, _AT30, _AT120 = NormalDist(log(47), 0.35), NormalDist(30, 3), NormalDist(120, 12)

DISTRIBUTIONS = (
    Distribution(
        "lognormal, median 47 s, sigma 0.35",
        lambda chance: chance.lognormvariate(_LOG47.mean, _LOG47.stdev),
        lambda age: _LOG47.cdf(log(age)) if age > 0 else 0.0,
    ),
    Distribution(
        "uniform, 20 to 150 s",
        lambda chance: chance.uniform(20, 150),
        lambda age: min(max((age - 20) / 130, 0.0), 1.0),
    ),
    Distribution(
        "bimodal, 30 or 120 s, sigma a tenth",
        lambda chance: chance.gauss(*((30, 3) if chance.random() < 0.5 else (120, 12))),
        lambda age: (_AT30.cdf(age) + _AT120.cdf(age)) / 2,
    ),
)


@frozen
class Every:
    """A poll every so many seconds, as most loops written by hand have it."""

    seconds: float

    def delay(self, age: float, pressure: float) -> float:
        return self.seconds


@frozen
class Heedless:
    """A schedule as it would be without any pressure."""

    schedule: AdaptiveSchedule

    def delay(self, age: float, pressure: float) -> float:
        return self.schedule.delay(age, 1.0)

    def learn(self, details: CoverDetails) -> None:
        self.schedule.learn(details)


def ended(created: float, taken: float, task_id: str = "a-cover") -> CoverDetails:
    """The record of a cover that is done; times are seconds after noon."""
    return CoverDetails(
        task_id=task_id,
        create_time=NOON + timedelta(seconds=created),
        complete_time=NOON + timedelta(seconds=created + taken),
        response=CoverResponse(images=("https://images.example/1.png",)),
        success_flag=1,
    )


def polls_at(schedule: Schedule, until: float) -> Iterator[float]:
    """The ages of one cover at which it is polled, the last of them at or after `until`."""
    age = 0.0
    yield age
    while age < until:
        age += schedule.delay(age, 1.0)
        yield age


def lag_and_polls(schedule: Schedule, durations: Sequence[float]) -> Costs:
    """Means for each cover, one after the other, with nobody else in the way."""
    random.seed(1)
    lags, polls = [], []
    for taken in durations:
        *earlier, last = polls_at(schedule, taken)
        lags.append(last - taken)
        polls.append(len(earlier) + 1)
        if isinstance(schedule, LearningSchedule):
            schedule.learn(ended(0.0, taken))
    return fmean(lags[SCHOOLING:]), fmean(polls[SCHOOLING:])


@define
class Ceilings:
    """The vendor's ceilings, by its own pages: 20 new covers in 10 s, 10 polls a second."""

    distribution: Distribution
    covers: int
    new_a_second: float = 2.0
    polls_a_second: int = 10
    latency: float = 0.2
    _lives: dict[str, tuple[float, float]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        chance, created = random.Random(2), 0.0
        for number, taken in enumerate(self.distribution.sample(self.covers)):
            created += chance.expovariate(self.new_a_second)
            self._lives[f"cover-{number}"] = created, taken

    def run(self, schedule: Schedule) -> "Crowd":
        """All covers, each waited for from its creation on, in virtual time."""
        random.seed(1)
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(self._all(schedule))

    async def _all(self, schedule: Schedule) -> "Crowd":
        transport = FakeTransport(self._answer, RateLimiter(self.polls_a_second))
        crowd, shared = Crowd(transport), coalescer_of(transport)
        options = WaitOptions(
            timeout=None, not_found_grace=90.0, schedule=schedule, retry=RetryPolicy()
        )

        async def waited_for(task_id: str) -> None:
            created, taken = self._lives[task_id]
            await asyncio.sleep(created)
            watch = TaskWatch(shared, None, task_id)
            await Waiter(transport, watch, options, expects_callback=False).run()
            crowd.lags[created] = asyncio.get_running_loop().time() - created - taken

        await asyncio.gather(*map(waited_for, self._lives))
        return crowd

    async def _answer(self, task_id: str) -> tuple[CoverDetails, datetime]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.latency / 2)
        created, taken = self._lives[task_id]
        details, clock = ended(created, taken, task_id), int(loop.time())
        if loop.time() < created + taken:
            details = evolve(details, complete_time=None, response=CoverResponse(), success_flag=2)
        await asyncio.sleep(self.latency / 2)
        return details, NOON + timedelta(seconds=clock)


@define
class Crowd:
    """What became of them."""

    transport: FakeTransport
    lags: dict[float, float] = field(factory=dict)

    @property
    def sent(self) -> list[float]:
        """When each poll was sent."""
        return self.transport.slots

    @property
    def lag(self) -> float:
        """The mean while as many come as go: neither of the first covers nor of the last."""
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
        """The largest number of polls that left within one second."""
        window: deque[float] = deque()
        most = 0
        for moment in self.sent:
            window.append(moment)
            while window[0] <= moment - 1 + 1e-6:
                window.popleft()
            most = max(most, len(window))
        return most
