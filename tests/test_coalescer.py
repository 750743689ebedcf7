import asyncio
from contextlib import ExitStack

import pytest
from interrupted import AS_IT_WAKES, WHILE_WAITING, InterruptedAt, pending_timers
from scripted_polls import COVER, GENERATING, ID, NEVER, PENDING, RESET, ScriptedApi
from virtual_time import now

from kie_cover_async.errors import TransportError
from kie_cover_async.polling import PollCoalescer, PollResult, TaskWatch
from kie_cover_async.rate_limiter import RateLimiter

pytestmark = pytest.mark.virtual_time

BUG = TypeError("a bug")


def shown(heard: object) -> object:
    return heard.details if isinstance(heard, PollResult) else heard


class Listener:
    """Polls at one moment, in a task of its own, and notes when its poll left."""

    def __init__(
        self, coalescer: PollCoalescer, moment: float = 0.0, *, flow: str | None = None
    ) -> None:
        self.left: list[float] = []
        self.task = asyncio.create_task(self._poll(coalescer, moment, flow))

    async def _poll(self, coalescer: PollCoalescer, moment: float, flow: str | None) -> object:
        await asyncio.sleep(moment)
        return shown(await coalescer.poll(ID, lambda: self.left.append(now()), flow))


class BulkCall:
    """Ten requests of a bulk call, and behind them polls of the same at one id."""

    def __init__(self, api: ScriptedApi, rate_limiter: RateLimiter, polls: int) -> None:
        self.coalescer = PollCoalescer(api.poll)
        self.before = [asyncio.create_task(rate_limiter.acquire("a bulk")) for _ in range(10)]
        self.listeners = [Listener(self.coalescer, flow="a bulk") for _ in range(polls)]

    async def end(self) -> list[float]:
        """When the ten have left, of which nothing is left."""
        moments = await asyncio.gather(*self.before)
        assert nothing_left(self.coalescer)
        return moments


def nothing_left(coalescer: PollCoalescer) -> bool:
    return not coalescer.watches and not coalescer._in_flight and not pending_timers()


async def test_one_poll():
    """A poll brings what the API says, when it says it, and stays in nobody's memory."""
    api = ScriptedApi(PENDING, latency=0.5)
    coalescer = PollCoalescer(api.poll)
    seen = await coalescer.poll(ID)
    assert isinstance(seen, PollResult)
    assert (seen.details, seen.received_at, now()) == (PENDING, 0.5, 0.5)
    assert nothing_left(coalescer)


async def test_polls_in_flight_are_joined():
    """Whoever comes while a poll is in flight has its result; who comes later polls anew."""
    api = ScriptedApi(PENDING, COVER, latency=1)
    coalescer = PollCoalescer(api.poll)
    listeners = [Listener(coalescer, moment) for moment in (0, 0.5, 0.999, 1.5)]
    seen = await asyncio.gather(*[listener.task for listener in listeners])
    assert seen == [PENDING, PENDING, PENDING, COVER]
    assert api.polled_at == [0, 1.5]
    assert nothing_left(coalescer)


@pytest.mark.parametrize("flow", [None, "another bulk"])
async def test_no_poll_queues_with_those_of_a_bulk_call(flow):
    """A poll that a bulk call has queued is overtaken by others, and shares what they bring."""
    rate_limiter = RateLimiter(1)
    api = ScriptedApi(COVER, latency=0.5, rate_limiter=rate_limiter)
    bulk = BulkCall(api, rate_limiter, polls=2)
    await asyncio.sleep(3.6)
    others = [Listener(bulk.coalescer, flow=flow) for _ in range(2)]
    assert [await each.task for each in (*others, *bulk.listeners)] == [COVER] * 4
    assert (api.polled_at, now()) == ([4], 4.5)
    assert await bulk.end() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]


async def test_polls_of_one_flow_are_joined():
    """Equal ids of a bulk call cost one poll."""
    api = ScriptedApi(PENDING, latency=1)
    coalescer = PollCoalescer(api.poll)
    seen = await asyncio.gather(*[coalescer.poll(ID, flow="bulk") for _ in range(3)])
    assert [shown(heard) for heard in seen] == [PENDING] * 3
    assert api.polled_at == [0]


async def test_who_gave_way_to_a_poll_that_is_lost():
    """The next poll is theirs, and they need not queue for it behind all the others again."""
    rate_limiter = RateLimiter(1)
    api = ScriptedApi(NEVER, COVER, rate_limiter=rate_limiter)
    bulk = BulkCall(api, rate_limiter, polls=2)
    await asyncio.sleep(0.5)
    lost = Listener(bulk.coalescer)
    await asyncio.sleep(2)
    lost.task.cancel()
    assert [await each.task for each in bulk.listeners] == [COVER] * 2
    assert api.polled_at == [2, 3]
    assert [each.left for each in (lost, *bulk.listeners)] == [[2]] * 3
    await bulk.end()


async def test_who_gave_way_may_go():
    """Cancelling one who shares another's poll harms nobody else, and leaves nothing."""
    rate_limiter = RateLimiter(1)
    api = ScriptedApi(COVER, latency=5, rate_limiter=rate_limiter)
    bulk = BulkCall(api, rate_limiter, polls=3)
    await asyncio.sleep(0.5)
    other = Listener(bulk.coalescer)
    await asyncio.sleep(2)
    gone, *stay = bulk.listeners
    gone.task.cancel()
    assert [await each.task for each in (other, *stay)] == [COVER] * 3
    assert (api.polled_at, now()) == ([2], 7)
    await bulk.end()


async def test_other_ids_are_not_joined():
    """Polls of different ids are apart."""
    asked = []

    async def poll(task_id, on_sent, flow):
        asked.append(task_id)
        await asyncio.sleep(1)
        return PollResult(PENDING, None, now())

    coalescer = PollCoalescer(poll)
    await asyncio.gather(coalescer.poll("a"), coalescer.poll("b"), coalescer.poll("a"))
    assert asked == ["a", "b"]


async def test_everybody_hears_of_a_poll_result():
    """Every watch for the id hears what a poll brings, but for the one whose own poll it was."""
    api = ScriptedApi(PENDING, COVER, latency=1)
    coalescer = PollCoalescer(api.poll)
    with (
        TaskWatch(coalescer, ID) as one,
        TaskWatch(coalescer, ID) as other,
        TaskWatch(coalescer, "another") as apart,
    ):
        assert shown(await one.poll()) is PENDING
        assert await one.listen_until(2) is None
        assert shown(await other.listen_until(9)) is PENDING
        assert now() == 2
        await coalescer.poll(ID)
        assert shown(await one.listen_until(9)) is COVER
        assert shown(await other.listen_until(9)) is COVER
        assert await apart.listen_until(now()) is None
    assert nothing_left(coalescer)


async def test_each_has_an_error_of_its_own():
    """Who polls, who joins and who listens get equal errors, and no two get the same one."""
    api = ScriptedApi(RESET, latency=1)
    coalescer = PollCoalescer(api.poll)
    with TaskWatch(coalescer, ID) as watch, TaskWatch(coalescer, ID) as other:
        joined = [Listener(coalescer) for _ in range(2)]
        heard = [await watch.poll(), await other.listen_until(9)]
        heard += [await listener.task for listener in joined]
    assert all(type(error) is TransportError and error.reason == "reset" for error in heard)
    assert len(set(map(id, heard))) == 4


async def test_what_came_meanwhile_is_older():
    """Of what came before one's own poll and of what it brought, the latter is heard, once."""
    api = ScriptedApi(PENDING, GENERATING)
    coalescer = PollCoalescer(api.poll)
    with TaskWatch(coalescer, ID) as watch:
        await coalescer.poll(ID)
        assert shown(await watch.poll()) is GENERATING
        assert await watch.listen_until(now()) is None


async def test_the_latest_is_heard():
    """Who does not listen for a while hears only of the last poll."""
    api = ScriptedApi(PENDING, GENERATING, COVER)
    coalescer = PollCoalescer(api.poll)
    with TaskWatch(coalescer, ID) as watch:
        for _ in range(3):
            await coalescer.poll(ID)
        assert shown(await watch.listen_until(9)) is COVER
        assert await watch.listen_until(9) is None
    assert now() == 9


async def test_a_sleeper_is_woken():
    """Who listens hears at once, even where two things come in the same moment."""
    api = ScriptedApi(PENDING, COVER)
    coalescer = PollCoalescer(api.poll)
    with TaskWatch(coalescer, ID) as watch:
        listening = asyncio.create_task(watch.listen_until(60))
        await asyncio.sleep(5)
        watch.on_result(PollResult(PENDING, None, 0))
        watch.on_result(PollResult(COVER, None, 0))
        assert shown(await listening) is COVER
        assert now() == 5
    assert nothing_left(coalescer)


@pytest.mark.parametrize("first", ["the news", "the end"])
async def test_news_at_the_very_end(first):
    """What comes at the moment at which one stops listening is heard all the same."""
    coalescer = PollCoalescer(ScriptedApi(PENDING).poll)
    with TaskWatch(coalescer, ID) as watch:
        listening = asyncio.create_task(watch.listen_until(5))
        if first == "the end":
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(5, watch.on_result, PollResult(COVER, None, 5))
        assert shown(await listening) is COVER


async def test_who_polls_first_may_go():
    """When the one who polls is cancelled the next one polls, and all the others have the result.

    Each of them goes in turn, and nothing is left of any.
    """
    api = ScriptedApi(PENDING, latency=10)
    coalescer = PollCoalescer(api.poll)
    listeners = [Listener(coalescer) for _ in range(4)]
    for i in range(2):
        await asyncio.sleep(1)
        listeners[i].task.cancel()
    assert await asyncio.gather(*[listener.task for listener in listeners[2:]]) == [PENDING] * 2
    assert api.polled_at == [0, 1, 2]
    assert now() == 12
    assert nothing_left(coalescer)


async def test_who_joined_may_go():
    """Cancelling one who joined harms neither the one who polls nor the others."""
    api = ScriptedApi(PENDING, latency=10)
    coalescer = PollCoalescer(api.poll)
    listeners = [Listener(coalescer) for _ in range(3)]
    await asyncio.sleep(1)
    listeners[1].task.cancel()
    results = await asyncio.gather(
        *[listener.task for listener in listeners], return_exceptions=True
    )
    assert [results[0], results[2]] == [PENDING] * 2
    assert isinstance(results[1], asyncio.CancelledError)
    assert api.polled_at == [0]


async def test_all_may_go():
    """When all are cancelled nothing is left, and nobody polls any more."""
    coalescer = PollCoalescer(ScriptedApi(NEVER).poll)
    listeners = [Listener(coalescer) for _ in range(3)]
    await asyncio.sleep(1)
    for listener in listeners:
        listener.task.cancel()
    await asyncio.wait([listener.task for listener in listeners])
    assert nothing_left(coalescer)


async def test_a_bug_hangs_nobody():
    """A poll that fails by a bug fails for whoever made it; the others poll for themselves."""
    api = ScriptedApi(BUG, BUG, PENDING, latency=1)
    coalescer = PollCoalescer(api.poll)
    listeners = [Listener(coalescer) for _ in range(4)]
    results = await asyncio.gather(
        *[listener.task for listener in listeners], return_exceptions=True
    )
    assert results == [BUG, BUG, PENDING, PENDING]
    assert api.polled_at == [0, 1, 2]
    assert nothing_left(coalescer)


async def test_when_a_poll_has_left():
    """All who wait for a poll hear when the rate limiter lets it go; who comes later, at once."""
    rate_limiter = RateLimiter()
    rate_limiter.pause(5)
    coalescer = PollCoalescer(ScriptedApi(PENDING, latency=2, rate_limiter=rate_limiter).poll)
    listeners = [Listener(coalescer, moment) for moment in (0, 3, 6)]
    await asyncio.gather(*[listener.task for listener in listeners])
    assert [listener.left for listener in listeners] == [[5], [5], [6]]


async def test_a_poll_leaves_once():
    """Who has heard that a poll left does not hear it again when it has to be made anew."""
    coalescer = PollCoalescer(ScriptedApi(PENDING, latency=10).poll)
    gone, next_one, late = (Listener(coalescer, moment) for moment in (0, 0, 2))
    await asyncio.sleep(1)
    gone.task.cancel()
    await asyncio.gather(next_one.task, late.task)
    assert (next_one.left, late.left) == ([0], [2])


async def test_a_poll_that_never_left():
    """Who took over a poll that had not left yet hears when it does."""
    rate_limiter = RateLimiter()
    rate_limiter.pause(5)
    coalescer = PollCoalescer(ScriptedApi(PENDING, rate_limiter=rate_limiter).poll)
    gone, next_one = (Listener(coalescer) for _ in range(2))
    await asyncio.sleep(1)
    gone.task.cancel()
    await next_one.task
    assert (gone.left, next_one.left) == ([], [5])


async def test_who_is_gone_hears_nothing():
    """Who was cancelled before the poll left is not told of it."""
    rate_limiter = RateLimiter()
    rate_limiter.pause(5)
    coalescer = PollCoalescer(ScriptedApi(PENDING, rate_limiter=rate_limiter).poll)
    stays, gone = (Listener(coalescer) for _ in range(2))
    await asyncio.sleep(1)
    gone.task.cancel()
    assert await stays.task is PENDING
    assert (stays.left, gone.left) == ([5], [])


@pytest.mark.parametrize("moment", [WHILE_WAITING, AS_IT_WAKES])
@pytest.mark.parametrize("wait", range(6))
@pytest.mark.parametrize("rank", range(3))
async def test_cancelled_at_every_wait(rank, wait, moment):
    """Whoever of three is cancelled, wherever it waits, the others have what they waited for."""
    api = ScriptedApi(PENDING, COVER, latency=1, rate_limiter=RateLimiter(1))
    coalescer = PollCoalescer(api.poll)
    with ExitStack() as stack:
        watches = [stack.enter_context(TaskWatch(coalescer, ID)) for _ in range(3)]
        calls = [_twice(watch) for watch in watches]
        interrupted = InterruptedAt(wait, moment, calls[rank])
        calls[rank] = interrupted.run()
        results = await asyncio.gather(*calls, return_exceptions=True)
    outcome = results.pop(rank)
    assert isinstance(outcome, asyncio.CancelledError) is interrupted.interrupted
    assert all(result[-1] in (PENDING, COVER) for result in results)
    assert nothing_left(coalescer)


async def _twice(watch: TaskWatch) -> list[object]:
    heard = [await watch.poll(), await watch.listen_until(now() + 0.5), await watch.poll()]
    return list(map(shown, heard))


async def test_ten_thousand_ids():
    """After polls of ten thousand ids nothing is kept of any."""

    async def poll(task_id, on_sent, flow):
        if task_id.endswith("7"):
            raise RESET.copy()
        return PollResult(PENDING, None, now())

    coalescer = PollCoalescer(poll)
    for number in range(10_000):
        with TaskWatch(coalescer, str(number)) as watch:
            await watch.poll()
    assert nothing_left(coalescer)
