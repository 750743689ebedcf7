"""The limit of concurrent requests, and the fair queue in front of it."""

import asyncio
from math import inf

import pytest
from support.cancellation import AS_IT_WAKES, WHILE_WAITING, CancelledAt
from support.virtual_time import now

from kie_cover_async.fair_queue import FairQueue, QueueEntry, QueueEntryWithdrawnError
from kie_cover_async.rate_limiter import ConcurrencyLimiter

pytestmark = pytest.mark.virtual_time


async def acquire(limiter: ConcurrencyLimiter, entry: QueueEntry | None = None) -> None:
    """Take a request slot as a request does: queue only if none is free."""
    if not limiter.try_acquire():
        await limiter.acquire(entry or QueueEntry())


class CountedLimiter:
    """Takes request slots for a second each, and records which request had one when."""

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
        """Return whether exactly this many slots are free."""
        free = [self.limiter.try_acquire() for _ in range(limit + 1)]
        return free == [True] * limit + [False]


async def test_concurrency_never_exceeds_the_limit():
    """Ten calls with a limit of three run three at a time, in order of arrival."""
    counted = CountedLimiter(3)
    await asyncio.gather(*[counted.take(str(i)) for i in range(10)])
    assert counted.taken == [(str(i), float(i // 3)) for i in range(10)]
    assert counted.busiest == 3
    assert counted.all_free(3)


async def test_no_call_passes_the_queue():
    """A call that arrives as a slot is released does not overtake the queue."""
    counted = CountedLimiter(1)
    running = [asyncio.create_task(counted.take(name)) for name in ("first", "queued")]
    await asyncio.sleep(0.5)
    counted.limiter.release()
    assert not counted.limiter.try_acquire()
    await running[1]
    assert counted.names == ["first", "queued"]
    assert counted.limiter.try_acquire()
    await running[0]


async def test_flows_take_turns():
    """A hundred requests of one bulk call let single calls pass, one for one."""
    counted = CountedLimiter(1)
    bulk = [counted.take(f"bulk {i}", "bulk") for i in range(100)]
    await asyncio.gather(*bulk, counted.take("single"), counted.take("other single"))
    assert counted.names[:5] == ["bulk 0", "bulk 1", "single", "other single", "bulk 2"]
    assert len(counted.taken) == 102


async def test_two_bulk_calls_share_the_slots_evenly():
    """Each of two bulk calls gets every second slot, although one queued first."""
    counted = CountedLimiter(1)
    early = [counted.take("early", "a") for _ in range(20)]
    late = [counted.take("late", "b") for _ in range(20)]
    await asyncio.gather(*early, *late)
    assert counted.names[1:11] == ["early", "late"] * 5


@pytest.mark.parametrize(
    ("wait", "moment", "free_at"),
    [
        (0, WHILE_WAITING, 1),  # in the queue
        (0, AS_IT_WAKES, 1),  # the slot was granted, and not taken yet
        (1, WHILE_WAITING, 1),  # at work, immediately
        (1, AS_IT_WAKES, 2),  # at work, at its end
        (2, WHILE_WAITING, 2),  # not at all: there is no third wait
    ],
)
async def test_a_call_can_be_cancelled_at_each_await(wait, moment, free_at):
    """Cancelling a call, queued or just granted its slot, loses no slot."""
    counted = CountedLimiter(1)
    interrupted = CancelledAt(wait, moment, counted.take("interrupted"))
    calls = [counted.take("first"), interrupted.run(), counted.take("last")]
    _, outcome, _ = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError) is interrupted.interrupted is (wait < 2)
    assert counted.taken[-1] == ("last", free_at)
    assert counted.all_free(1)


async def test_cancelling_all_calls_frees_their_slots():
    """The slot of a call that is cancelled with all the others is free again."""
    counted = CountedLimiter(2)
    tasks = [asyncio.create_task(counted.take(str(i))) for i in range(50)]
    await asyncio.sleep(1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert counted.all_free(2)


async def test_a_slot_granted_to_a_cancelled_task_goes_to_the_next():
    """A slot granted to a task that is being cancelled goes to the next one."""
    limiter = ConcurrencyLimiter(1)
    await acquire(limiter)
    gone, next_one = (asyncio.create_task(acquire(limiter)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    limiter.release()
    await asyncio.wait([gone, next_one])
    assert gone.cancelled()
    assert not next_one.cancelled()


async def running_in(counted: CountedLimiter, takes) -> asyncio.Future:
    """Start all; half a second later the first has the slot, and the others queue."""
    running = asyncio.gather(*takes)
    await asyncio.sleep(0.5)
    return running


async def test_an_urgent_entry_goes_before_others_of_its_flow():
    """Urgent entries go first in their flow, earliest first, but pass no other flow."""
    counted = CountedLimiter(1)
    entries = [QueueEntry("bulk") for _ in range(5)]
    takes = [counted.take(str(n), entry) for n, entry in enumerate(entries)]
    takes += [counted.take("other", "other") for _ in range(2)]
    running = await running_in(counted, takes)
    for n in (4, 3, 4, 0):
        entries[n].make_urgent(now())
    await running
    assert counted.names == ["0", "4", "other", "3", "other", "1", "2"]


async def test_an_entry_becomes_urgent_in_time():
    """An entry becomes urgent at its time without any call."""
    counted = CountedLimiter(1)
    urgent_at = [inf, inf, inf, 2.5, 1.5, 9.0]
    entries = [QueueEntry("waits", urgent_at=moment) for moment in urgent_at]
    await asyncio.gather(*[counted.take(str(n), entry) for n, entry in enumerate(entries)])
    assert counted.taken == [("0", 0), ("1", 1), ("4", 2), ("3", 3), ("2", 4), ("5", 5)]


async def test_of_several_urgent_entries_the_earliest_is_first():
    """Urgent entries go in the order of their times, not of their arrival."""
    counted = CountedLimiter(1)
    entries = [QueueEntry("waits", urgent_at=moment) for moment in (0, 0.4, 0.2, 0.3)]
    await asyncio.gather(*[counted.take(str(n), entry) for n, entry in enumerate(entries)])
    assert counted.names == ["0", "2", "3", "1"]


async def test_urgency_only_comes_earlier():
    """An entry becomes urgent at the earliest time that any caller gave it."""
    counted = CountedLimiter(1)
    first, second = QueueEntry("waits", urgent_at=2.5), QueueEntry("waits")
    takes = [counted.take(str(n), "waits") for n in range(5)]
    takes += [counted.take("first", first), counted.take("second", second)]
    running = await running_in(counted, takes)
    first.make_urgent(3.5)
    second.make_urgent(4.5)
    second.make_urgent(1.5)
    second.make_urgent(3.5)
    await running
    assert counted.names == ["0", "1", "second", "first", "2", "3", "4"]


async def test_an_urgent_single_request_passes_no_other_flow():
    """An urgent single request still waits for one turn of each other flow."""
    counted = CountedLimiter(1)
    entries = [QueueEntry() for _ in range(5)]
    running = await running_in(
        counted, [counted.take(str(n), entry) for n, entry in enumerate(entries)]
    )
    entries[3].make_urgent(now())
    await running
    assert counted.names == ["0", "1", "2", "3", "4"]


async def test_an_entry_may_become_urgent_before_it_queues():
    """An entry that is made urgent before it queues is urgent when it queues."""
    counted = CountedLimiter(1)
    entry = QueueEntry("waits")
    entry.make_urgent(0.0)
    takes = [counted.take(name, "waits") for name in ("first", "second")]
    await asyncio.gather(*takes, counted.take("urgent", entry))
    assert counted.names == ["first", "urgent", "second"]


async def test_a_flow_is_ordered_by_due_time():
    """Requests go in the order in which they are due; ties go by arrival."""
    counted = CountedLimiter(1)
    moments = [0, 9, 5, 7, 5, 3]
    await asyncio.gather(
        *[
            counted.take(f"{n}: {due}", QueueEntry("waits", due=due))
            for n, due in enumerate(moments)
        ]
    )
    assert counted.names == ["0: 0", "5: 3", "2: 5", "4: 5", "3: 7", "1: 9"]


async def test_a_flow_that_joins_goes_before_the_one_served_last():
    """A single request next to flows with full queues gets the next counted."""
    counted = CountedLimiter(1)
    running = [asyncio.create_task(counted.take("bulk", "bulk")) for _ in range(5)]
    for name in ("first", "second"):
        await asyncio.sleep(1.5)
        running.append(asyncio.create_task(counted.take(name)))
    await asyncio.gather(*running)
    assert counted.names == ["bulk", "bulk", "first", "bulk", "second", "bulk", "bulk"]


async def test_endless_single_requests_starve_no_flow():
    """A waiting flow gets its turns even if single requests exceed the slots."""
    counted = CountedLimiter(1)
    running = [asyncio.create_task(counted.take("bulk", "bulk")) for _ in range(5)]
    for _ in range(60):
        running.append(asyncio.create_task(counted.take("single")))
        await asyncio.sleep(0.5)
    assert counted.names.count("bulk") == 4
    await asyncio.gather(*running)


async def test_cancelled_entries_are_not_kept():
    """Memory per flow grows with the waiting entries, not with the cancelled ones."""
    counted = CountedLimiter(1)
    entries = [QueueEntry("bulk", urgent_at=9.0) for _ in range(1000)]
    running = [asyncio.create_task(counted.take("bulk", entry)) for entry in entries]
    await asyncio.sleep(0.5)
    for task in running[2:]:
        task.cancel()
    await asyncio.wait(running[2:])
    flow = counted.limiter._queue._flows["bulk"]
    assert flow.size == 1
    assert max(len(flow._by_due), len(flow._by_urgency)) <= 2 * flow.size + 16
    await asyncio.gather(*running[:2])
    assert not counted.limiter._queue._flows
    assert counted.all_free(1)


async def test_prioritizing_an_entry_repeatedly_costs_no_memory():
    """Nor does it cost those that leave the flow anything."""
    queue, entries = FairQueue(), [QueueEntry("waits") for _ in range(100)]
    for entry in entries:
        queue.join(entry)
    for urgent_at in range(1000, 0, -1):
        entries[0].make_urgent(urgent_at)
    queue.leave(entries[-1])
    flow = queue._flows["waits"]
    assert len(flow._by_urgency) <= 2 * flow.size + 16
    assert queue.first(0.5) is entries[0]


@pytest.mark.parametrize("is_given", [False, True])
async def test_a_cancelled_entry_leaves_the_queue(is_given):
    """A cancelled entry leaves the queue with an error; the next one gets its slot."""
    limiter, entry = ConcurrencyLimiter(1), QueueEntry()
    await acquire(limiter)
    gone, next_one = (asyncio.create_task(acquire(limiter, each)) for each in (entry, None))
    await asyncio.sleep(0)
    if is_given:
        limiter.release()
    entry.withdraw()
    with pytest.raises(QueueEntryWithdrawnError):
        await gone
    if not is_given:
        limiter.release()
    await next_one
    with pytest.raises(QueueEntryWithdrawnError):
        await limiter.acquire(entry)
    limiter.release()
    assert limiter.try_acquire()


async def test_an_entry_withdrawn_before_queueing_takes_no_slot():
    """It takes no slot, not even one that is released at the same moment."""
    limiter, entry = ConcurrencyLimiter(1), QueueEntry()
    assert limiter.try_acquire()
    entry.withdraw()
    with pytest.raises(QueueEntryWithdrawnError):
        await limiter.acquire(entry)
    limiter.release()
    assert limiter.try_acquire()
    assert not limiter.try_acquire()
