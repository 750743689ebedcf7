import asyncio
from contextlib import ExitStack

import pytest
from interrupted import AS_IT_WAKES, WHILE_WAITING, InterruptedAt, pending_timers
from scripted_looks import COVER, GENERATING, ID, NEVER, PENDING, RESET, ScriptedApi
from virtual_time import now

from kie_cover_async.budget import RequestBudget
from kie_cover_async.errors import TransportError
from kie_cover_async.looks import Ear, SharedLooks, Sighting

pytestmark = pytest.mark.virtual_time

BUG = TypeError("a bug")


def shown(heard: object) -> object:
    return heard.details if isinstance(heard, Sighting) else heard


class Listener:
    """Looks at one moment, in a task of its own, and notes when its look left."""

    def __init__(self, looks: SharedLooks, moment: float = 0.0, *, flow: str | None = None) -> None:
        self.left: list[float] = []
        self.task = asyncio.create_task(self._look(looks, moment, flow))

    async def _look(self, looks: SharedLooks, moment: float, flow: str | None) -> object:
        await asyncio.sleep(moment)
        return shown(await looks.look(ID, lambda: self.left.append(now()), flow))


class BulkCall:
    """Ten requests of a bulk call, and behind them looks of the same at one id."""

    def __init__(self, api: ScriptedApi, budget: RequestBudget, looks: int) -> None:
        self.looks = SharedLooks(api.look)
        self.before = [asyncio.create_task(budget.acquire("a bulk")) for _ in range(10)]
        self.listeners = [Listener(self.looks, flow="a bulk") for _ in range(looks)]

    async def end(self) -> list[float]:
        """When the ten have left, of which nothing is left."""
        moments = await asyncio.gather(*self.before)
        assert nothing_left(self.looks)
        return moments


def nothing_left(looks: SharedLooks) -> bool:
    return not looks.ears and not looks._flights and not pending_timers()


async def test_one_look():
    """A look brings what the API says, when it says it, and stays in nobody's memory."""
    api = ScriptedApi(PENDING, latency=0.5)
    looks = SharedLooks(api.look)
    seen = await looks.look(ID)
    assert isinstance(seen, Sighting)
    assert (seen.details, seen.heard_at, now()) == (PENDING, 0.5, 0.5)
    assert nothing_left(looks)


async def test_looks_in_flight_are_joined():
    """Whoever comes while a look is in flight has its result; who comes later looks anew."""
    api = ScriptedApi(PENDING, COVER, latency=1)
    looks = SharedLooks(api.look)
    listeners = [Listener(looks, moment) for moment in (0, 0.5, 0.999, 1.5)]
    seen = await asyncio.gather(*[listener.task for listener in listeners])
    assert seen == [PENDING, PENDING, PENDING, COVER]
    assert api.looked_at == [0, 1.5]
    assert nothing_left(looks)


@pytest.mark.parametrize("flow", [None, "another bulk"])
async def test_no_look_queues_with_those_of_a_bulk_call(flow):
    """A look that a bulk call has queued is overtaken by others, and shares what they bring."""
    budget = RequestBudget(1)
    api = ScriptedApi(COVER, latency=0.5, budget=budget)
    bulk = BulkCall(api, budget, looks=2)
    await asyncio.sleep(3.6)
    others = [Listener(bulk.looks, flow=flow) for _ in range(2)]
    assert [await each.task for each in (*others, *bulk.listeners)] == [COVER] * 4
    assert (api.looked_at, now()) == ([4], 4.5)
    assert await bulk.end() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]


async def test_looks_of_one_flow_are_joined():
    """Equal ids of a bulk call cost one look."""
    api = ScriptedApi(PENDING, latency=1)
    looks = SharedLooks(api.look)
    seen = await asyncio.gather(*[looks.look(ID, flow="bulk") for _ in range(3)])
    assert [shown(heard) for heard in seen] == [PENDING] * 3
    assert api.looked_at == [0]


async def test_who_gave_way_to_a_look_that_is_lost():
    """The next look is theirs, and they need not queue for it behind all the others again."""
    budget = RequestBudget(1)
    api = ScriptedApi(NEVER, COVER, budget=budget)
    bulk = BulkCall(api, budget, looks=2)
    await asyncio.sleep(0.5)
    lost = Listener(bulk.looks)
    await asyncio.sleep(2)
    lost.task.cancel()
    assert [await each.task for each in bulk.listeners] == [COVER] * 2
    assert api.looked_at == [2, 3]
    assert [each.left for each in (lost, *bulk.listeners)] == [[2]] * 3
    await bulk.end()


async def test_who_gave_way_may_go():
    """Cancelling one who shares another's look harms nobody else, and leaves nothing."""
    budget = RequestBudget(1)
    api = ScriptedApi(COVER, latency=5, budget=budget)
    bulk = BulkCall(api, budget, looks=3)
    await asyncio.sleep(0.5)
    other = Listener(bulk.looks)
    await asyncio.sleep(2)
    gone, *stay = bulk.listeners
    gone.task.cancel()
    assert [await each.task for each in (other, *stay)] == [COVER] * 3
    assert (api.looked_at, now()) == ([2], 7)
    await bulk.end()


async def test_other_ids_are_not_joined():
    """Looks at different ids are apart."""
    asked = []

    async def look(task_id, on_sent, flow):
        asked.append(task_id)
        await asyncio.sleep(1)
        return Sighting(PENDING, None, now())

    looks = SharedLooks(look)
    await asyncio.gather(looks.look("a"), looks.look("b"), looks.look("a"))
    assert asked == ["a", "b"]


async def test_everybody_hears_of_a_sighting():
    """Every ear for the id hears what a look brings, but for the one whose own look it was."""
    api = ScriptedApi(PENDING, COVER, latency=1)
    looks = SharedLooks(api.look)
    with Ear(looks, ID) as one, Ear(looks, ID) as other, Ear(looks, "another") as apart:
        assert shown(await one.look()) is PENDING
        assert await one.listen_until(2) is None
        assert shown(await other.listen_until(9)) is PENDING
        assert now() == 2
        await looks.look(ID)
        assert shown(await one.listen_until(9)) is COVER
        assert shown(await other.listen_until(9)) is COVER
        assert await apart.listen_until(now()) is None
    assert nothing_left(looks)


async def test_each_has_an_error_of_its_own():
    """Who looks, who joins and who listens get equal errors, and no two get the same one."""
    api = ScriptedApi(RESET, latency=1)
    looks = SharedLooks(api.look)
    with Ear(looks, ID) as ear, Ear(looks, ID) as other:
        joined = [Listener(looks) for _ in range(2)]
        heard = [await ear.look(), await other.listen_until(9)]
        heard += [await listener.task for listener in joined]
    assert all(type(error) is TransportError and error.reason == "reset" for error in heard)
    assert len(set(map(id, heard))) == 4


async def test_what_came_meanwhile_is_older():
    """Of what came before one's own look and of what it brought, the latter is heard, once."""
    api = ScriptedApi(PENDING, GENERATING)
    looks = SharedLooks(api.look)
    with Ear(looks, ID) as ear:
        await looks.look(ID)
        assert shown(await ear.look()) is GENERATING
        assert await ear.listen_until(now()) is None


async def test_the_latest_is_heard():
    """Who does not listen for a while hears only of the last look."""
    api = ScriptedApi(PENDING, GENERATING, COVER)
    looks = SharedLooks(api.look)
    with Ear(looks, ID) as ear:
        for _ in range(3):
            await looks.look(ID)
        assert shown(await ear.listen_until(9)) is COVER
        assert await ear.listen_until(9) is None
    assert now() == 9


async def test_a_sleeper_is_woken():
    """Who listens hears at once, even where two things come in the same moment."""
    api = ScriptedApi(PENDING, COVER)
    looks = SharedLooks(api.look)
    with Ear(looks, ID) as ear:
        listening = asyncio.create_task(ear.listen_until(60))
        await asyncio.sleep(5)
        ear.hear(Sighting(PENDING, None, 0))
        ear.hear(Sighting(COVER, None, 0))
        assert shown(await listening) is COVER
        assert now() == 5
    assert nothing_left(looks)


@pytest.mark.parametrize("first", ["the news", "the end"])
async def test_news_at_the_very_end(first):
    """What comes at the moment at which one stops listening is heard all the same."""
    looks = SharedLooks(ScriptedApi(PENDING).look)
    with Ear(looks, ID) as ear:
        listening = asyncio.create_task(ear.listen_until(5))
        if first == "the end":
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(5, ear.hear, Sighting(COVER, None, 5))
        assert shown(await listening) is COVER


async def test_who_looks_first_may_go():
    """When the one who looks is cancelled the next one looks, and all the others have the result.

    Each of them goes in turn, and nothing is left of any.
    """
    api = ScriptedApi(PENDING, latency=10)
    looks = SharedLooks(api.look)
    listeners = [Listener(looks) for _ in range(4)]
    for i in range(2):
        await asyncio.sleep(1)
        listeners[i].task.cancel()
    assert await asyncio.gather(*[listener.task for listener in listeners[2:]]) == [PENDING] * 2
    assert api.looked_at == [0, 1, 2]
    assert now() == 12
    assert nothing_left(looks)


async def test_who_joined_may_go():
    """Cancelling one who joined harms neither the one who looks nor the others."""
    api = ScriptedApi(PENDING, latency=10)
    looks = SharedLooks(api.look)
    listeners = [Listener(looks) for _ in range(3)]
    await asyncio.sleep(1)
    listeners[1].task.cancel()
    results = await asyncio.gather(
        *[listener.task for listener in listeners], return_exceptions=True
    )
    assert [results[0], results[2]] == [PENDING] * 2
    assert isinstance(results[1], asyncio.CancelledError)
    assert api.looked_at == [0]


async def test_all_may_go():
    """When all are cancelled nothing is left, and nobody looks any more."""
    looks = SharedLooks(ScriptedApi(NEVER).look)
    listeners = [Listener(looks) for _ in range(3)]
    await asyncio.sleep(1)
    for listener in listeners:
        listener.task.cancel()
    await asyncio.wait([listener.task for listener in listeners])
    assert nothing_left(looks)


async def test_a_bug_hangs_nobody():
    """A look that fails by a bug fails for whoever made it; the others look for themselves."""
    api = ScriptedApi(BUG, BUG, PENDING, latency=1)
    looks = SharedLooks(api.look)
    listeners = [Listener(looks) for _ in range(4)]
    results = await asyncio.gather(
        *[listener.task for listener in listeners], return_exceptions=True
    )
    assert results == [BUG, BUG, PENDING, PENDING]
    assert api.looked_at == [0, 1, 2]
    assert nothing_left(looks)


async def test_when_a_look_has_left():
    """All who wait for a look hear when the budget lets it go; who comes later, at once."""
    budget = RequestBudget()
    budget.hold(5)
    looks = SharedLooks(ScriptedApi(PENDING, latency=2, budget=budget).look)
    listeners = [Listener(looks, moment) for moment in (0, 3, 6)]
    await asyncio.gather(*[listener.task for listener in listeners])
    assert [listener.left for listener in listeners] == [[5], [5], [6]]


async def test_a_look_leaves_once():
    """Who has heard that a look left does not hear it again when it has to be made anew."""
    looks = SharedLooks(ScriptedApi(PENDING, latency=10).look)
    gone, next_one, late = (Listener(looks, moment) for moment in (0, 0, 2))
    await asyncio.sleep(1)
    gone.task.cancel()
    await asyncio.gather(next_one.task, late.task)
    assert (next_one.left, late.left) == ([0], [2])


async def test_a_look_that_never_left():
    """Who took over a look that had not left yet hears when it does."""
    budget = RequestBudget()
    budget.hold(5)
    looks = SharedLooks(ScriptedApi(PENDING, budget=budget).look)
    gone, next_one = (Listener(looks) for _ in range(2))
    await asyncio.sleep(1)
    gone.task.cancel()
    await next_one.task
    assert (gone.left, next_one.left) == ([], [5])


async def test_who_is_gone_hears_nothing():
    """Who was cancelled before the look left is not told of it."""
    budget = RequestBudget()
    budget.hold(5)
    looks = SharedLooks(ScriptedApi(PENDING, budget=budget).look)
    stays, gone = (Listener(looks) for _ in range(2))
    await asyncio.sleep(1)
    gone.task.cancel()
    assert await stays.task is PENDING
    assert (stays.left, gone.left) == ([5], [])


@pytest.mark.parametrize("moment", [WHILE_WAITING, AS_IT_WAKES])
@pytest.mark.parametrize("wait", range(6))
@pytest.mark.parametrize("rank", range(3))
async def test_cancelled_at_every_wait(rank, wait, moment):
    """Whoever of three is cancelled, wherever it waits, the others have what they waited for."""
    api = ScriptedApi(PENDING, COVER, latency=1, budget=RequestBudget(1))
    looks = SharedLooks(api.look)
    with ExitStack() as stack:
        ears = [stack.enter_context(Ear(looks, ID)) for _ in range(3)]
        calls = [_twice(ear) for ear in ears]
        interrupted = InterruptedAt(wait, moment, calls[rank])
        calls[rank] = interrupted.run()
        results = await asyncio.gather(*calls, return_exceptions=True)
    outcome = results.pop(rank)
    assert isinstance(outcome, asyncio.CancelledError) is interrupted.interrupted
    assert all(result[-1] in (PENDING, COVER) for result in results)
    assert nothing_left(looks)


async def _twice(ear: Ear) -> list[object]:
    heard = [await ear.look(), await ear.listen_until(now() + 0.5), await ear.look()]
    return list(map(shown, heard))


async def test_ten_thousand_ids():
    """After looks at ten thousand ids nothing is kept of any."""

    async def look(task_id, on_sent, flow):
        if task_id.endswith("7"):
            raise RESET.copy()
        return Sighting(PENDING, None, now())

    looks = SharedLooks(look)
    for number in range(10_000):
        with Ear(looks, str(number)) as ear:
            await ear.look()
    assert nothing_left(looks)
