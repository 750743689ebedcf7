import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupted import AS_IT_WAKES, WHILE_WAITING, InterruptedAt, pending_timers, stall
from virtual_time import VirtualTimeLoop, now

from kie_cover_async import RateLimiter
from kie_cover_async.fair_queue import QueueEntry, QueueEntryCancelledError

pytestmark = pytest.mark.virtual_time


def at(*moments: float):
    return pytest.approx(list(moments), abs=1e-9)


def most_in_window(moments: list[float], seconds: float) -> int:
    """The largest number of moments within any span that is shorter than this."""
    return max(
        (sum(0 <= moment - start < seconds - 1e-9 for moment in moments) for start in moments),
        default=0,
    )


async def leave(rate_limiter: RateLimiter, times: int, flow: str | None = None) -> list[float]:
    return await asyncio.gather(*[rate_limiter.acquire(flow) for _ in range(times)])


async def asks_at(moment: float, rate_limiter: RateLimiter, flow: str | None = None) -> float:
    await asyncio.sleep(moment - now())
    return await rate_limiter.acquire(flow)


def in_virtual_time(coroutine):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


async def test_the_first_at_once_and_then_evenly():
    """Twenty-five calls at once leave a tenth of a second apart, the first without a wait."""
    moments = await leave(RateLimiter(10), 25)
    assert moments == at(*[i / 10 for i in range(25)])
    assert now() == moments[-1]


async def test_who_calls_seldom_never_waits():
    """Calls that are further apart than the slots leave when they come."""
    rate_limiter = RateLimiter(10)
    for moment in (0, 0.1, 0.25, 0.35, 7):
        assert await asks_at(moment, rate_limiter) == moment


async def test_idle_time_gives_no_credit():
    """After a minute of silence calls leave as evenly as at first."""
    rate_limiter = RateLimiter(100)
    await asyncio.sleep(60)
    assert await leave(rate_limiter, 4) == at(60, 60.01, 60.02, 60.03)


async def test_the_number_is_for_any_time():
    """`per` is any number of seconds: twenty in ten seconds is one every half second."""
    assert await leave(RateLimiter(20, per=10), 4) == at(0, 0.5, 1, 1.5)


async def test_a_short_stall_is_made_up():
    """Slots that a busy loop missed are taken at its end; then all is as if nothing had been."""
    calls = asyncio.create_task(leave(RateLimiter(100), 60))
    await asyncio.sleep(0.205)
    stall(0.08)
    moments = await calls
    even = [i / 100 for i in range(60)]
    assert moments == at(*even[:21], *[0.285] * 8, *even[29:])


async def test_a_long_stall_is_made_up_to_a_tenth():
    """Of a second that was missed a tenth of the number is made up; the rest of it is lost."""
    calls = asyncio.create_task(leave(RateLimiter(100), 300))
    await asyncio.sleep(0.505)
    stall(1)
    moments = await calls
    assert sum(moment == 1.505 for moment in moments) == 11
    assert moments[51 + 11 :] == at(*[1.515 + i / 100 for i in range(300 - 51 - 11)])
    assert most_in_window(moments, 1) == 110


async def test_stalls_without_end():
    """A loop that is busy after every call never lets more than the number and a tenth go."""

    async def leaves_and_is_busy() -> float:
        moment = await rate_limiter.acquire()
        stall(busy.pop())
        return moment

    rate_limiter = RateLimiter(100)
    busy = [0.0] * 150 + [0.3, 0.0, 0.2, 0.0, 0.3] * 4 + [0.0] * 150
    moments = await asyncio.gather(*[leaves_and_is_busy() for _ in range(320)])
    assert most_in_window(moments, 1) <= 110


async def test_late_between_the_slot_and_the_call():
    """A call that is woken, and gets to leave only after a stall, leaves no room for two."""
    rate_limiter = RateLimiter(1, per=1)
    await rate_limiter.acquire()
    # At the moment of the slot: the waiter is woken, and before it runs the loop is busy.
    asyncio.get_running_loop().call_at(1, lambda: asyncio.get_running_loop().call_soon(stall, 5))
    assert await leave(rate_limiter, 3) == at(6, 7, 8)


async def test_a_small_number_makes_nothing_up():
    """The tenth of a number below ten is none."""
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
    """Of two bulk calls and a series of single ones each flow has its turn."""
    rate_limiter = RateLimiter(10)
    left: list[str] = []

    async def go(name: str, flow: str | None) -> None:
        await rate_limiter.acquire(flow)
        left.append(name)

    flows = [("a", "flow a")] * 4 + [("b", "flow b")] * 4 + [("c", None), ("d", None)]
    await asyncio.gather(*[go(*flow) for flow in flows])
    assert "".join(left) == "aabcdababb"


async def test_turns_within_a_flow_come_in_order():
    """Within one bulk call the first to ask is the first to leave."""
    moments = await leave(RateLimiter(10), 50, "bulk")
    assert moments == sorted(moments)


async def test_a_hold_stops_everybody():
    """Who waits and who comes later wait alike, and leave evenly once it is over: no burst."""
    rate_limiter = RateLimiter(100)
    early = asyncio.create_task(leave(rate_limiter, 5))
    await asyncio.sleep(0.015)
    rate_limiter.pause(3)
    late = asyncio.create_task(asks_at(2, rate_limiter))
    assert await early == at(0, 0.01, 3.015, 3.025, 3.035)
    assert await late == pytest.approx(3.045)


async def test_the_longest_hold_counts():
    """A shorter pause neither ends nor lengthens a longer one; a longer one lengthens it."""
    rate_limiter = RateLimiter(10)
    rate_limiter.pause(5)
    rate_limiter.pause(1)
    call = asyncio.create_task(rate_limiter.acquire())
    await asyncio.sleep(4)
    rate_limiter.pause(0.5)
    rate_limiter.pause(4)
    assert await call == 8


async def test_a_hold_in_the_moment_of_a_slot():
    """A call that is woken just when a pause begins stays, and keeps its turn."""
    rate_limiter = RateLimiter(10)
    await rate_limiter.acquire()
    # After the slot's own timer, and before the task that it wakes.
    asyncio.get_running_loop().call_at(
        0.1, lambda: asyncio.get_running_loop().call_soon(rate_limiter.pause, 5)
    )
    assert await leave(rate_limiter, 2) == at(5.1, 5.2)


async def test_a_hold_is_over_for_who_comes_later():
    """A pause that ended long ago has no effect."""
    rate_limiter = RateLimiter(10)
    rate_limiter.pause(1)
    assert await asks_at(5, rate_limiter) == 5
    rate_limiter.pause(0)
    assert await asks_at(6, rate_limiter) == 6


async def test_a_hold_and_a_stall():
    """What a stall missed of a pause is not made up: slots begin where the pause ends."""
    rate_limiter = RateLimiter(100)
    rate_limiter.pause(1)
    calls = asyncio.create_task(leave(rate_limiter, 3))
    await asyncio.sleep(0.5)
    stall(0.515)
    assert await calls == at(1.015, 1.015, 1.02)


async def test_unlimited():
    """An unlimited rate limiter lets everybody go at once, but for a pause, which stops them
    too.
    """
    rate_limiter = RateLimiter.unlimited()
    assert await leave(rate_limiter, 1000) == [0.0] * 1000
    rate_limiter.pause(2)
    calls = asyncio.create_task(leave(rate_limiter, 1000))
    await asyncio.sleep(1)
    assert (rate_limiter.queued, rate_limiter.pressure) == (1000, 1)
    assert await calls == [2.0] * 1000


@pytest.mark.parametrize(("number", "per", "pressure"), [(10, 1, 2.5), (5, 1, 4), (60, 60, 16)])
async def test_pressure(number, per, pressure):
    """Pressure is 1 while nobody waits, and one more for every second that the queue will take."""
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
async def test_cancelled_at_every_wait(wait, moment, flow):
    """Wherever a call is cancelled, the next one has its slot, and nothing is left of it."""
    rate_limiter = RateLimiter(10)
    await rate_limiter.acquire()
    interrupted = InterruptedAt(wait, moment, rate_limiter.acquire(flow))
    calls = [interrupted.run(), rate_limiter.acquire(flow), rate_limiter.acquire(flow)]
    outcome, *others = await asyncio.gather(*calls, return_exceptions=True)
    # There is no second wait, so that one went through.
    assert isinstance(outcome, asyncio.CancelledError) is interrupted.interrupted is (wait == 0)
    assert others == (at(0.1, 0.2) if wait == 0 else at(0.2, 0.3))
    assert (rate_limiter.queued, pending_timers()) == (0, [])


async def test_cancelled_and_woken_at_once():
    """A slot that comes to a task whose cancelling is under way goes to the next one."""
    rate_limiter = RateLimiter(10)
    await rate_limiter.acquire()
    gone, next_one = (asyncio.create_task(rate_limiter.acquire()) for _ in range(2))
    asyncio.get_running_loop().call_at(0.1, gone.cancel)
    await asyncio.wait([gone, next_one])
    assert gone.cancelled()
    assert await next_one == 0.1


async def test_all_are_cancelled():
    """When all who wait are cancelled no slot was taken, and no timer is left."""
    rate_limiter = RateLimiter(10)
    await rate_limiter.acquire()
    calls = [asyncio.create_task(rate_limiter.acquire(flow)) for flow in (None, "a", "a", "b")]
    await asyncio.sleep(0.05)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert (rate_limiter.queued, pending_timers()) == (0, [])
    assert await rate_limiter.acquire() == 0.1


async def test_many_are_cancelled():
    """With nine of ten cancelled, at every kind of moment, the others leave without a gap."""
    rate_limiter = RateLimiter(100)
    calls = [asyncio.create_task(rate_limiter.acquire(f"flow {i % 7}")) for i in range(1000)]
    for i, call in enumerate(calls):
        if i % 10:
            asyncio.get_running_loop().call_at(i % 9 / 100, call.cancel)
    await asyncio.wait(calls)
    moments = sorted(call.result() for call in calls if not call.cancelled())
    assert len(moments) >= 100
    assert all(later - earlier == pytest.approx(0.01) for earlier, later in pairwise(moments))


async def test_who_prioritizes_has_the_next_slot_of_its_flow():
    """One whose time runs out does not wait until those before it have had their slots."""
    rate_limiter, prioritized = RateLimiter(10), QueueEntry("bulk")
    before = [asyncio.create_task(rate_limiter.acquire("bulk")) for _ in range(20)]
    late = asyncio.create_task(rate_limiter.acquire(prioritized))
    asyncio.get_running_loop().call_at(0.25, prioritized.prioritize)
    assert await late == pytest.approx(0.3)
    assert await asyncio.gather(*before) == at(0, 0.1, 0.2, *[n / 10 for n in range(4, 21)])
    assert pending_timers() == []


async def test_prioritize_in_the_moment_of_a_slot():
    """Whoever of two has the slot, the other one has the next, and none is lost."""
    rate_limiter, prioritized = RateLimiter(10), QueueEntry("bulk")
    before = [asyncio.create_task(rate_limiter.acquire("bulk")) for _ in range(3)]
    late = asyncio.create_task(rate_limiter.acquire(prioritized))
    asyncio.get_running_loop().call_at(0.1, prioritized.prioritize)
    moments = await asyncio.gather(*before, late)
    assert sorted(moments) == at(0, 0.1, 0.2, 0.3)
    assert moments[-1] < 0.25


@pytest.mark.parametrize("moment", [0.05, 0.1])
async def test_who_is_cancelled(moment):
    """A request that nobody needs any more costs no slot, even in the moment it would have it."""
    rate_limiter, entry = RateLimiter(10), QueueEntry()
    await rate_limiter.acquire()
    gone, next_one = (asyncio.create_task(rate_limiter.acquire(flow)) for flow in (entry, None))
    asyncio.get_running_loop().call_at(moment, entry.cancel)
    with pytest.raises(QueueEntryCancelledError):
        await gone
    assert await next_one == pytest.approx(0.1)
    with pytest.raises(QueueEntryCancelledError):
        await rate_limiter.acquire(entry)
    assert (rate_limiter.queued, pending_timers()) == (0, [])


async def test_refusals_in_a_row():
    """Each refusal of a request that left after the last pause counts one more."""
    rate_limiter = RateLimiter(10)
    for number in (1, 2, 3):
        assert rate_limiter.refused(await rate_limiter.acquire()) == number
        rate_limiter.pause(10)


async def test_refused_together():
    """Requests that were in flight together and are refused together are one refusal."""
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
    """A request that is let through takes one refusal back, unless it left before the last
    pause.
    """
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


async def test_refused_after_a_hold_by_hand():
    """The first refusal counts even when somebody has paused the rate limiter since the request
    left.
    """
    rate_limiter = RateLimiter(10)
    granted = await rate_limiter.acquire()
    rate_limiter.pause(5)
    assert rate_limiter.refused(granted) == 1


def test_a_second_event_loop():
    """A rate limiter belongs to the loop on which it is first used, and on another one says so."""
    rate_limiter = RateLimiter(10)
    in_virtual_time(rate_limiter.acquire())
    with pytest.raises(RuntimeError, match=r"RateLimiter\(10, per=1\) belongs to another"):
        in_virtual_time(rate_limiter.acquire())

    async def pause() -> None:
        rate_limiter.pause(1)

    with pytest.raises(RuntimeError, match="another event loop"):
        in_virtual_time(pause())


def test_made_outside_a_loop():
    """A rate limiter can be made where no loop runs, and be shared by clients that are made
    later.
    """
    rate_limiter = RateLimiter(10)
    assert in_virtual_time(leave(rate_limiter, 2)) == at(0, 0.1)


@pytest.mark.parametrize("number", [0, -1, True, 2.5, "10", None, float("nan"), float("-inf")])
def test_a_number_that_is_none(number):
    """The number is a whole one of at least 1."""
    with pytest.raises((TypeError, ValueError), match="number must be a whole number"):
        RateLimiter(number)


@pytest.mark.parametrize("per", [0, -1, True, "1", None, float("nan"), float("inf")])
def test_a_time_that_is_none(per):
    """`per` is a finite number of seconds above 0."""
    with pytest.raises((TypeError, ValueError), match="per must be a finite number above 0"):
        RateLimiter(10, per=per)


@pytest.mark.parametrize("seconds", [-1, True, "1", None, float("nan"), float("inf")])
async def test_a_hold_that_is_none(seconds):
    """A pause is for a finite number of seconds, and one that is not pauses nobody."""
    rate_limiter = RateLimiter(10)
    with pytest.raises((TypeError, ValueError), match="seconds must be a finite number"):
        rate_limiter.pause(seconds)
    assert await rate_limiter.acquire() == 0


def test_repr():
    """A rate limiter shows how it can be made again."""
    assert repr(RateLimiter()) == "RateLimiter(10, per=1)"
    assert repr(RateLimiter(20, per=2.5)) == "RateLimiter(20, per=2.5)"
    assert repr(RateLimiter.unlimited()) == "RateLimiter.unlimited()"
    assert repr(RateLimiter(float("inf"))) == "RateLimiter.unlimited()"


STEPS = st.integers(0, 60).map(lambda step: step / 20)
ASKS = st.tuples(STEPS, st.sampled_from([None, None, "a", "b"]), st.none() | STEPS)
SPANS = st.lists(st.tuples(STEPS, STEPS), max_size=4)


class Crowd:
    """Calls that come, lose patience, are paused and are stalled, all by the given plan."""

    def __init__(self, rate_limiter: RateLimiter) -> None:
        self.rate_limiter = rate_limiter
        self.left: list[float] = []
        self.pauses: list[tuple[float, float]] = []
        self.patient = 0

    async def ask(self, moment: float, flow: str | None, patience: float | None) -> None:
        await asyncio.sleep(moment)
        call = asyncio.create_task(self.call(flow))
        if patience is None:
            self.patient += 1
        else:
            asyncio.get_running_loop().call_later(patience, call.cancel)
        await asyncio.wait([call])
        assert patience is not None or not call.cancelled()

    async def call(self, flow: str | None) -> None:
        moment = await self.rate_limiter.acquire(flow)
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
def test_whatever_comes(number, asks, pauses, stalls):
    """In no window more than the number and a tenth leave, none in a pause, and all in the end."""

    async def story() -> None:
        crowd = Crowd(RateLimiter(number))
        await asyncio.gather(
            *[crowd.ask(*ask) for ask in asks],
            *[crowd.pause(*pause) for pause in pauses],
            *[crowd.stall(*stalled) for stalled in stalls],
        )
        assert len(crowd.left) >= crowd.patient
        assert most_in_window(crowd.left, 1) <= number + number // 10
        for start, end in crowd.pauses:
            assert not any(start < moment < end for moment in crowd.left)
        lost = sum(seconds for _, seconds in [*pauses, *stalls])
        assert max(crowd.left, default=0) <= 3 + lost + len(asks) / number + 1e-9
        assert crowd.rate_limiter.queued == 0

    in_virtual_time(story())
