import asyncio

import pytest
from interrupted import AS_IT_WAKES, WHILE_WAITING, InterruptedAt
from virtual_time import now

from kie_cover_async.fair_queue import QueueEntry, QueueEntryCancelledError
from kie_cover_async.rate_limiter import ConcurrencyLimiter

pytestmark = pytest.mark.virtual_time


class Place:
    """Takes a place for a second, and notes who had one when."""

    def __init__(self, limit: int) -> None:
        self.limit = ConcurrencyLimiter(limit)
        self.taken: list[tuple[str, float]] = []
        self.busy = self.busiest = 0

    async def take(
        self, name: str, flow: str | QueueEntry | None = None, seconds: float = 1.0
    ) -> None:
        await self.limit.acquire(flow)
        try:
            self.taken.append((name, now()))
            self.busy += 1
            self.busiest = max(self.busy, self.busiest)
            await asyncio.sleep(seconds)
        finally:
            self.busy -= 1
            self.limit.release()

    async def all_free(self, limit: int) -> bool:
        """Whether exactly so many places are free, each of them usable at once."""
        for _ in range(limit):
            await asyncio.wait_for(self.limit.acquire(), 0.001)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.limit.acquire(), 0.001)
        return True


async def test_no_more_than_the_limit():
    """Ten calls on three places go three at a time, in the order in which they came."""
    place = Place(3)
    await asyncio.gather(*[place.take(str(i)) for i in range(10)])
    assert place.taken == [(str(i), float(i // 3)) for i in range(10)]
    assert place.busiest == 3
    assert await place.all_free(3)


async def test_flows_take_turns():
    """A hundred of one bulk call let single calls pass, one for one."""
    place = Place(1)
    bulk = [place.take(f"bulk {i}", "bulk") for i in range(100)]
    await asyncio.gather(*bulk, place.take("single"), place.take("other single"))
    first = [name for name, _ in place.taken[:5]]
    assert first == ["bulk 0", "bulk 1", "single", "other single", "bulk 2"]
    assert len(place.taken) == 102


async def test_flows_of_many_are_even():
    """Of two bulk calls each has every second place, though one asked for all of its first."""
    place = Place(1)
    early = [place.take("early", "a") for _ in range(20)]
    late = [place.take("late", "b") for _ in range(20)]
    await asyncio.gather(*early, *late)
    assert [name for name, _ in place.taken[1:11]] == ["early", "late"] * 5


@pytest.mark.parametrize(
    ("wait", "moment", "free_at"),
    [
        (0, WHILE_WAITING, 1),  # in the queue
        (0, AS_IT_WAKES, 1),  # given the place, and not there yet
        (1, WHILE_WAITING, 1),  # at work, at once
        (1, AS_IT_WAKES, 2),  # at work, in the end
        (2, WHILE_WAITING, 2),  # not at all: there is no third wait
    ],
)
async def test_cancelled_at_every_wait(wait, moment, free_at):
    """Wherever a call is cancelled, queued or with its place just given, no place is lost."""
    place = Place(1)
    interrupted = InterruptedAt(wait, moment, place.take("interrupted"))
    calls = [place.take("first"), interrupted.run(), place.take("last")]
    _, outcome, _ = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError) is interrupted.interrupted is (wait < 2)
    assert place.taken[-1] == ("last", free_at)
    assert await place.all_free(1)


async def test_all_are_cancelled_at_once():
    """The place of one who is cancelled with all the others is free again."""
    place = Place(2)
    tasks = [asyncio.create_task(place.take(str(i))) for i in range(50)]
    await asyncio.sleep(1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert await place.all_free(2)


async def test_given_to_one_who_is_cancelled_already():
    """A place that goes to a task whose cancelling is under way goes on to the next one."""
    limit = ConcurrencyLimiter(1)
    await limit.acquire()
    gone, next_one = (asyncio.create_task(limit.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    limit.release()
    await asyncio.wait([gone, next_one])
    assert gone.cancelled()
    assert not next_one.cancelled()


async def test_a_prioritized_entry_goes_before_those_of_its_flow():
    """In the order in which they were prioritized, and not before those of other flows."""
    place = Place(1)
    entries = [QueueEntry("bulk") for _ in range(5)]
    takes = [place.take(str(n), entry) for n, entry in enumerate(entries)]
    takes += [place.take("other", "other") for _ in range(2)]
    running = [asyncio.create_task(take) for take in takes]
    await asyncio.sleep(0.5)
    for n in (4, 3, 4, 0):
        entries[n].prioritize()
    await asyncio.gather(*running)
    assert [name for name, _ in place.taken] == ["0", "4", "other", "3", "other", "1", "2"]


async def test_who_prioritizes_alone_passes_nobody():
    """A request that is a flow of its own waits for one turn of each other flow all the same."""
    place = Place(1)
    entries = [QueueEntry() for _ in range(5)]
    takes = [place.take(str(n), entry) for n, entry in enumerate(entries)]
    running = [asyncio.create_task(take) for take in takes]
    await asyncio.sleep(0.5)
    entries[3].prioritize()
    await asyncio.gather(*running)
    assert [name for name, _ in place.taken] == ["0", "1", "2", "3", "4"]


async def test_a_flow_goes_by_when_its_requests_are_due():
    """Whatever the order in which they came; of two that are due together the first to come."""
    place = Place(1)
    moments = [0, 9, 5, 7, 5, 3]
    await asyncio.gather(
        *[place.take(f"{n}: {due}", QueueEntry("waits", due=due)) for n, due in enumerate(moments)]
    )
    assert [name for name, _ in place.taken] == ["0: 0", "5: 3", "2: 5", "4: 5", "3: 7", "1: 9"]


async def test_who_joins_goes_before_who_was_served_last():
    """A single request beside flows that always have others waiting has the next place."""
    place = Place(1)
    running = [asyncio.create_task(place.take("bulk", "bulk")) for _ in range(5)]
    for name in ("first", "second"):
        await asyncio.sleep(1.5)
        running.append(asyncio.create_task(place.take(name)))
    await asyncio.gather(*running)
    taken = [name for name, _ in place.taken]
    assert taken == ["bulk", "bulk", "first", "bulk", "second", "bulk", "bulk"]


async def test_single_requests_without_end_keep_no_flow_waiting():
    """Where more of them come than there are places, a flow that waits has its turns as well."""
    place = Place(1)
    running = [asyncio.create_task(place.take("bulk", "bulk")) for _ in range(5)]
    for _ in range(60):
        running.append(asyncio.create_task(place.take("single")))
        await asyncio.sleep(0.5)
    assert [name for name, _ in place.taken].count("bulk") == 4
    await asyncio.gather(*running)


async def test_who_left_takes_no_room():
    """What is kept of a flow grows with those that wait in it, not with those that left it."""
    place = Place(1)
    running = [asyncio.create_task(place.take("bulk", "bulk")) for _ in range(1000)]
    await asyncio.sleep(0.5)
    for task in running[2:]:
        task.cancel()
    await asyncio.wait(running[2:])
    assert len(place.limit._queue._lines["bulk"]._heap) <= 2
    await asyncio.gather(*running[:2])
    assert not place.limit._queue._lines
    assert await place.all_free(1)


@pytest.mark.parametrize("is_given", [False, True])
async def test_who_is_cancelled(is_given):
    """A request that nobody needs any more leaves the queue, and the place goes to the next one."""
    limit, entry = ConcurrencyLimiter(1), QueueEntry()
    await limit.acquire()
    gone, next_one = (asyncio.create_task(limit.acquire(flow)) for flow in (entry, None))
    await asyncio.sleep(0)
    if is_given:
        limit.release()
    entry.cancel()
    with pytest.raises(QueueEntryCancelledError):
        await gone
    if not is_given:
        limit.release()
    await next_one
    with pytest.raises(QueueEntryCancelledError):
        await limit.acquire(entry)
    limit.release()
    assert limit._free == 1


async def test_who_is_cancelled_before_it_queues():
    """It takes no place, not even a free one."""
    limit, entry = ConcurrencyLimiter(1), QueueEntry()
    entry.cancel()
    with pytest.raises(QueueEntryCancelledError):
        await limit.acquire(entry)
    assert limit._free == 1
