"""The limit of concurrent requests, and the fair queue in front of it."""

import asyncio
from math import inf

import pytest
from support.cancellation import AS_IT_WAKES, WHILE_WAITING, CancelledAt
from support.virtual_time import now

from kie_cover_async.fair_queue import FairQueue, QueueEntry, QueueEntryCancelledError
from kie_cover_async.rate_limiter import ConcurrencyLimiter

pytestmark = pytest.mark.virtual_time


async def acquire(limiter: ConcurrencyLimiter, entry: QueueEntry | None = None) -> None:
    """Take a place as a request does: queue only if none is free."""
    if not limiter.try_acquire():
        await limiter.acquire(entry or QueueEntry())


class Place:
    """Takes a place for a second, and notes which request had one when."""

    def __init__(self, limit: int) -> None:
        self.limiter = ConcurrencyLimiter(limit)
        self.taken: list[tuple[str, float]] = []
        self.busy = self.busiest = 0

    async def take(
        self, name: str, flow: str | QueueEntry | None = None, seconds: float = 1.0
    ) -> None:
        await acquire(self.limiter, flow if isinstance(flow, QueueEntry) else QueueEntry(flow))
        try:
            self.taken.append((name, now()))
            self.busy += 1
            self.busiest = max(self.busy, self.busiest)
            await asyncio.sleep(seconds)
        finally:
            self.busy -= 1
            self.limiter.release()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.taken]

    def all_free(self, limit: int) -> bool:
        """Whether exactly so many places are free."""
        free = [self.limiter.try_acquire() for _ in range(limit + 1)]
        return free == [True] * limit + [False]


async def test_no_more_than_the_limit():
    """Ten calls on three places go three at a time, in the order in which they came."""
    place = Place(3)
    await asyncio.gather(*[place.take(str(i)) for i in range(10)])
    assert place.taken == [(str(i), float(i // 3)) for i in range(10)]
    assert place.busiest == 3
    assert place.all_free(3)


async def test_no_call_passes_the_queue():
    """A call that comes as a place is given back does not get it while others queue."""
    place = Place(1)
    running = [asyncio.create_task(place.take(name)) for name in ("first", "queued")]
    await asyncio.sleep(0.5)
    place.limiter.release()
    assert not place.limiter.try_acquire()
    await running[1]
    assert place.names == ["first", "queued"]
    assert place.limiter.try_acquire()
    await running[0]


async def test_flows_take_turns():
    """A hundred requests of one bulk call let single calls pass, one for one."""
    place = Place(1)
    bulk = [place.take(f"bulk {i}", "bulk") for i in range(100)]
    await asyncio.gather(*bulk, place.take("single"), place.take("other single"))
    assert place.names[:5] == ["bulk 0", "bulk 1", "single", "other single", "bulk 2"]
    assert len(place.taken) == 102


async def test_flows_of_many_are_even():
    """Of two bulk calls each has every second place, though one asked for all of its first."""
    place = Place(1)
    early = [place.take("early", "a") for _ in range(20)]
    late = [place.take("late", "b") for _ in range(20)]
    await asyncio.gather(*early, *late)
    assert place.names[1:11] == ["early", "late"] * 5


@pytest.mark.parametrize(
    ("wait", "moment", "free_at"),
    [
        (0, WHILE_WAITING, 1),  # in the queue
        (0, AS_IT_WAKES, 1),  # the place was given, and not taken yet
        (1, WHILE_WAITING, 1),  # at work, immediately
        (1, AS_IT_WAKES, 2),  # at work, at its end
        (2, WHILE_WAITING, 2),  # not at all: there is no third wait
    ],
)
async def test_cancelled_at_every_wait(wait, moment, free_at):
    """Wherever a call is cancelled, queued or with its place just given, no place is lost."""
    place = Place(1)
    interrupted = CancelledAt(wait, moment, place.take("interrupted"))
    calls = [place.take("first"), interrupted.run(), place.take("last")]
    _, outcome, _ = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError) is interrupted.interrupted is (wait < 2)
    assert place.taken[-1] == ("last", free_at)
    assert place.all_free(1)


async def test_all_are_cancelled_together():
    """The place of a call that is cancelled with all the others is free again."""
    place = Place(2)
    tasks = [asyncio.create_task(place.take(str(i))) for i in range(50)]
    await asyncio.sleep(1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert place.all_free(2)


async def test_given_to_a_cancelled_task():
    """A place that is given to a task whose cancellation is under way goes to the next one."""
    limiter = ConcurrencyLimiter(1)
    await acquire(limiter)
    gone, next_one = (asyncio.create_task(acquire(limiter)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    limiter.release()
    await asyncio.wait([gone, next_one])
    assert gone.cancelled()
    assert not next_one.cancelled()


async def running_in(place: Place, takes) -> asyncio.Future:
    """All of them, half a second later: the first has the place, the others queue."""
    running = asyncio.gather(*takes)
    await asyncio.sleep(0.5)
    return running


async def test_an_urgent_entry_goes_before_others_of_its_flow():
    """In the order in which they became urgent, and not before entries of other flows."""
    place = Place(1)
    entries = [QueueEntry("bulk") for _ in range(5)]
    takes = [place.take(str(n), entry) for n, entry in enumerate(entries)]
    takes += [place.take("other", "other") for _ in range(2)]
    running = await running_in(place, takes)
    for n in (4, 3, 4, 0):
        entries[n].prioritize(now())
    await running
    assert place.names == ["0", "4", "other", "3", "other", "1", "2"]


async def test_an_entry_becomes_urgent_in_time():
    """From its time on it goes first, and before that where it is due: nothing has to call it."""
    place = Place(1)
    urgent_at = [inf, inf, inf, 2.5, 1.5, 9.0]
    entries = [QueueEntry("waits", urgent_at=moment) for moment in urgent_at]
    await asyncio.gather(*[place.take(str(n), entry) for n, entry in enumerate(entries)])
    assert place.taken == [("0", 0), ("1", 1), ("4", 2), ("3", 3), ("2", 4), ("5", 5)]


async def test_of_several_urgent_entries_the_earliest_is_first():
    """Entries that are urgent already go by since when, whatever the order in which they came."""
    place = Place(1)
    entries = [QueueEntry("waits", urgent_at=moment) for moment in (0, 0.4, 0.2, 0.3)]
    await asyncio.gather(*[place.take(str(n), entry) for n, entry in enumerate(entries)])
    assert place.names == ["0", "2", "3", "1"]


async def test_urgency_only_comes_earlier():
    """An entry becomes urgent at the earliest time that any caller gave it."""
    place = Place(1)
    first, second = QueueEntry("waits", urgent_at=2.5), QueueEntry("waits")
    takes = [place.take(str(n), "waits") for n in range(5)]
    takes += [place.take("first", first), place.take("second", second)]
    running = await running_in(place, takes)
    first.prioritize(3.5)
    second.prioritize(4.5)
    second.prioritize(1.5)
    second.prioritize(3.5)
    await running
    assert place.names == ["0", "1", "second", "first", "2", "3", "4"]


async def test_an_urgent_single_request_passes_no_other_flow():
    """A request that is a flow of its own waits for one turn of each other flow all the same."""
    place = Place(1)
    entries = [QueueEntry() for _ in range(5)]
    running = await running_in(
        place, [place.take(str(n), entry) for n, entry in enumerate(entries)]
    )
    entries[3].prioritize(now())
    await running
    assert place.names == ["0", "1", "2", "3", "4"]


async def test_an_entry_that_does_not_queue_yet_may_be_prioritized():
    """It is urgent as soon as it queues."""
    place = Place(1)
    entry = QueueEntry("waits")
    entry.prioritize(0.0)
    takes = [place.take(name, "waits") for name in ("first", "second")]
    await asyncio.gather(*takes, place.take("urgent", entry))
    assert place.names == ["first", "urgent", "second"]


async def test_a_flow_goes_by_when_its_requests_are_due():
    """Whatever the order in which they came; of two that are due together the first to come."""
    place = Place(1)
    moments = [0, 9, 5, 7, 5, 3]
    await asyncio.gather(
        *[place.take(f"{n}: {due}", QueueEntry("waits", due=due)) for n, due in enumerate(moments)]
    )
    assert place.names == ["0: 0", "5: 3", "2: 5", "4: 5", "3: 7", "1: 9"]


async def test_a_flow_that_joins_goes_before_the_one_served_last():
    """A single request next to flows with full queues gets the next place."""
    place = Place(1)
    running = [asyncio.create_task(place.take("bulk", "bulk")) for _ in range(5)]
    for name in ("first", "second"):
        await asyncio.sleep(1.5)
        running.append(asyncio.create_task(place.take(name)))
    await asyncio.gather(*running)
    assert place.names == ["bulk", "bulk", "first", "bulk", "second", "bulk", "bulk"]


async def test_single_requests_without_end_keep_no_flow_waiting():
    """If more of them come than there are places, a flow that waits has its turns as well."""
    place = Place(1)
    running = [asyncio.create_task(place.take("bulk", "bulk")) for _ in range(5)]
    for _ in range(60):
        running.append(asyncio.create_task(place.take("single")))
        await asyncio.sleep(0.5)
    assert place.names.count("bulk") == 4
    await asyncio.gather(*running)


async def test_entries_that_left_take_no_room():
    """What is kept of a flow grows with those that wait in it, not with those that left it."""
    place = Place(1)
    entries = [QueueEntry("bulk", urgent_at=9.0) for _ in range(1000)]
    running = [asyncio.create_task(place.take("bulk", entry)) for entry in entries]
    await asyncio.sleep(0.5)
    for task in running[2:]:
        task.cancel()
    await asyncio.wait(running[2:])
    flow = place.limiter._queue._flows["bulk"]
    assert flow.size == 1
    assert max(len(flow._by_due), len(flow._by_urgency)) <= 2 * flow.size + 16
    await asyncio.gather(*running[:2])
    assert not place.limiter._queue._flows
    assert place.all_free(1)


async def test_an_entry_that_is_prioritized_again_and_again_takes_no_room():
    """Nor does it cost those that leave the flow anything."""
    queue, entries = FairQueue(), [QueueEntry("waits") for _ in range(100)]
    for entry in entries:
        queue.join(entry)
    for urgent_at in range(1000, 0, -1):
        entries[0].prioritize(urgent_at)
    queue.leave(entries[-1])
    flow = queue._flows["waits"]
    assert len(flow._by_urgency) <= 2 * flow.size + 16
    assert queue.first(0.5) is entries[0]


@pytest.mark.parametrize("is_given", [False, True])
async def test_an_entry_is_cancelled(is_given):
    """It leaves the queue with an error, and its place goes to the next one."""
    limiter, entry = ConcurrencyLimiter(1), QueueEntry()
    await acquire(limiter)
    gone, next_one = (asyncio.create_task(acquire(limiter, each)) for each in (entry, None))
    await asyncio.sleep(0)
    if is_given:
        limiter.release()
    entry.cancel()
    with pytest.raises(QueueEntryCancelledError):
        await gone
    if not is_given:
        limiter.release()
    await next_one
    with pytest.raises(QueueEntryCancelledError):
        await limiter.acquire(entry)
    limiter.release()
    assert limiter.try_acquire()


async def test_an_entry_is_cancelled_before_it_queues():
    """It takes no place, not even one that is given back in the same moment."""
    limiter, entry = ConcurrencyLimiter(1), QueueEntry()
    assert limiter.try_acquire()
    entry.cancel()
    with pytest.raises(QueueEntryCancelledError):
        await limiter.acquire(entry)
    limiter.release()
    assert limiter.try_acquire()
    assert not limiter.try_acquire()
