"""The rate limiter alone, in virtual time."""

import asyncio
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cancellation import AS_IT_WAKES, WHILE_WAITING, CancelledAt, pending_timers, stall
from support.virtual_time import VirtualTimeLoop, now

from kie_cover_async import RateLimiter
from kie_cover_async.fair_queue import QueueEntry, QueueEntryWithdrawnError
from kie_cover_async.rate_limiter import SlotSource

pytestmark = pytest.mark.virtual_time


def at(*moments: float):
    return pytest.approx(list(moments), abs=1e-9)


def most_in_window(moments: list[float], seconds: float) -> int:
    """The largest number of moments within any span that is shorter than this."""
    ordered = sorted(moments)
    return max(
        (
            bisect_left(ordered, start + seconds - 1e-9) - place
            for place, start in enumerate(ordered)
        ),
        default=0,
    )


def most_in_fixed_window(moments: list[float], seconds: float) -> int:
    """The largest number of moments from one multiple of the seconds to the next."""
    return max(Counter((moment + 1e-9) // seconds for moment in moments).values())


async def acquire(rate_limiter: RateLimiter, flow: str | None = None) -> float:
    """Take a slot as a request does: queue only if none is open."""
    if (granted := rate_limiter.try_acquire()) is None:
        return await rate_limiter.acquire(QueueEntry(flow))
    return granted


async def leave(rate_limiter: RateLimiter, times: int, flow: str | None = None) -> list[float]:
    return await asyncio.gather(*[acquire(rate_limiter, flow) for _ in range(times)])


async def asks_at(moment: float, rate_limiter: RateLimiter) -> float:
    await asyncio.sleep(moment - now())
    return await acquire(rate_limiter)


def in_virtual_time(coroutine):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


async def test_requests_leave_immediately_and_then_evenly():
    """25 concurrent calls are sent a tenth of a second apart, the first without a wait."""
    moments = await leave(RateLimiter(10), 25)
    assert moments == at(*[i / 10 for i in range(25)])
    assert now() == moments[-1]


async def test_rare_calls_never_wait():
    """Calls that are further apart than the slots are sent immediately."""
    rate_limiter = RateLimiter(10)
    for moment in (0, 0.1, 0.25, 0.35, 7):
        assert await asks_at(moment, rate_limiter) == moment


async def test_idle_time_gives_no_credit():
    """After a minute of silence calls leave as evenly as at first."""
    rate_limiter = RateLimiter(100)
    await asyncio.sleep(60)
    assert await leave(rate_limiter, 4) == at(60, 60.01, 60.02, 60.03)


async def test_per_is_any_number_of_seconds():
    """Twenty requests in ten seconds are one every half second."""
    assert await leave(RateLimiter(20, per=10), 4) == at(0, 0.5, 1, 1.5)


async def test_a_short_stall_is_not_made_up():
    """Slots that a busy loop missed are lost: after it, calls leave as evenly as before."""
    calls = asyncio.create_task(leave(RateLimiter(100), 60))
    await asyncio.sleep(0.205)
    stall(0.08)
    assert await calls == at(*[i / 100 for i in range(21)], *[0.285 + i / 100 for i in range(39)])


async def test_a_long_stall_is_not_made_up():
    """However many slots a stall missed, one call leaves at its end."""
    calls = asyncio.create_task(leave(RateLimiter(100), 300))
    await asyncio.sleep(0.505)
    stall(1)
    moments = await calls
    assert moments == at(*[i / 100 for i in range(51)], *[1.505 + i / 100 for i in range(249)])
    assert most_in_window(moments, 1) == 100


async def test_endless_stalls_never_exceed_the_limit():
    """A loop that blocks after every call never lets more than the limit leave."""

    async def leaves_and_is_busy() -> float:
        moment = await acquire(rate_limiter)
        stall(busy.pop())
        return moment

    rate_limiter = RateLimiter(100)
    busy = [0.0] * 150 + [0.3, 0.0, 0.2, 0.0, 0.3] * 4 + [0.0] * 150
    moments = await asyncio.gather(*[leaves_and_is_busy() for _ in range(320)])
    assert most_in_window(moments, 1) == 100
    assert all(later - earlier >= 0.01 - 1e-9 for earlier, later in pairwise(moments))


# Latencies are shares of an interval, stalls are seconds.
LATENCIES = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20)
STALLS = st.lists(st.tuples(st.floats(0, 6), st.floats(0, 3)), max_size=5)


@pytest.mark.parametrize(("number", "per", "ceiling"), [(9, 1.0, 10), (19, 10.0, 20)])
@given(LATENCIES, STALLS)
def test_a_server_sees_one_request_more_than_the_limit_at_most(
    number, per, ceiling, latencies, stalls
):
    """A server receives at most 10 requests in a second, or 20 in ten seconds.

    So it is by a sliding window and by a fixed one, whatever stalls the loop, as long as no request
    is on its way for longer than one interval.
    """

    async def story() -> list[float]:
        for moment, seconds in stalls:
            asyncio.get_running_loop().call_at(moment * per, stall, seconds * per)
        return await leave(RateLimiter(number, per=per), 6 * number)

    left = in_virtual_time(story())
    interval = per / number
    arrived = [moment + interval * latencies[n % len(latencies)] for n, moment in enumerate(left)]
    assert most_in_window(left, per) <= number
    assert most_in_window(arrived, per) <= ceiling
    assert most_in_fixed_window(arrived, per) <= ceiling


async def test_nine_is_the_most_that_ten_a_second_allow():
    """If only the first request is slow, a server receives one more than the limit."""
    for number in (9, 10):
        rate_limiter = RateLimiter(number)
        start = now()
        first, *others = await leave(rate_limiter, 3 * number)
        arrived = [moment - start for moment in (first + 0.99 / number, *others)]
        assert most_in_window(arrived, 1) == number + 1
        await asyncio.sleep(1)


async def test_a_stall_between_slot_and_call_lets_one_request_leave():
    """A call that is woken and then delayed by a stall makes no room for two."""
    rate_limiter = RateLimiter(1, per=1)
    assert rate_limiter.try_acquire() == 0
    # At the moment of the slot: the waiter is woken, and before it runs the loop is busy.
    asyncio.get_running_loop().call_at(1, lambda: asyncio.get_running_loop().call_soon(stall, 5))
    assert await leave(rate_limiter, 3) == at(6, 7, 8)


async def test_a_slow_limiter_does_not_make_up_a_stall():
    """Not even the slot in whose interval the stall began is made up."""
    calls = asyncio.create_task(leave(RateLimiter(9, per=9), 5))
    await asyncio.sleep(0.5)
    stall(5)
    assert await calls == at(0, 5.5, 6.5, 7.5, 8.5)


async def test_ten_thousand_delay_one_by_two_slots_at_most():
    """A single call passes a bulk call's queue, whenever it comes."""
    rate_limiter = RateLimiter(10)
    bulk = asyncio.create_task(leave(rate_limiter, 10_000, "bulk"))
    for moment in (0.05, 0.5, 1, 3.33, 7):
        assert await asks_at(moment, rate_limiter) <= moment + 0.2 + 1e-9
    bulk.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bulk
    assert rate_limiter.queued == 0


async def test_flows_share_evenly():
    """Two bulk calls and a series of single calls take turns."""
    rate_limiter = RateLimiter(10)
    left: list[str] = []

    async def go(name: str, flow: str | None) -> None:
        await acquire(rate_limiter, flow)
        left.append(name)

    flows = [("a", "flow a")] * 4 + [("b", "flow b")] * 4 + [("c", None), ("d", None)]
    await asyncio.gather(*[go(*flow) for flow in flows])
    assert "".join(left) == "aabcdababb"


async def test_a_flow_is_served_in_order():
    """Within one bulk call, requests leave in the order in which they queued."""
    moments = await leave(RateLimiter(10), 50, "bulk")
    assert moments == sorted(moments)


async def test_a_pause_stops_all_requests():
    """Queued and later requests wait, and leave evenly after the pause: no burst."""
    rate_limiter = RateLimiter(100)
    early = asyncio.create_task(leave(rate_limiter, 5))
    await asyncio.sleep(0.015)
    rate_limiter.pause(3)
    late = asyncio.create_task(asks_at(2, rate_limiter))
    assert await early == at(0, 0.01, 3.015, 3.025, 3.035)
    assert await late == pytest.approx(3.045)


async def test_the_longest_pause_counts():
    """A shorter pause neither ends nor lengthens a longer one; a longer one lengthens it."""
    rate_limiter = RateLimiter(10)
    rate_limiter.pause(5)
    rate_limiter.pause(1)
    call = asyncio.create_task(rate_limiter.acquire())
    await asyncio.sleep(4)
    rate_limiter.pause(0.5)
    rate_limiter.pause(4)
    assert await call == 8


async def test_a_call_woken_as_a_pause_begins_keeps_its_turn():
    """A call that is woken just as a pause begins waits and keeps its turn."""
    rate_limiter = RateLimiter(10)
    await rate_limiter.acquire()
    # After the slot's own timer, and before the task that it wakes.
    asyncio.get_running_loop().call_at(
        0.1, lambda: asyncio.get_running_loop().call_soon(rate_limiter.pause, 5)
    )
    assert await leave(rate_limiter, 2) == at(5.1, 5.2)


async def test_a_pause_that_is_over_has_no_effect():
    """A pause that has ended and a pause of no length change nothing."""
    rate_limiter = RateLimiter(10)
    rate_limiter.pause(1)
    assert await asks_at(5, rate_limiter) == 5
    rate_limiter.pause(0)
    assert await asks_at(6, rate_limiter) == 6


async def test_a_stall_after_a_pause_is_not_made_up():
    """Slots that a stall missed after a pause are lost: they begin when it ends."""
    rate_limiter = RateLimiter(100)
    rate_limiter.pause(1)
    calls = asyncio.create_task(leave(rate_limiter, 3))
    await asyncio.sleep(0.5)
    stall(0.515)
    assert await calls == at(1.015, 1.025, 1.035)


async def test_an_unlimited_limiter_only_pauses():
    """An unlimited rate limiter sends all requests immediately, except in a pause."""
    rate_limiter = RateLimiter.unlimited()
    assert await leave(rate_limiter, 1000) == [0.0] * 1000
    rate_limiter.pause(2)
    calls = asyncio.create_task(leave(rate_limiter, 1000))
    await asyncio.sleep(1)
    assert (rate_limiter.queued, rate_limiter.pressure) == (1000, 1)
    assert await calls == [2.0] * 1000


@pytest.mark.parametrize(("number", "per", "pressure"), [(10, 1, 2.5), (5, 1, 4), (60, 60, 16)])
async def test_pressure_grows_with_the_queue(number, per, pressure):
    """Pressure is 1 without a queue, and 1 more per second that the queue will take."""
    rate_limiter = RateLimiter(number, per=per)
    assert rate_limiter.pressure == 1
    calls = asyncio.create_task(leave(rate_limiter, 16))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (rate_limiter.queued, rate_limiter.pressure) == (15, pressure)
    await calls
    assert (rate_limiter.queued, rate_limiter.pressure) == (0, 1)


@pytest.mark.parametrize("flow", [None, "bulk"])
@pytest.mark.parametrize(
    ("wait", "moment"), [(0, WHILE_WAITING), (0, AS_IT_WAKES), (1, WHILE_WAITING)]
)
async def test_a_call_can_be_cancelled_at_each_await(wait, moment, flow):
    """If a call is cancelled at any await, the next one gets its slot."""
    rate_limiter = RateLimiter(10)
    await rate_limiter.acquire()
    interrupted = CancelledAt(wait, moment, acquire(rate_limiter, flow))
    calls = [interrupted.run(), acquire(rate_limiter, flow), acquire(rate_limiter, flow)]
    outcome, *others = await asyncio.gather(*calls, return_exceptions=True)
    # There is no second wait, so that one went through.
    assert isinstance(outcome, asyncio.CancelledError) is interrupted.interrupted is (wait == 0)
    assert others == (at(0.1, 0.2) if wait == 0 else at(0.2, 0.3))
    assert (rate_limiter.queued, pending_timers()) == (0, [])


async def test_a_slot_of_a_cancelled_task_goes_to_the_next():
    """A slot granted to a task that is being cancelled goes to the next one."""
    rate_limiter = RateLimiter(10)
    await rate_limiter.acquire()
    gone, next_one = (asyncio.create_task(rate_limiter.acquire()) for _ in range(2))
    asyncio.get_running_loop().call_at(0.1, gone.cancel)
    await asyncio.wait([gone, next_one])
    assert gone.cancelled()
    assert await next_one == 0.1


async def test_cancelling_all_calls_leaves_no_timer():
    """If all waiting calls are cancelled, no slot is taken and no timer is left."""
    rate_limiter = RateLimiter(10)
    await rate_limiter.acquire()
    calls = [asyncio.create_task(acquire(rate_limiter, flow)) for flow in (None, "a", "a", "b")]
    await asyncio.sleep(0.05)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert (rate_limiter.queued, pending_timers()) == (0, [])
    assert await rate_limiter.acquire() == 0.1


async def test_cancelling_most_calls_leaves_no_gap():
    """If nine of ten calls are cancelled, the others leave without a gap."""
    rate_limiter = RateLimiter(100)
    calls = [asyncio.create_task(acquire(rate_limiter, f"flow {i % 7}")) for i in range(1000)]
    for i, call in enumerate(calls):
        if i % 10:
            asyncio.get_running_loop().call_at(i % 9 / 100, call.cancel)
    await asyncio.wait(calls)
    moments = sorted(call.result() for call in calls if not call.cancelled())
    assert len(moments) >= 100
    assert all(later - earlier == pytest.approx(0.01) for earlier, later in pairwise(moments))


async def test_an_urgent_entry_has_the_next_slot_of_its_flow():
    """An urgent request does not wait for those before it in its flow."""
    rate_limiter, urgent = RateLimiter(10), QueueEntry("bulk")
    before = [asyncio.create_task(acquire(rate_limiter, "bulk")) for _ in range(20)]
    late = asyncio.create_task(rate_limiter.acquire(urgent))
    asyncio.get_running_loop().call_at(0.25, urgent.make_urgent, 0.25)
    assert await late == pytest.approx(0.3)
    assert await asyncio.gather(*before) == at(0, 0.1, 0.2, *[n / 10 for n in range(4, 21)])
    assert pending_timers() == []


async def test_an_entry_becomes_urgent_while_it_queues():
    """From `urgent_at` on, without any call, it goes before others of its flow."""
    rate_limiter, urgent = RateLimiter(10), QueueEntry("bulk", due=9.0, urgent_at=0.25)
    before = [asyncio.create_task(acquire(rate_limiter, "bulk")) for _ in range(20)]
    late = asyncio.create_task(rate_limiter.acquire(urgent))
    assert await late == pytest.approx(0.3)
    assert await asyncio.gather(*before) == at(0, 0.1, 0.2, *[n / 10 for n in range(4, 21)])


@pytest.mark.parametrize("by_itself", [False, True])
async def test_urgency_at_the_moment_of_a_slot_loses_no_slot(by_itself):
    """Whichever request gets the slot, the other one gets the next."""
    rate_limiter, urgent = RateLimiter(10), QueueEntry("bulk", urgent_at=0.1 if by_itself else inf)
    before = [asyncio.create_task(acquire(rate_limiter, "bulk")) for _ in range(3)]
    late = asyncio.create_task(rate_limiter.acquire(urgent))
    asyncio.get_running_loop().call_at(0.1, urgent.make_urgent, 0.1)
    moments = await asyncio.gather(*before, late)
    assert sorted(moments) == at(0, 0.1, 0.2, 0.3)
    assert moments[-1] < 0.25


@pytest.mark.parametrize("moment", [0.05, 0.1])
async def test_a_withdrawn_entry_costs_no_slot(moment):
    """A cancelled request takes no slot, even at the moment of its slot."""
    rate_limiter, entry = RateLimiter(10), QueueEntry()
    await rate_limiter.acquire()
    gone, next_one = (asyncio.create_task(rate_limiter.acquire(each)) for each in (entry, None))
    asyncio.get_running_loop().call_at(moment, entry.withdraw)
    with pytest.raises(QueueEntryWithdrawnError):
        await gone
    assert await next_one == pytest.approx(0.1)
    with pytest.raises(QueueEntryWithdrawnError):
        await rate_limiter.acquire(entry)
    assert (rate_limiter.queued, pending_timers()) == (0, [])


async def test_a_new_call_does_not_overtake_the_queue():
    """At the moment of a slot, it belongs to the call that is queued for it."""
    rate_limiter = RateLimiter(10)
    assert rate_limiter.try_acquire() == 0
    assert rate_limiter.try_acquire() is None
    queued = asyncio.create_task(rate_limiter.acquire())
    tried = []
    asyncio.get_running_loop().call_at(0.1, lambda: tried.append(rate_limiter.try_acquire()))
    assert await queued == pytest.approx(0.1)
    await asyncio.sleep(0.1)
    assert tried == [None]
    assert rate_limiter.try_acquire() == pytest.approx(0.2)


class ScriptedSlots:
    """Slots at times that a test makes known, and what becomes of them."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.known: deque[float] = deque()
        self.taken: list[tuple[float, float]] = []
        self.pauses: list[float] = []
        self._on_change = on_change

    def opens_at(self) -> float:
        return self.known[0] if self.known else inf

    def take(self, now: float) -> bool:
        if is_open := self.opens_at() <= now:
            self.taken.append((self.known.popleft(), now))
        return is_open

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def make_known(self, *moments: float) -> None:
        self.known = deque(moments)
        self._on_change()


class ScriptedLimiter(RateLimiter):
    """A rate limiter with another source of slots."""

    def _make_slots(self) -> SlotSource:
        self.slots = ScriptedSlots(self._arm)
        return self.slots


async def test_each_request_takes_its_slot_at_the_source():
    """Queued or not, each request takes a slot from the source when it leaves."""
    rate_limiter = ScriptedLimiter()
    rate_limiter.slots.make_known(0, 0, 0, 0.5, 0.5, 2)
    assert rate_limiter.try_acquire() == 0
    assert await rate_limiter.acquire() == 0
    moments = await leave(rate_limiter, 4)
    assert moments == [0, 0.5, 0.5, 2]
    expected = [(0, 0), (0, 0), (0, 0), (0.5, 0.5), (0.5, 0.5), (2, 2)]
    assert rate_limiter.slots.taken == expected
    assert rate_limiter.try_acquire() is None
    assert pending_timers() == []


async def test_a_source_may_announce_its_next_slot_later():
    """Until the source does so, no timer runs and no request leaves."""
    rate_limiter = ScriptedLimiter()
    assert rate_limiter.try_acquire() is None
    calls = asyncio.create_task(leave(rate_limiter, 3))
    single = asyncio.create_task(asks_at(2, rate_limiter))
    await asyncio.sleep(5)
    assert (rate_limiter.queued, pending_timers()) == (4, [])
    assert rate_limiter.try_acquire() is None
    rate_limiter.slots.make_known(1, 6)
    await asyncio.sleep(3)
    assert rate_limiter.queued == 2
    rate_limiter.slots.make_known(9, 9.5)
    assert await calls == [5, 6, 9]
    assert await single == 9.5
    assert pending_timers() == []


async def test_a_source_may_move_its_next_slot():
    """A slot may come earlier or later than the source announced."""
    rate_limiter = ScriptedLimiter()
    rate_limiter.slots.make_known(10, 20)
    calls = asyncio.create_task(leave(rate_limiter, 2))
    await asyncio.sleep(1)
    rate_limiter.slots.make_known(2, 3)
    await asyncio.sleep(1.5)
    rate_limiter.slots.make_known(7)
    assert await calls == [2, 7]
    assert rate_limiter.slots.taken == [(2, 2), (7, 7)]


async def test_a_call_queues_again_if_the_source_has_no_slot():
    """A woken call that gets no slot stays first in the queue."""
    rate_limiter = ScriptedLimiter()
    rate_limiter.slots.make_known(1)
    asyncio.get_running_loop().call_at(
        1, lambda: asyncio.get_running_loop().call_soon(rate_limiter.slots.make_known)
    )
    calls = asyncio.create_task(leave(rate_limiter, 2))
    await asyncio.sleep(3)
    assert (rate_limiter.queued, rate_limiter.slots.taken) == (2, [])
    rate_limiter.slots.make_known(3, 4)
    assert await calls == [3, 4]


async def test_a_call_can_be_cancelled_while_the_source_has_no_slot():
    """A call that is cancelled then takes no slot and leaves nothing."""
    rate_limiter = ScriptedLimiter()
    call = asyncio.create_task(rate_limiter.acquire())
    await asyncio.sleep(1)
    call.cancel()
    await asyncio.wait([call])
    rate_limiter.slots.make_known(2)
    await asyncio.sleep(3)
    assert (rate_limiter.queued, rate_limiter.slots.taken, pending_timers()) == (0, [], [])


async def test_a_source_is_notified_of_pauses():
    """The source can share the pause; the limiter pauses whatever the source answers."""
    rate_limiter = ScriptedLimiter()
    rate_limiter.slots.make_known(0, 1)
    rate_limiter.pause(3)
    assert rate_limiter.slots.pauses == [3]
    assert rate_limiter.try_acquire() is None
    assert await leave(rate_limiter, 2) == [3, 3]


async def test_refusals_in_a_row_are_counted():
    """Each refusal of a request that left after the last pause adds one."""
    rate_limiter = RateLimiter(10)
    for number in (1, 2, 3):
        assert rate_limiter.refused(await rate_limiter.acquire()) == number
        rate_limiter.pause(10)


async def test_simultaneous_refusals_count_once():
    """Requests that were in flight together and are refused are one refusal."""
    rate_limiter = RateLimiter(10)
    together = await leave(rate_limiter, 5)
    numbers = []
    for granted in together:
        numbers.append(rate_limiter.refused(granted))
        rate_limiter.pause(10)
        await asyncio.sleep(1)
    assert numbers == [1] * 5
    assert rate_limiter.refused(await rate_limiter.acquire()) == 2


async def test_pauses_shrink_again():
    """An accepted request subtracts a refusal unless it left before the last pause."""
    rate_limiter = RateLimiter(10)
    early = await rate_limiter.acquire()
    for _ in range(3):
        rate_limiter.refused(await rate_limiter.acquire())
        rate_limiter.pause(1)
    rate_limiter.accepted(early)
    assert rate_limiter.refused(early) == 3
    for _ in range(5):
        rate_limiter.accepted(await rate_limiter.acquire())
    assert rate_limiter.refused(await rate_limiter.acquire()) == 1


async def test_a_refusal_counts_after_a_manual_pause():
    """The first refusal counts even if the limiter was paused since the request left."""
    rate_limiter = RateLimiter(10)
    granted = await rate_limiter.acquire()
    rate_limiter.pause(5)
    assert rate_limiter.refused(granted) == 1


def test_a_second_open_event_loop_is_rejected():
    """A rate limiter belongs to the loop that uses it and rejects another one."""
    rate_limiter = RateLimiter(10)

    async def pause() -> None:
        rate_limiter.pause(1)

    async def take() -> float | None:
        return rate_limiter.try_acquire()

    first, second = VirtualTimeLoop(), VirtualTimeLoop()
    try:
        assert first.run_until_complete(rate_limiter.acquire()) == 0
        for use in (rate_limiter.acquire, take, pause):
            with pytest.raises(
                RuntimeError, match=r"RateLimiter\(10, per=1\) is in use on another"
            ):
                second.run_until_complete(use())
        assert first.run_until_complete(rate_limiter.acquire()) == pytest.approx(0.1)
        first.close()
        assert second.run_until_complete(rate_limiter.acquire()) == 0
    finally:
        first.close()
        second.close()


def test_the_next_event_loop_starts_afresh():
    """On the next loop a limiter has new slots, no pause and no refusals."""
    rate_limiter = RateLimiter(10)

    async def is_refused() -> list[float]:
        moments = await leave(rate_limiter, 3)
        assert rate_limiter.refused(moments[-1]) == 1
        rate_limiter.pause(60)
        return moments

    for _ in range(3):
        assert in_virtual_time(is_refused()) == at(0, 0.1, 0.2)


def test_calls_queued_on_a_closed_loop_are_dropped():
    """Calls on the next loop do not queue behind them."""
    rate_limiter = RateLimiter(10)
    loop = VirtualTimeLoop()
    abandoned = [loop.create_task(rate_limiter.acquire(QueueEntry("bulk"))) for _ in range(5)]
    loop.run_until_complete(asyncio.sleep(0.15))
    assert rate_limiter.queued == 3
    loop.close()
    assert in_virtual_time(leave(rate_limiter, 3, "bulk")) == at(0, 0.1, 0.2)
    assert (rate_limiter.queued, rate_limiter.pressure) == (0, 1)
    for task in abandoned:
        task._log_destroy_pending = False


def test_each_event_loop_has_its_own_slot_source():
    """A limiter creates a slot source for each loop that it is used on."""
    rate_limiter = ScriptedLimiter()

    async def take_one() -> ScriptedSlots:
        rate_limiter.pause(0)
        rate_limiter.slots.make_known(0)
        assert await rate_limiter.acquire() == 0
        return rate_limiter.slots

    first, second = in_virtual_time(take_one()), in_virtual_time(take_one())
    assert first is not second
    assert first.taken == second.taken == [(0, 0)]


def test_a_limiter_can_be_made_outside_a_loop():
    """A rate limiter can be made where no loop runs, and be shared by clients that are made
    later.
    """
    rate_limiter = RateLimiter(10)
    assert in_virtual_time(leave(rate_limiter, 2)) == at(0, 0.1)


@pytest.mark.parametrize("number", [0, -1, True, 2.5, "10", None, float("nan"), float("-inf")])
def test_an_invalid_number_of_requests_is_rejected(number):
    """The number is a whole number of at least 1."""
    with pytest.raises((TypeError, ValueError), match="number must be a whole number"):
        RateLimiter(number)


@pytest.mark.parametrize("per", [0, -1, True, "1", None, float("nan"), float("inf")])
def test_an_invalid_period_is_rejected(per):
    """`per` is a finite number of seconds above 0."""
    with pytest.raises((TypeError, ValueError), match="per must be a finite number above 0"):
        RateLimiter(10, per=per)


@pytest.mark.parametrize("seconds", [-1, True, "1", None, float("nan"), float("inf")])
async def test_an_invalid_pause_is_rejected(seconds):
    """An invalid number of seconds raises an error and pauses nothing."""
    rate_limiter = RateLimiter(10)
    with pytest.raises((TypeError, ValueError), match="seconds must be a finite number"):
        rate_limiter.pause(seconds)
    assert await rate_limiter.acquire() == 0


def test_the_interval_is_the_time_between_two_slots():
    """An unlimited limiter has none."""
    assert RateLimiter(20, per=10.0).interval == 0.5
    assert RateLimiter.unlimited().interval == 0


def test_the_repr_recreates_the_limiter():
    """The repr is the expression that makes the same rate limiter."""
    assert repr(RateLimiter()) == "RateLimiter(9, per=1)"
    assert repr(RateLimiter(20, per=2.5)) == "RateLimiter(20, per=2.5)"
    assert repr(RateLimiter.unlimited()) == "RateLimiter.unlimited()"
    assert repr(RateLimiter(float("inf"))) == "RateLimiter.unlimited()"


STEPS = st.integers(0, 60).map(lambda step: step / 20)
ASKS = st.tuples(
    STEPS, st.sampled_from([None, None, "a", "b"]), st.none() | STEPS, st.just(inf) | STEPS
)
SPANS = st.lists(st.tuples(STEPS, STEPS), max_size=4)


class SimulatedCalls:
    """Calls that come, lose patience, are paused and are stalled, all by the given plan."""

    def __init__(self, rate_limiter: RateLimiter) -> None:
        self.rate_limiter = rate_limiter
        self.left: list[float] = []
        self.pauses: list[tuple[float, float]] = []
        self.patient = 0

    async def ask(
        self, moment: float, flow: str | None, patience: float | None, urgent_at: float
    ) -> None:
        await asyncio.sleep(moment)
        call = asyncio.create_task(self.call(QueueEntry(flow, due=moment, urgent_at=urgent_at)))
        if patience is None:
            self.patient += 1
        else:
            asyncio.get_running_loop().call_later(patience, call.cancel)
        await asyncio.wait([call])
        assert patience is not None or not call.cancelled()

    async def call(self, entry: QueueEntry) -> None:
        moment = await self.rate_limiter.acquire(entry)
        assert moment == now()
        self.left.append(moment)

    async def pause(self, moment: float, seconds: float) -> None:
        await asyncio.sleep(moment)
        self.rate_limiter.pause(seconds)
        self.pauses.append((now(), now() + seconds))

    async def stall(self, moment: float, seconds: float) -> None:
        await asyncio.sleep(moment)
        stall(seconds)


@given(st.integers(1, 40), st.lists(ASKS, min_size=1, max_size=60), SPANS, SPANS)
def test_limits_and_pauses_hold_for_any_calls(number, asks, pauses, stalls):
    """No window exceeds the limit, no call leaves in a pause, and all leave in the end."""

    async def story() -> None:
        calls = SimulatedCalls(RateLimiter(number))
        await asyncio.gather(
            *[calls.ask(*ask) for ask in asks],
            *[calls.pause(*pause) for pause in pauses],
            *[calls.stall(*stalled) for stalled in stalls],
        )
        assert len(calls.left) >= calls.patient
        assert most_in_window(calls.left, 1) <= number
        for start, end in calls.pauses:
            assert not any(start < moment < end for moment in calls.left)
        lost = sum(seconds for _, seconds in [*pauses, *stalls])
        assert max(calls.left, default=0) <= 3 + lost + len(asks) / number + 1e-9
        assert calls.rate_limiter.queued == 0

    in_virtual_time(story())
