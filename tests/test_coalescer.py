import asyncio
from contextlib import ExitStack

import pytest
from support.cancellation import AS_IT_WAKES, WHILE_WAITING, CancelledAt, pending_timers
from support.scripted_polls import (
    COVER,
    GENERATING,
    ID,
    NEVER,
    PENDING,
    RESET,
    FakeTransport,
    ScriptedTransport,
    coalescer_of,
)
from support.virtual_time import now

from kie_cover_async.errors import TransportError
from kie_cover_async.fair_queue import QueueEntry
from kie_cover_async.polling.coalescer import PollCoalescer
from kie_cover_async.polling.task_watch import TaskWatch
from kie_cover_async.rate_limiter import RateLimiter
from kie_cover_async.transport import Answer

pytestmark = pytest.mark.virtual_time

BUG = TypeError("a bug")


def shown(heard: object) -> object:
    return heard.value if isinstance(heard, Answer) else heard


class Listener:
    """Polls at one moment, in a task of its own, and notes when its poll was sent."""

    def __init__(
        self, coalescer: PollCoalescer, moment: float = 0.0, *, flow: str | None = None
    ) -> None:
        self.left: list[float] = []
        self.task = asyncio.create_task(self._poll(coalescer, moment, flow))

    async def _poll(self, coalescer: PollCoalescer, moment: float, flow: str | None) -> object:
        await asyncio.sleep(moment)
        watch = TaskWatch(coalescer, None, ID)
        watch.on_first_sent = lambda: self.left.append(now())
        with watch:
            return shown(await coalescer.poll(ID, flow))


class BulkCall:
    """Ten requests of a bulk call, and behind them its polls of one id."""

    def __init__(self, api: ScriptedTransport, rate_limiter: RateLimiter, polls: int) -> None:
        self.coalescer = coalescer_of(api)
        self.before = [
            asyncio.create_task(rate_limiter.acquire(QueueEntry("a bulk"))) for _ in range(10)
        ]
        self.listeners = [Listener(self.coalescer, flow="a bulk") for _ in range(polls)]

    async def end(self) -> list[float]:
        """Return when the ten were sent; nothing of them is kept."""
        moments = await asyncio.gather(*self.before)
        assert nothing_left(self.coalescer)
        return moments


def nothing_left(coalescer: PollCoalescer) -> bool:
    return not coalescer.watchers and not coalescer._open_polls and not pending_timers()


async def test_a_poll_returns_the_answer_and_keeps_nothing():
    """A poll returns the API's answer when it arrives, and nothing is kept."""
    api = ScriptedTransport(PENDING, latency=0.5)
    coalescer = coalescer_of(api)
    seen = await coalescer.poll(ID)
    assert isinstance(seen, Answer)
    assert (seen.value, seen.received_at, now()) == (PENDING, 0.5, 0.5)
    assert nothing_left(coalescer)


async def test_polls_in_flight_are_joined():
    """A caller shares the result of a poll in flight; a later caller polls again."""
    api = ScriptedTransport(PENDING, COVER, latency=1)
    coalescer = coalescer_of(api)
    listeners = [Listener(coalescer, moment) for moment in (0, 0.5, 0.999, 1.5)]
    seen = await asyncio.gather(*[listener.task for listener in listeners])
    assert seen == [PENDING, PENDING, PENDING, COVER]
    assert api.polled_at == [0, 1.5]
    assert nothing_left(coalescer)


@pytest.mark.parametrize("flow", [None, "another bulk"])
async def test_a_single_poll_overtakes_the_queue_of_a_bulk_call(flow):
    """Another caller's poll overtakes the queued one of a bulk call and serves both."""
    rate_limiter = RateLimiter(1)
    api = ScriptedTransport(COVER, latency=0.5, rate_limiter=rate_limiter)
    bulk = BulkCall(api, rate_limiter, polls=2)
    await asyncio.sleep(3.6)
    others = [Listener(bulk.coalescer, flow=flow) for _ in range(2)]
    assert [await each.task for each in (*others, *bulk.listeners)] == [COVER] * 4
    assert (api.polled_at, now()) == ([4], 4.5)
    assert await bulk.end() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]


async def test_polls_of_one_flow_are_joined():
    """Equal ids of a bulk call cost one poll."""
    api = ScriptedTransport(PENDING, latency=1)
    coalescer = coalescer_of(api)
    seen = await asyncio.gather(*[coalescer.poll(ID, flow="bulk") for _ in range(3)])
    assert [shown(heard) for heard in seen] == [PENDING] * 3
    assert api.polled_at == [0]


async def test_a_replaced_poll_whose_replacement_is_lost_is_sent_next():
    """If the replacing poll is lost, the replaced one is next in its flow."""
    rate_limiter = RateLimiter(1)
    api = ScriptedTransport(NEVER, COVER, rate_limiter=rate_limiter)
    bulk = BulkCall(api, rate_limiter, polls=2)
    await asyncio.sleep(0.5)
    lost = Listener(bulk.coalescer)
    await asyncio.sleep(2)
    lost.task.cancel()
    assert [await each.task for each in bulk.listeners] == [COVER] * 2
    assert api.polled_at == [2, 3]
    assert [each.left for each in (lost, *bulk.listeners)] == [[2]] * 3
    await bulk.end()


async def test_a_caller_whose_poll_was_replaced_may_be_cancelled():
    """Cancelling a caller that shares another's poll harms no other caller."""
    rate_limiter = RateLimiter(1)
    api = ScriptedTransport(COVER, latency=5, rate_limiter=rate_limiter)
    bulk = BulkCall(api, rate_limiter, polls=3)
    await asyncio.sleep(0.5)
    other = Listener(bulk.coalescer)
    await asyncio.sleep(2)
    gone, *stay = bulk.listeners
    gone.task.cancel()
    assert [await each.task for each in (other, *stay)] == [COVER] * 3
    assert (api.polled_at, now()) == ([2], 7)
    await bulk.end()


async def test_polls_of_different_ids_are_separate():
    """Polls of different ids share nothing."""
    asked = []

    async def answer(task_id):
        asked.append(task_id)
        await asyncio.sleep(1)
        return PENDING, None

    coalescer = coalescer_of(FakeTransport(answer))
    await asyncio.gather(coalescer.poll("a"), coalescer.poll("b"), coalescer.poll("a"))
    assert asked == ["a", "b"]


async def test_every_watch_receives_a_result():
    """Every watch of the id receives a poll's result once, the polling one too."""
    api = ScriptedTransport(PENDING, COVER, latency=1)
    coalescer = coalescer_of(api)
    with (
        TaskWatch(coalescer, None, ID) as one,
        TaskWatch(coalescer, None, ID) as other,
        TaskWatch(coalescer, None, "another") as apart,
    ):
        assert shown(await one.next_outcome(0)) is PENDING
        assert one.unread is None
        assert shown(await other.next_outcome(9)) is PENDING
        assert now() == 1
        await coalescer.poll(ID)
        assert shown(await one.next_outcome(9)) is COVER
        assert shown(await other.next_outcome(9)) is COVER
        assert (api.polled_at, now()) == ([0, 1], 2)
        assert one.unread is other.unread is apart.unread is None
    assert nothing_left(coalescer)


async def test_each_caller_has_its_own_error():
    """Callers that poll, join or watch get equal errors that are separate objects."""
    api = ScriptedTransport(RESET, latency=1)
    coalescer = coalescer_of(api)
    with TaskWatch(coalescer, None, ID) as watch, TaskWatch(coalescer, None, ID) as other:
        joined = [Listener(coalescer) for _ in range(2)]
        heard = [await watch.next_outcome(0), await other.next_outcome(9)]
        heard += [await listener.task for listener in joined]
    assert all(type(error) is TransportError and error.reason == "reset" for error in heard)
    assert len(set(map(id, heard))) == 4
    assert api.polled_at == [0]


async def test_an_unread_result_is_returned_before_polling():
    """The result of another caller's poll is returned even if a poll is due."""
    api = ScriptedTransport(PENDING, GENERATING)
    coalescer = coalescer_of(api)
    with TaskWatch(coalescer, None, ID) as watch:
        await coalescer.poll(ID)
        assert shown(await watch.next_outcome(now())) is PENDING
        assert shown(await watch.next_outcome(now())) is GENERATING
    assert api.polled_at == [0, 0]


async def test_an_unread_result_has_the_time_of_its_own_poll():
    """Another poll that is sent before the result is read does not make the result younger."""
    coalescer = coalescer_of(ScriptedTransport(PENDING, GENERATING, latency=1))
    with TaskWatch(coalescer, None, ID) as watch:
        await coalescer.poll(ID)
        later = asyncio.create_task(coalescer.poll(ID))
        await asyncio.sleep(0.5)
        assert shown(await watch.next_outcome(now())) is PENDING
        assert watch.sent_at == 0
        await later
        assert watch.sent_at == 1


@pytest.mark.parametrize("joins", [False, True], ids=["leads", "joins"])
async def test_a_polls_result_is_returned_once(joins):
    """A watch that sent or joined a poll does not receive its result again."""
    api = ScriptedTransport(PENDING, latency=1)
    coalescer = coalescer_of(api)
    leader = Listener(coalescer) if joins else None
    await asyncio.sleep(0.5)
    with TaskWatch(coalescer, None, ID) as watch:
        assert shown(await watch.next_outcome(now())) is PENDING
        assert watch.unread is None
        assert len(api.polled_at) == 1
    if leader is not None:
        assert await leader.task is PENDING


async def test_only_the_latest_result_is_kept():
    """A watch that has not read for a while gets only the latest result."""
    api = ScriptedTransport(PENDING, GENERATING, COVER, PENDING)
    coalescer = coalescer_of(api)
    with TaskWatch(coalescer, None, ID) as watch:
        for _ in range(3):
            await coalescer.poll(ID)
        assert shown(await watch.next_outcome(9)) is COVER
        assert shown(await watch.next_outcome(9)) is PENDING
    assert api.polled_at == [0, 0, 0, 9]


async def test_a_result_wakes_a_sleeping_watch():
    """A watch that sleeps until its next poll returns a new result immediately."""
    api = ScriptedTransport(PENDING, COVER)
    coalescer = coalescer_of(api)
    with TaskWatch(coalescer, None, ID) as watch:
        sleeping = asyncio.create_task(watch.next_outcome(60))
        await asyncio.sleep(5)
        watch.on_outcome(Answer(PENDING, None, 0))
        watch.on_outcome(Answer(COVER, None, 0))
        assert shown(await sleeping) is COVER
        assert (api.polled_at, now()) == ([], 5)
    assert nothing_left(coalescer)


@pytest.mark.parametrize("first", ["the result", "the end"])
async def test_a_result_at_the_end_of_the_sleep_replaces_the_poll(first):
    """A result that arrives just when a poll is due is returned instead of polling."""
    api = ScriptedTransport(PENDING)
    coalescer = coalescer_of(api)
    with TaskWatch(coalescer, None, ID) as watch:
        sleeping = asyncio.create_task(watch.next_outcome(5))
        if first == "the end":
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(5, watch.on_outcome, Answer(COVER, None, 5))
        assert shown(await sleeping) is COVER
    assert api.polled_at == []


async def test_cancelling_the_polling_caller_makes_the_next_one_poll():
    """If the polling caller is cancelled, the next one polls for all.

    Two are cancelled in turn, and nothing of them is kept.
    """
    api = ScriptedTransport(PENDING, latency=10)
    coalescer = coalescer_of(api)
    listeners = [Listener(coalescer) for _ in range(4)]
    for i in range(2):
        await asyncio.sleep(1)
        listeners[i].task.cancel()
    assert await asyncio.gather(*[listener.task for listener in listeners[2:]]) == [PENDING] * 2
    assert api.polled_at == [0, 1, 2]
    assert now() == 12
    assert nothing_left(coalescer)


async def test_cancelling_a_joined_caller_harms_no_other():
    """Cancelling a caller that joined affects no other caller."""
    api = ScriptedTransport(PENDING, latency=10)
    coalescer = coalescer_of(api)
    listeners = [Listener(coalescer) for _ in range(3)]
    await asyncio.sleep(1)
    listeners[1].task.cancel()
    results = await asyncio.gather(
        *[listener.task for listener in listeners], return_exceptions=True
    )
    assert [results[0], results[2]] == [PENDING] * 2
    assert isinstance(results[1], asyncio.CancelledError)
    assert api.polled_at == [0]


async def test_cancelling_all_callers_leaves_nothing():
    """If all callers are cancelled, nothing is kept and no further poll is sent."""
    coalescer = coalescer_of(ScriptedTransport(NEVER))
    listeners = [Listener(coalescer) for _ in range(3)]
    await asyncio.sleep(1)
    for listener in listeners:
        listener.task.cancel()
    await asyncio.wait([listener.task for listener in listeners])
    assert nothing_left(coalescer)


async def test_a_bug_makes_no_other_caller_hang():
    """A bug fails only the caller that polled; the others poll for themselves."""
    api = ScriptedTransport(BUG, BUG, PENDING, latency=1)
    coalescer = coalescer_of(api)
    listeners = [Listener(coalescer) for _ in range(4)]
    results = await asyncio.gather(
        *[listener.task for listener in listeners], return_exceptions=True
    )
    assert results == [BUG, BUG, PENDING, PENDING]
    assert api.polled_at == [0, 1, 2]
    assert nothing_left(coalescer)


async def test_on_first_sent_is_called_when_the_poll_is_sent():
    """`on_first_sent` is called when the poll is sent, or immediately on joining later."""
    rate_limiter = RateLimiter()
    rate_limiter.pause(5)
    coalescer = coalescer_of(ScriptedTransport(PENDING, latency=2, rate_limiter=rate_limiter))
    listeners = [Listener(coalescer, moment) for moment in (0, 3, 6)]
    await asyncio.gather(*[listener.task for listener in listeners])
    assert [listener.left for listener in listeners] == [[5], [5], [6]]


async def test_on_first_sent_is_called_once():
    """`on_first_sent` is not called again if the poll was lost after it was sent."""
    coalescer = coalescer_of(ScriptedTransport(PENDING, latency=10))
    gone, next_one, late = (Listener(coalescer, moment) for moment in (0, 0, 2))
    await asyncio.sleep(1)
    gone.task.cancel()
    await asyncio.gather(next_one.task, late.task)
    assert (next_one.left, late.left) == ([0], [2])


async def test_on_first_sent_is_called_for_the_poll_that_replaces_an_unsent_one():
    """If the poll was lost before it was sent, `on_first_sent` is called when the next one is."""
    rate_limiter = RateLimiter()
    rate_limiter.pause(5)
    coalescer = coalescer_of(ScriptedTransport(PENDING, rate_limiter=rate_limiter))
    gone, next_one = (Listener(coalescer) for _ in range(2))
    await asyncio.sleep(1)
    gone.task.cancel()
    await next_one.task
    assert (gone.left, next_one.left) == ([], [5])


async def test_on_first_sent_is_not_called_for_a_cancelled_caller():
    """`on_first_sent` is not called for a caller that was cancelled before the poll was sent."""
    rate_limiter = RateLimiter()
    rate_limiter.pause(5)
    coalescer = coalescer_of(ScriptedTransport(PENDING, rate_limiter=rate_limiter))
    stays, gone = (Listener(coalescer) for _ in range(2))
    await asyncio.sleep(1)
    gone.task.cancel()
    assert await stays.task is PENDING
    assert (stays.left, gone.left) == ([5], [])


@pytest.mark.parametrize("moment", [WHILE_WAITING, AS_IT_WAKES])
@pytest.mark.parametrize("wait", range(6))
@pytest.mark.parametrize("rank", range(3))
async def test_a_caller_can_be_cancelled_at_each_await(rank, wait, moment):
    """Cancelling one of three callers at any await leaves the others their results."""
    api = ScriptedTransport(PENDING, COVER, latency=1, rate_limiter=RateLimiter(1))
    coalescer = coalescer_of(api)
    with ExitStack() as stack:
        watches = [stack.enter_context(TaskWatch(coalescer, None, ID)) for _ in range(3)]
        calls = [_twice(watch) for watch in watches]
        interrupted = CancelledAt(wait, moment, calls[rank])
        calls[rank] = interrupted.run()
        results = await asyncio.gather(*calls, return_exceptions=True)
    outcome = results.pop(rank)
    assert isinstance(outcome, asyncio.CancelledError) is interrupted.interrupted
    assert all(result[-1] in (PENDING, COVER) for result in results)
    assert nothing_left(coalescer)


async def _twice(watch: TaskWatch) -> list[object]:
    heard = [await watch.next_outcome(now())]
    # A result of another one's poll may be unread, or may wake this one.
    heard += [await watch.next_outcome(now() + 0.5) for _ in range(2)]
    return list(map(shown, heard))


async def test_an_urgent_caller_makes_the_joined_poll_urgent():
    """An urgent caller that joins a queued poll of its flow makes that poll urgent."""
    rate_limiter = RateLimiter(1)
    api = ScriptedTransport(COVER, rate_limiter=rate_limiter)
    bulk = BulkCall(api, rate_limiter, polls=1)
    await asyncio.sleep(0.5)
    urgent = asyncio.create_task(bulk.coalescer.poll(ID, "a bulk", urgent_at=2.5))
    assert shown(await urgent) is COVER
    assert api.polled_at == [3]
    assert await bulk.listeners[0].task is COVER
    assert await bulk.end() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]


async def test_nothing_is_kept_of_ten_thousand_ids():
    """After polls of ten thousand ids, nothing is kept of any of them."""

    async def answer(task_id):
        if task_id.endswith("7"):
            raise RESET.copy()
        return PENDING, None

    coalescer = coalescer_of(FakeTransport(answer))
    for number in range(10_000):
        with TaskWatch(coalescer, None, str(number)) as watch:
            await watch.next_outcome(now())
    assert nothing_left(coalescer)
