import asyncio
import copy
import gc
import logging
import pickle
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain, pairwise
from threading import Thread

import pytest
from support.api_answers import answer, envelope, record
from support.cancellation import AS_IT_WAKES, WHILE_WAITING, CancelledAt, pending_timers
from support.virtual_time import VirtualTimeLoop, now

from kie_cover_async import (
    ClientClosedError,
    CoverDetails,
    CoverFailedError,
    CoverOutcome,
    CoverTimeoutError,
    ExponentialSchedule,
    InvalidTaskIdError,
    OutcomeStream,
    RateLimiter,
    RetryPolicy,
    ServerError,
)
from kie_cover_async.api import Response
from kie_cover_async.api.suno import SUNO
from kie_cover_async.bulk import Pool
from kie_cover_async.cancel_scope import SharedTimeout
from kie_cover_async.polling import Poller, WaitOptions
from kie_cover_async.rate_limiter import ConcurrencyLimiter
from kie_cover_async.transport import Throttle, Transport
from kie_cover_async.transport.limits import OpenCalls

pytestmark = pytest.mark.virtual_time

BUG = ZeroDivisionError("a bug")
NO_TASKS: frozenset[object] = frozenset()


class FakeWork:
    """Fake work on an id: it takes a second, or the given seconds, or raises the given error."""

    def __init__(self, **outcomes_by_id: float | BaseException) -> None:
        self.outcomes_by_id = outcomes_by_id
        self.begun: list[str] = []
        self.tasks: set[object] = set()
        self.now_at = self.max_concurrent = 0

    async def __call__(self, task_id: str) -> CoverDetails:
        self.begun.append(task_id)
        self.tasks.add(asyncio.current_task())
        self.now_at += 1
        self.max_concurrent = max(self.max_concurrent, self.now_at)
        try:
            return await self._done(task_id, self.outcomes_by_id.get(task_id, 1))
        finally:
            self.now_at -= 1

    async def _done(self, task_id: str, fate: float | BaseException) -> CoverDetails:
        if isinstance(fate, BaseException):
            raise fate
        await asyncio.sleep(fate)
        return CoverDetails(task_id=task_id)


class CountingIds:
    """An iterator over many ids that counts how many were drawn."""

    def __init__(self, number: int = 1_000_000) -> None:
        self.number, self.drawn = number, 0

    def __iter__(self) -> Iterator[str]:
        while self.drawn < self.number:
            self.drawn += 1
            yield str(self.drawn)


class AsyncIds:
    """An async source of ids and errors, each after some seconds; it records the drawing tasks."""

    def __init__(self, *ids: str | BaseException, seconds: float = 0) -> None:
        self.ids, self.seconds = ids, seconds
        self.drawn: list[str] = []
        self.tasks: set[object] = set()
        self.closed = False

    async def __call__(self) -> AsyncIterator[str]:
        try:
            async with asyncio.timeout(1000):
                for task_id in self.ids:
                    await asyncio.sleep(self.seconds)
                    if isinstance(task_id, BaseException):
                        raise task_id
                    self.tasks.add(asyncio.current_task())
                    self.drawn.append(task_id)
                    yield task_id
        finally:
            await asyncio.sleep(0)
            self.closed = True


class PlainAsyncIterator:
    """An async iterable that is not a generator."""

    def __init__(self, *ids: str) -> None:
        self._ids = iter(ids)

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        try:
            return next(self._ids)
        except StopIteration:
            raise StopAsyncIteration from None


def stream(task_ids, work=None, *, limit=3, ordered=False, while_open=nullcontext):
    work = FakeWork() if work is None else work
    return OutcomeStream(Pool(task_ids, work, while_open, limit=limit, ordered=ordered))


async def note(outcomes: OutcomeStream, seen: dict[str, float]) -> None:
    """Take all outcomes, and record when each arrived."""
    async for outcome in outcomes:
        seen[outcome.task_id] = now()


async def ids_of(outcomes: OutcomeStream) -> list[str]:
    return [outcome.task_id async for outcome in outcomes]


def tasks() -> set[object]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_an_outcome_is_details_or_an_error():
    """An outcome without an error is ok; its result is the details, or raises the error."""
    details, error = CoverDetails(task_id="a"), ServerError(code=500)
    good, bad = CoverOutcome(task_id="a", details=details), CoverOutcome(task_id="a", error=error)
    assert (good.ok, good.result()) == (True, details)
    assert not bad.ok
    with pytest.raises(ServerError) as caught:
        bad.result()
    assert caught.value is error


async def test_outcomes_arrive_in_order_of_completion():
    """Each outcome arrives when its id is done."""
    seen: dict[str, float] = {}
    await note(stream(["slow", "quick", "middling"], FakeWork(slow=5, quick=1, middling=3)), seen)
    assert list(seen.items()) == [("quick", 1), ("middling", 3), ("slow", 5)]


async def test_ordered_outcomes_keep_the_input_order():
    """With `ordered`, an outcome arrives when all earlier ids are done."""
    seen: dict[str, float] = {}
    work = FakeWork(slow=5, quick=1, middling=3)
    await note(stream(["quick", "slow", "middling"], work, ordered=True), seen)
    assert list(seen.items()) == [("quick", 1), ("slow", 5), ("middling", 5)]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_every_item_has_one_outcome(limit, ordered):
    """Whatever the limit, each item has one outcome, equal items too."""
    task_ids = [str(n % 40) for n in range(100)]
    work = FakeWork(**{str(n): n % 5 for n in range(40)})
    seen = await ids_of(stream(task_ids, work, limit=limit, ordered=ordered))
    assert Counter(seen) == Counter(task_ids)
    assert not ordered or seen == task_ids


async def test_expected_failures_are_data():
    """A `KieCoverError` is its id's outcome, without a traceback, and ends nothing."""
    error = ServerError(code=500)
    by_id = {
        outcome.task_id: outcome async for outcome in stream(["a", "b", "c"], FakeWork(b=error))
    }
    assert {task_id: outcome.ok for task_id, outcome in by_id.items()} == {
        "a": True,
        "b": False,
        "c": True,
    }
    assert by_id["b"].error is error
    assert by_id["b"].details is error.__traceback__ is None


@pytest.mark.parametrize("source", ["an id", b"bytes", 5, None, [].append])
async def test_non_iterable_and_str_sources_are_rejected(source):
    """A str and a value that is not iterable are rejected immediately."""
    with pytest.raises(TypeError, match="task_ids must be an iterable of ids, not"):
        stream(source)


@pytest.mark.parametrize(
    "source", [list, dict.fromkeys, set, iter, lambda ids: PlainAsyncIterator(*ids)]
)
async def test_any_iterable_is_a_source(source):
    """Any iterable and any async iterable is accepted."""
    assert sorted(await ids_of(stream(source(["a", "b", "c", "d"])))) == ["a", "b", "c", "d"]


async def test_nothing_starts_before_the_first_iteration():
    """A stream that is not iterated draws no id and starts no task."""
    ids, async_ids, work = CountingIds(), AsyncIds("a"), FakeWork()
    streams = [stream(iter(ids), work), stream(async_ids(), work)]
    await turns()
    assert (ids.drawn, async_ids.drawn, work.begun, tasks()) == (0, [], [], NO_TASKS)
    for unused in streams:
        await unused.aclose()
        assert await ids_of(unused) == []
    assert work.begun == []


@pytest.mark.parametrize("source", [list, AsyncIds()], ids=["iterable", "async iterable"])
async def test_no_ids_give_no_outcomes(source):
    """Without ids there are no outcomes."""
    assert await ids_of(stream(source())) == []


async def test_an_ended_stream_stays_ended():
    """After its end, a stream raises `StopAsyncIteration` each time."""
    outcomes = stream(["a"])
    assert await ids_of(outcomes) == ["a"]
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)
    assert tasks() == NO_TASKS


@pytest.mark.parametrize("source", [list, lambda ids: AsyncIds(*ids)()], ids=["plain", "async"])
async def test_the_limit_bounds_concurrency(source):
    """As many ids as the limit are in work at the same time, and no more."""
    work = FakeWork()
    assert len(await ids_of(stream(source(CountingIds(20)), work, limit=4))) == 20
    assert work.max_concurrent == 4
    assert now() == 5


async def test_workers_are_reused():
    """There are only as many tasks as the limit; each continues with the next id."""
    work = FakeWork()
    await ids_of(stream(CountingIds(1000), work, limit=10))
    assert len(work.tasks) == 10


async def test_workers_start_one_per_loop_iteration():
    """Ten thousand workers do not start in one iteration of the event loop."""
    outcomes = stream(CountingIds(), work := FakeWork(), limit=10_000)
    first = asyncio.create_task(outcomes.__anext__())
    await turns(100)
    begun = len(work.begun)
    first.cancel()
    await outcomes.aclose()
    assert 40 < begun <= 100


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_slow_consumer_slows_the_source(ordered):
    """At most twice the limit of ids are drawn in advance of the consumer."""
    ids = CountingIds()
    async with stream(ids, limit=5, ordered=ordered) as outcomes:
        for taken in range(1, 50):
            await anext(outcomes)
            await asyncio.sleep(10)
            assert ids.drawn <= taken + 10
    assert ids.drawn > 50


async def test_a_slow_consumer_slows_an_async_source():
    """An async source is read only while a worker is free."""
    async_ids = AsyncIds(*map(str, range(1000)))
    async with stream(async_ids(), work := FakeWork(), limit=5) as outcomes:
        for taken in range(1, 50):
            await anext(outcomes)
            await asyncio.sleep(10)
            assert len(async_ids.drawn) <= taken + 11
            assert len(async_ids.drawn) - len(work.begun) <= 1


async def test_order_is_kept_within_a_window():
    """While one id takes very long, at most twice the limit of others are drawn."""
    ids = CountingIds()
    async with stream(ids, FakeWork(**{"3": 1000}), limit=5, ordered=True) as outcomes:
        assert [(await anext(outcomes)).task_id for _ in range(2)] == ["1", "2"]
        await asyncio.sleep(900)
        assert ids.drawn == 2 + 10
        assert [(await anext(outcomes)).task_id for _ in range(20)] == [
            str(n) for n in range(3, 23)
        ]


async def test_a_slow_source_is_processed_as_it_yields():
    """Each id is processed when it is yielded, and the source is closed at its end."""
    async_ids = AsyncIds("a", "b", "c", seconds=10)
    seen: dict[str, float] = {}
    await note(stream(async_ids(), FakeWork(a=15)), seen)
    assert list(seen.items()) == [("b", 21), ("a", 25), ("c", 31)]
    assert async_ids.closed


async def test_an_async_source_is_read_in_one_task():
    """A timeout or a task group around a `yield` stays in one task."""
    async_ids = AsyncIds(*map(str, range(100)))
    await ids_of(stream(async_ids(), limit=10))
    assert len(async_ids.tasks) == 1


@pytest.mark.parametrize(
    "source", [CountingIds, AsyncIds(*map(str, range(1000)))], ids=["plain", "async"]
)
@pytest.mark.parametrize("ordered", [False, True])
async def test_leaving_the_block_stops_everything(source, ordered):
    """After the block no task runs, and no outcome arrives."""
    work = FakeWork(**{"2": 60})
    async with stream(source(), work, ordered=ordered) as outcomes:
        await anext(outcomes)
        assert work.now_at
    assert (work.now_at, tasks(), pending_timers()) == (0, NO_TASKS, [])
    assert await ids_of(outcomes) == []


class Held:
    """A plain generator that holds a resource."""

    closed = False

    def __call__(self) -> Iterator[str]:
        try:
            yield from CountingIds()
        finally:
            self.closed = True


@pytest.mark.parametrize(
    "source", [Held(), AsyncIds(*map(str, range(1000)))], ids=["plain", "async"]
)
async def test_leaving_the_block_closes_the_source(source):
    """A generator is closed before the block is left."""
    async with stream(source()) as outcomes:
        await anext(outcomes)
    assert source.closed


class Counted:
    """An iterator that counts how often it is asked, the end included."""

    def __init__(self, number: int) -> None:
        self.left, self.asked = number, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.asked += 1
        if self.asked > self.left:
            raise StopIteration
        return str(self.asked)


async def test_an_exhausted_source_is_not_read_again():
    """A source that has ended is not read again."""
    source = Counted(10)
    assert len(await ids_of(stream(source, limit=4))) == 10
    assert source.asked == 11


@pytest.mark.parametrize(
    "source", [CountingIds, AsyncIds(*map(str, range(1000)))], ids=["plain", "async"]
)
async def test_work_continues_until_the_window_is_full(source):
    """Without a consumer, work continues until no room for outcomes is left."""
    async with stream(source(), work := FakeWork(), limit=3) as outcomes:
        await anext(outcomes)
        await asyncio.sleep(100)
        assert len(work.begun) == 1 + 2 * 3
        assert work.now_at == 0


async def test_a_worker_continues_without_waiting_for_the_consumer():
    """A worker whose id is done starts the next one immediately."""
    async with stream(CountingIds(), work := FakeWork(), limit=3) as outcomes:
        await anext(outcomes)
        assert (now(), work.now_at, len(work.begun)) == (1, 3, 6)


async def test_ids_that_fail_without_suspending_do_not_block_the_loop():
    """After an error, a worker lets other tasks run before it takes the next id."""
    task_ids = list(CountingIds(100))
    work = FakeWork(**dict.fromkeys(task_ids, ServerError(code=500)))
    outcomes = stream(task_ids, work, limit=100)
    first = asyncio.create_task(outcomes.__anext__())
    begun = []
    for _ in range(5):
        await asyncio.sleep(0)
        begun.append(len(work.begun))
    await first
    await outcomes.aclose()
    assert max(later - earlier for earlier, later in pairwise(begun)) < 10


async def test_an_error_of_the_consumer_stops_everything():
    """The consumer's own error propagates after everything has stopped."""

    async def fail(outcomes: OutcomeStream) -> None:
        async with outcomes:
            await anext(outcomes)
            raise BUG

    with pytest.raises(ZeroDivisionError):
        await fail(stream(CountingIds(), work := FakeWork()))
    assert (work.now_at, tasks()) == (0, NO_TASKS)


async def test_a_timeout_around_the_iteration_stops_everything():
    """The caller's `asyncio.timeout` bounds the whole call."""
    seen: dict[str, float] = {}

    async def consume(outcomes: OutcomeStream) -> None:
        async with asyncio.timeout(5.5), outcomes:
            await note(outcomes, seen)

    with pytest.raises(TimeoutError):
        await consume(stream(CountingIds(), work := FakeWork()))
    assert now() == 5.5
    assert len(seen) == 15
    assert (work.now_at, tasks()) == (0, NO_TASKS)


async def test_a_dropped_stream_cancels_its_tasks():
    """A stream without references cancels the tasks that it started."""
    work = FakeWork(**{"2": 60})
    await anext(stream(CountingIds(), work))
    assert work.now_at
    await turns()
    assert (work.now_at, tasks(), pending_timers()) == (0, NO_TASKS, [])


async def test_a_stream_dropped_in_another_thread_cancels_its_tasks():
    """The garbage collector may run in any thread; tasks are cancelled in their loop."""
    asyncio.get_running_loop().set_debug(True)
    work = FakeWork(**{"2": 60, "3": 60})
    held = [stream(CountingIds(), work)]
    await anext(held[0])
    assert work.now_at == 3
    dropping = Thread(target=held.clear)
    dropping.start()
    dropping.join()
    await turns()
    assert (work.now_at, tasks()) == (0, NO_TASKS)


def test_a_stream_may_outlive_its_loop():
    """Dropping a stream after its loop was closed does nothing."""
    held = []

    async def begin() -> None:
        held.append(stream(CountingIds()))
        await anext(held[0])

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(begin())
    held.clear()
    gc.collect()


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_a_stream_cannot_be_copied(again):
    """Copying raises `TypeError`, and the stream continues."""
    outcomes = stream(["a", "b"])
    await anext(outcomes)
    with pytest.raises(TypeError, match="an OutcomeStream cannot be pickled or copied"):
        again(outcomes)
    gc.collect()
    assert await ids_of(outcomes) == ["b"]


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_bug_is_raised_after_everything_stopped(ordered):
    """An unexpected exception stops everything and ends the iteration."""
    work = FakeWork(bad=BUG, slow=60)
    outcomes = stream(["good", "slow", "fine", "bad", "never"], work, limit=2, ordered=ordered)
    seen: dict[str, float] = {}
    with pytest.raises(ZeroDivisionError) as caught:
        await note(outcomes, seen)
    assert caught.value is BUG
    assert list(seen) == (["good"] if ordered else ["good", "fine"])
    assert (now(), work.now_at, tasks()) == (2, 0, NO_TASKS)
    assert "never" not in work.begun
    assert await ids_of(outcomes) == []


async def test_outcomes_before_a_bug_are_not_lost():
    """Outcomes that are ready arrive before the bug is raised."""
    outcomes = stream(["a", "b", "bad"], FakeWork(bad=BUG), limit=1)
    assert (await anext(outcomes)).task_id == "a"
    await asyncio.sleep(5)
    assert tasks() == NO_TASKS
    seen: dict[str, float] = {}
    with pytest.raises(ZeroDivisionError):
        await note(outcomes, seen)
    assert list(seen) == ["b"]


def broken() -> Iterator[str]:
    yield "a"
    raise BUG


@pytest.mark.parametrize("source", [broken, AsyncIds("a", BUG)], ids=["plain", "async"])
async def test_a_bug_of_the_source_is_raised(source):
    """An exception of the source is raised after the outcomes of its ids."""
    seen: dict[str, float] = {}
    with pytest.raises(ZeroDivisionError):
        await note(stream(source(), limit=1), seen)
    assert list(seen) == ["a"]
    assert tasks() == NO_TASKS


async def test_a_stray_stop_async_iteration_is_an_error():
    """A `StopAsyncIteration` of the work is not taken for the end of the stream."""
    with pytest.raises(RuntimeError, match="StopAsyncIteration") as caught:
        await ids_of(stream(["a", "b"], FakeWork(a=StopAsyncIteration())))
    assert isinstance(caught.value.__cause__, StopAsyncIteration)


async def test_a_worker_cancelled_from_outside_is_an_error():
    """If a worker is cancelled from outside, the iteration fails: no id is lost silently."""
    outcomes = stream(["a", "b"], work := FakeWork(a=60, b=60))
    first = asyncio.create_task(outcomes.__anext__())
    await turns()
    work.tasks.pop().cancel()
    with pytest.raises(RuntimeError, match="CancelledError was raised within a bulk call"):
        await first
    assert tasks() == NO_TASKS


async def test_a_stray_cancellation_is_an_error():
    """A `CancelledError` from within the work does not cancel the consumer."""
    stray = asyncio.CancelledError("stray")
    with pytest.raises(RuntimeError, match="CancelledError") as caught:
        await ids_of(stream(["a", "b"], FakeWork(a=stray, b=60)))
    assert caught.value.__cause__ is stray
    assert stray.__traceback__ is not None
    assert asyncio.current_task().cancelling() == 0
    assert tasks() == NO_TASKS


def test_ending_the_loop_logs_no_error(caplog):
    """The end of the loop cancels workers and consumers, and nothing is logged."""
    consumers = []

    async def begin() -> None:
        outcomes = stream(CountingIds(), FakeWork(**{"2": 60, "3": 60}))
        await anext(outcomes)
        consumers.extend(asyncio.create_task(ids_of(each)) for each in (outcomes, stream(["2"])))
        await turns()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(begin())
    gc.collect()
    assert [consumer.cancelled() for consumer in consumers] == [True, True]
    assert caplog.records == []


async def test_closing_the_client_ends_the_iteration():
    """The `ClientClosedError` is raised once and ends the iteration."""
    closed = ClientClosedError(task_id="b")
    outcomes = stream(["a", "b", "c"], FakeWork(a=60, b=closed, c=ClientClosedError()))
    with pytest.raises(ClientClosedError) as caught:
        await anext(outcomes)
    assert caught.value is closed
    assert await ids_of(outcomes) == []


async def test_closing_the_client_ends_the_source():
    """Closing the client ends a source that yields nothing."""
    async_ids, open_calls = AsyncIds("a", seconds=60), OpenCalls()
    asyncio.get_running_loop().call_later(5, open_calls.close)
    with pytest.raises(ClientClosedError):
        await ids_of(stream(async_ids(), while_open=open_calls.scope))
    assert (now(), async_ids.closed, tasks()) == (5, True, NO_TASKS)


class Stubborn(FakeWork):
    """Fails in being cancelled."""

    async def _done(self, task_id: str, fate: float | BaseException) -> CoverDetails:
        try:
            return await super()._done(task_id, fate)
        except asyncio.CancelledError:
            raise BUG from None


async def test_a_bug_while_stopping_is_logged(caplog):
    """An exception while the stream is being stopped is logged."""
    async with stream(["a", "b"], Stubborn(a=1, b=5)) as outcomes:
        assert (await anext(outcomes)).task_id == "a"
    [entry] = caplog.records
    assert (entry.levelno, entry.exc_info[1]) == (logging.ERROR, BUG)


async def test_a_bug_after_the_last_taken_outcome_is_logged(caplog):
    """A bug that the consumer did not wait for is logged."""
    async with stream(["a", "b", "bad"], FakeWork(a=1, b=2, bad=BUG), limit=2) as outcomes:
        await anext(outcomes)
        await asyncio.sleep(5)
    [entry] = caplog.records
    assert (entry.levelno, entry.exc_info[1]) == (logging.ERROR, BUG)


async def test_consumers_share_the_outcomes():
    """Each outcome goes to one consumer, and all consumers reach the end."""
    outcomes = stream(CountingIds(50), limit=10)

    async def consume() -> list[str]:
        seen = []
        async for outcome in outcomes:
            seen.append(outcome.task_id)
            await asyncio.sleep(1)
        return seen

    seen = await asyncio.gather(*[consume() for _ in range(3)])
    assert min(map(len, seen)) > 10
    assert sorted(map(int, chain(*seen))) == list(range(1, 51))


async def test_one_of_several_consumers_gets_the_bug():
    """One consumer gets the bug, and the others reach the end."""
    outcomes = stream(["bad"], FakeWork(bad=BUG))
    results = await asyncio.gather(*[ids_of(outcomes) for _ in range(3)], return_exceptions=True)
    assert sorted(results, key=repr) == sorted([BUG, [], []], key=repr)


@pytest.mark.parametrize("moment", [WHILE_WAITING, AS_IT_WAKES])
@pytest.mark.parametrize("wait", range(5))
async def test_a_cancelled_consumer_loses_no_outcome(wait, moment):
    """If one of two consumers is cancelled, the other gets the remaining outcomes."""
    outcomes = stream(CountingIds(20), limit=3)
    cancelled: dict[str, float] = {}
    interrupted = CancelledAt(wait, moment, note(outcomes, cancelled))
    _, others = await asyncio.gather(interrupted.run(), ids_of(outcomes), return_exceptions=True)
    assert interrupted.interrupted
    assert sorted([*cancelled, *others]) == sorted(map(str, range(1, 21)))
    assert tasks() == NO_TASKS


async def test_work_may_close_the_stream():
    """The work may close its own stream, which then ends."""
    seen = []

    async def close(task_id: str) -> CoverDetails:
        await asyncio.sleep(1)
        seen.append(task_id)
        await outcomes.aclose()

    outcomes = stream(CountingIds(), close)
    assert await ids_of(outcomes) == []
    assert (now(), seen, tasks()) == (1, ["1"], NO_TASKS)


async def test_closing_in_the_first_work_starts_nothing_more():
    """If the first work closes the stream, no other work starts."""
    begun = []

    async def close(task_id: str) -> CoverDetails:
        begun.append(task_id)
        await outcomes.aclose()

    outcomes = stream(PlainAsyncIterator("a", "b"), close)
    assert await ids_of(outcomes) == []
    await turns()
    assert (begun, tasks()) == (["a"], NO_TASKS)


async def test_closing_ends_waiting_consumers():
    """Closing ends a consumer that waits in another task; closing twice is harmless."""
    outcomes = stream(CountingIds(), FakeWork(**{"1": 60, "2": 60, "3": 60}))
    waiting = asyncio.create_task(ids_of(outcomes))
    await asyncio.sleep(1)
    await asyncio.gather(outcomes.aclose(), outcomes.aclose())
    assert await waiting == []
    assert now() == 1


async def test_eager_tasks_change_nothing():
    """With an eager task factory, all outcomes arrive."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
    task_ids = list(CountingIds(5000))
    work = FakeWork(**dict.fromkeys(task_ids, ServerError(code=500)))
    assert len(await ids_of(stream(task_ids, work, limit=2000))) == 5000
    assert len(await ids_of(stream(AsyncIds(*task_ids)(), limit=2000))) == 5000


Reply = Callable[[str], Response]


class ScriptedHttpClient:
    """The API behind a transport: what it is asked and when, and a reply for each."""

    def __init__(self, reply: Reply, latency: float) -> None:
        self.timeout = SharedTimeout(10.0)
        self._reply, self._latency = reply, latency
        self.sent: list[tuple[float, str]] = []

    async def request(self, request, *_):
        self.sent.append((now(), request.task_id))
        reply = self._reply(request.task_id)
        await asyncio.sleep(self._latency)
        return reply


def finished(task_id: str) -> Response:
    return answer(envelope(200, record(taskId=task_id)))


def generating(task_id: str) -> Response:
    return answer(envelope(200, {"taskId": task_id, "successFlag": 2}))


def failed(task_id: str) -> Response:
    return answer(envelope(200, {"taskId": task_id, "successFlag": 3}))


def refused(**headers: str) -> Response:
    return answer(envelope(429), **headers)


class PollHarness:
    """A client's polling, above a scripted HTTP client, in virtual time."""

    def __init__(self, reply: Reply, *, rate_limiter: RateLimiter, latency: float = 0.1) -> None:
        self.http_client = ScriptedHttpClient(reply, latency)
        self.rate_limiter = rate_limiter
        transport = Transport(
            http_client=self.http_client,
            polls=Throttle(ConcurrencyLimiter(100), rate_limiter),
            submits=Throttle(ConcurrencyLimiter(20), RateLimiter(19, per=10.0)),
            retry=RetryPolicy(),
        )
        self.poller = Poller(transport, SUNO)
        self.scope = transport.open_calls.scope

    def check(self, task_ids) -> OutcomeStream:
        return stream(
            task_ids,
            partial(self.poller.fetch, flow=object()),
            limit=100,
            while_open=self.scope,
        )

    def wait(self, task_ids, *, limit=10_000, **options) -> OutcomeStream:
        work = partial(self.poller.wait, options=waiting(**options))
        return stream(task_ids, work, limit=limit, while_open=self.scope)

    def is_empty(self) -> bool:
        coalescer = self.poller._coalescer
        return not (
            coalescer.watchers or coalescer._open_polls or self.rate_limiter.queued or tasks()
        )


def waiting(timeout: float | None = 900.0, interval: float = 5.0) -> WaitOptions:
    return WaitOptions(
        timeout=timeout,
        not_found_grace=90.0,
        schedule=ExponentialSchedule(initial_delay=interval, max_delay=interval, jitter=0),
        retry=RetryPolicy(),
    )


async def test_invalid_ids_are_outcomes():
    """An invalid id has an outcome with the id as given."""
    harness = PollHarness(finished, rate_limiter=RateLimiter.unlimited())
    given = ["a", "", None, "b c", 5, ["d"]]
    for outcomes in (harness.check(given), harness.wait(given)):
        seen = {repr(outcome.task_id): type(outcome.error) async for outcome in outcomes}
        refused = {repr(bad): InvalidTaskIdError for bad in given[1:]}
        assert seen == {repr("a"): type(None)} | refused


async def test_equal_ids_share_polls():
    """An id that is in work several times is polled once, and each item has its outcome."""
    harness = PollHarness(finished, rate_limiter=RateLimiter.unlimited())
    seen = await ids_of(harness.check(["a"] * 50 + ["b"] * 50))
    assert Counter(seen) == {"a": 50, "b": 50}
    assert sorted(task_id for _, task_id in harness.http_client.sent) == ["a", "b"]


async def test_a_failed_cover_is_ok_for_a_check_but_not_for_a_wait():
    """`check_covers` returns the record of a failed cover; `wait_for_covers` an error."""
    harness = PollHarness(failed, rate_limiter=RateLimiter.unlimited())
    [polled] = [outcome async for outcome in harness.check(["a"])]
    assert polled.ok
    assert polled.details.state.is_failure
    [waited] = [outcome async for outcome in harness.wait(["a"])]
    assert isinstance(waited.error, CoverFailedError)


async def test_each_wait_has_its_own_timeout():
    """The timeout of each id starts when its first poll is sent."""
    harness = PollHarness(generating, rate_limiter=RateLimiter(1, per=1.0))
    ended = []
    async for outcome in harness.wait(map(str, range(20)), timeout=3.0):
        assert isinstance(outcome.error, CoverTimeoutError)
        assert outcome.error.waited == pytest.approx(3.0)
        assert outcome.error.polls
        ended.append(now())
    assert ended[0] == pytest.approx(3)
    assert ended[-1] >= 19 + 3
    assert harness.is_empty()


async def test_the_limit_bounds_concurrent_waits():
    """More ids than the limit wait for their first poll."""
    harness = PollHarness(generating, rate_limiter=RateLimiter.unlimited())
    first_polls: dict[str, float] = {}
    async for _ in harness.wait(map(str, range(6)), limit=2, timeout=10.0):
        pass
    for at, task_id in harness.http_client.sent:
        first_polls.setdefault(task_id, at)
    assert [round(at) for at in first_polls.values()] == [0, 0, 10, 10, 20, 20]


async def durations_during(work, calls) -> list[float]:
    """Return how long each call takes while this work runs, one call after the other."""
    consuming = asyncio.create_task(work)
    await asyncio.sleep(10)
    taken = []
    for call in calls:
        started = now()
        await call
        taken.append(now() - started)
    consuming.cancel()
    with suppress(asyncio.CancelledError):
        await consuming
    await turns()
    return taken


ANSWER, SLOT = 0.1, 0.1


# One place in flight has to come free, and one slot.
@pytest.mark.parametrize("bulk", [PollHarness.check, PollHarness.wait])
async def test_a_bulk_call_delays_a_single_call_by_two_slots(bulk):
    """A single call next to a bulk call is sent within two slots, even for one of its ids."""
    harness = PollHarness(finished, rate_limiter=RateLimiter(10, per=1.0))
    calls = [harness.poller.fetch("one"), harness.poller.fetch("2000")]
    assert (
        max(await durations_during(ids_of(bulk(harness, CountingIds(2_000))), calls))
        <= 2 * SLOT + ANSWER + 1e-9
    )
    assert harness.is_empty()


async def test_a_bulk_call_delays_a_wait_by_two_slots():
    """A bulk call and all waits together take turns."""
    harness = PollHarness(finished, rate_limiter=RateLimiter(10, per=1.0))
    calls = [harness.poller.wait("one", waiting()), harness.poller.wait("2000", waiting())]
    assert (
        max(await durations_during(ids_of(harness.check(CountingIds(2_000))), calls))
        <= 2 * SLOT + ANSWER + 1e-9
    )
    assert harness.is_empty()


async def test_all_waits_are_one_flow():
    """Waits of two bulk calls and single waits poll in the order in which they are due."""
    harness = PollHarness(finished, rate_limiter=RateLimiter(10, per=1.0))
    large = asyncio.create_task(ids_of(harness.wait(f"large{n}" for n in range(50))))
    await asyncio.sleep(1)
    small = asyncio.create_task(ids_of(harness.wait(f"small{n}" for n in range(5))))
    await asyncio.sleep(1)
    single = asyncio.create_task(harness.poller.wait("single", waiting()))
    await asyncio.gather(large, small, single)
    expected = [*[f"large{n}" for n in range(50)], *[f"small{n}" for n in range(5)], "single"]
    assert [task_id for _, task_id in harness.http_client.sent] == expected


async def test_bulk_calls_take_turns():
    """Two bulk calls share the rate limiter evenly, whichever started first or has more ids."""
    harness = PollHarness(finished, rate_limiter=RateLimiter(10, per=1.0))
    large = asyncio.create_task(ids_of(harness.check(f"large{n}" for n in range(1000))))
    await asyncio.sleep(5)
    started = now()
    assert len(await ids_of(harness.check(f"small{n}" for n in range(100)))) == 100
    between = [task_id for at, task_id in harness.http_client.sent if at >= started]
    served = Counter(task_id.startswith("small") for task_id in between)
    assert served[True] == 100
    # Requests of the first call that have their place in flight keep it.
    assert abs(served[True] - served[False]) <= 5
    large.cancel()
    with suppress(asyncio.CancelledError):
        await large


async def test_one_refusal_pauses_all_polls():
    """After a 429 nothing is sent for its `Retry-After`, and then no faster than before."""
    refusals = {"50": iter([refused(Retry_After="5")])}
    harness = PollHarness(
        lambda task_id: next(refusals.get(task_id, iter(())), finished(task_id)),
        rate_limiter=RateLimiter(100, per=1.0),
    )
    outcomes = [outcome async for outcome in harness.check(map(str, range(300)))]
    assert all(outcome.ok for outcome in outcomes)
    assert len(outcomes) == 300
    gaps = sorted(
        later - earlier for (earlier, _), (later, _) in pairwise(harness.http_client.sent)
    )
    assert 5 <= gaps[-1] <= 5.5
    assert gaps[-2] < 0.011
    assert gaps[0] > 0.009


async def test_pauses_grow_during_refusals():
    """While the server refuses, almost nothing is sent, and no wait is lost."""
    harness = PollHarness(
        lambda task_id: finished(task_id) if now() >= 30 else refused(),
        rate_limiter=RateLimiter(10, per=1.0),
    )
    outcomes = [outcome async for outcome in harness.wait(map(str, range(100)))]
    assert all(outcome.ok for outcome in outcomes)
    sent = [at for at, _ in harness.http_client.sent]
    assert sum(at < 30 for at in sent) < 30
    assert sum(at >= 30 for at in sent) == 100
    assert now() < 30 + 20 + 100 / 10 + 1


async def test_leaving_a_bulk_of_waits_leaves_nothing():
    """Leaving a bulk of waits frees every slot, queue entry and timer."""
    harness = PollHarness(generating, rate_limiter=RateLimiter(10, per=1.0))
    async with harness.wait(map(str, range(1000))) as outcomes:
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                await anext(outcomes)
        assert not harness.is_empty()
    assert harness.is_empty()
    assert pending_timers() == []
