import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupted import AS_IT_WAKES, WHILE_WAITING, InterruptedAt, pending_timers, stall
from virtual_time import VirtualTimeLoop, now

from kie_cover_async import RequestBudget
from kie_cover_async.turns import Ticket, WithdrawnError

pytestmark = pytest.mark.virtual_time


def at(*moments: float):
    return pytest.approx(list(moments), abs=1e-9)


def most_in_window(moments: list[float], seconds: float) -> int:
    """The largest number of moments within any span that is shorter than this."""
    return max(
        (sum(0 <= moment - start < seconds - 1e-9 for moment in moments) for start in moments),
        default=0,
    )


async def leave(budget: RequestBudget, times: int, flow: str | None = None) -> list[float]:
    return await asyncio.gather(*[budget.acquire(flow) for _ in range(times)])


async def asks_at(moment: float, budget: RequestBudget, flow: str | None = None) -> float:
    await asyncio.sleep(moment - now())
    return await budget.acquire(flow)


def in_virtual_time(coroutine):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


async def test_the_first_at_once_and_then_evenly():
    """Twenty-five calls at once leave a tenth of a second apart, the first without a wait."""
    moments = await leave(RequestBudget(10), 25)
    assert moments == at(*[i / 10 for i in range(25)])
    assert now() == moments[-1]


async def test_who_calls_seldom_never_waits():
    """Calls that are further apart than the slots leave when they come."""
    budget = RequestBudget(10)
    for moment in (0, 0.1, 0.25, 0.35, 7):
        assert await asks_at(moment, budget) == moment


async def test_idle_time_gives_no_credit():
    """After a minute of silence calls leave as evenly as at first."""
    budget = RequestBudget(100)
    await asyncio.sleep(60)
    assert await leave(budget, 4) == at(60, 60.01, 60.02, 60.03)


async def test_the_number_is_for_any_time():
    """`per` is any number of seconds: twenty in ten seconds is one every half second."""
    assert await leave(RequestBudget(20, per=10), 4) == at(0, 0.5, 1, 1.5)


async def test_a_short_stall_is_made_up():
    """Slots that a busy loop missed are taken at its end; then all is as if nothing had been."""
    calls = asyncio.create_task(leave(RequestBudget(100), 60))
    await asyncio.sleep(0.205)
    stall(0.08)
    moments = await calls
    even = [i / 100 for i in range(60)]
    assert moments == at(*even[:21], *[0.285] * 8, *even[29:])


async def test_a_long_stall_is_made_up_to_a_tenth():
    """Of a second that was missed a tenth of the number is made up; the rest of it is lost."""
    calls = asyncio.create_task(leave(RequestBudget(100), 300))
    await asyncio.sleep(0.505)
    stall(1)
    moments = await calls
    assert sum(moment == 1.505 for moment in moments) == 11
    assert moments[51 + 11 :] == at(*[1.515 + i / 100 for i in range(300 - 51 - 11)])
    assert most_in_window(moments, 1) == 110


async def test_stalls_without_end():
    """A loop that is busy after every call never lets more than the number and a tenth go."""

    async def leaves_and_is_busy() -> float:
        moment = await budget.acquire()
        stall(busy.pop())
        return moment

    budget = RequestBudget(100)
    busy = [0.0] * 150 + [0.3, 0.0, 0.2, 0.0, 0.3] * 4 + [0.0] * 150
    moments = await asyncio.gather(*[leaves_and_is_busy() for _ in range(320)])
    assert most_in_window(moments, 1) <= 110


async def test_late_between_the_slot_and_the_call():
    """A call that is woken, and gets to leave only after a stall, leaves no room for two."""
    budget = RequestBudget(1, per=1)
    await budget.acquire()
    # At the moment of the slot: the waiter is woken, and before it runs the loop is busy.
    asyncio.get_running_loop().call_at(1, lambda: asyncio.get_running_loop().call_soon(stall, 5))
    assert await leave(budget, 3) == at(6, 7, 8)


async def test_a_small_number_makes_nothing_up():
    """The tenth of a number below ten is none."""
    calls = asyncio.create_task(leave(RequestBudget(9, per=9), 5))
    await asyncio.sleep(0.5)
    stall(5)
    assert await calls == at(0, 5.5, 6.5, 7.5, 8.5)


async def test_ten_thousand_delay_one_by_two_slots_at_most():
    """A single call passes a bulk call's queue, whenever it comes."""
    budget = RequestBudget(10)
    bulk = asyncio.create_task(leave(budget, 10_000, "bulk"))
    for moment in (0.05, 0.5, 1, 3.33, 7):
        assert await asks_at(moment, budget) <= moment + 0.2 + 1e-9
    bulk.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bulk
    assert budget.waiting == 0


async def test_flows_share_evenly():
    """Of two bulk calls and a series of single ones each flow has its turn."""
    budget = RequestBudget(10)
    left: list[str] = []

    async def go(name: str, flow: str | None) -> None:
        await budget.acquire(flow)
        left.append(name)

    flows = [("a", "flow a")] * 4 + [("b", "flow b")] * 4 + [("c", None), ("d", None)]
    await asyncio.gather(*[go(*flow) for flow in flows])
    assert "".join(left) == "aabcdababb"


async def test_turns_within_a_flow_come_in_order():
    """Within one bulk call the first to ask is the first to leave."""
    moments = await leave(RequestBudget(10), 50, "bulk")
    assert moments == sorted(moments)


async def test_a_hold_stops_everybody():
    """Who waits and who comes later wait alike, and leave evenly once it is over: no burst."""
    budget = RequestBudget(100)
    early = asyncio.create_task(leave(budget, 5))
    await asyncio.sleep(0.015)
    budget.hold(3)
    late = asyncio.create_task(asks_at(2, budget))
    assert await early == at(0, 0.01, 3.015, 3.025, 3.035)
    assert await late == pytest.approx(3.045)


async def test_the_longest_hold_counts():
    """A shorter hold neither ends nor lengthens a longer one; a longer one lengthens it."""
    budget = RequestBudget(10)
    budget.hold(5)
    budget.hold(1)
    call = asyncio.create_task(budget.acquire())
    await asyncio.sleep(4)
    budget.hold(0.5)
    budget.hold(4)
    assert await call == 8


async def test_a_hold_in_the_moment_of_a_slot():
    """A call that is woken just when a hold begins stays, and keeps its turn."""
    budget = RequestBudget(10)
    await budget.acquire()
    # After the slot's own timer, and before the task that it wakes.
    asyncio.get_running_loop().call_at(
        0.1, lambda: asyncio.get_running_loop().call_soon(budget.hold, 5)
    )
    assert await leave(budget, 2) == at(5.1, 5.2)


async def test_a_hold_is_over_for_who_comes_later():
    """A hold that ended long ago has no effect."""
    budget = RequestBudget(10)
    budget.hold(1)
    assert await asks_at(5, budget) == 5
    budget.hold(0)
    assert await asks_at(6, budget) == 6


async def test_a_hold_and_a_stall():
    """What a stall missed of a hold is not made up: slots begin where the hold ends."""
    budget = RequestBudget(100)
    budget.hold(1)
    calls = asyncio.create_task(leave(budget, 3))
    await asyncio.sleep(0.5)
    stall(0.515)
    assert await calls == at(1.015, 1.015, 1.02)


async def test_unlimited():
    """An unlimited budget lets everybody go at once, but for a hold, which stops them too."""
    budget = RequestBudget.unlimited()
    assert await leave(budget, 1000) == [0.0] * 1000
    budget.hold(2)
    calls = asyncio.create_task(leave(budget, 1000))
    await asyncio.sleep(1)
    assert (budget.waiting, budget.pressure) == (1000, 1)
    assert await calls == [2.0] * 1000


@pytest.mark.parametrize(("number", "per", "pressure"), [(10, 1, 2.5), (5, 1, 4), (60, 60, 16)])
async def test_pressure(number, per, pressure):
    """Pressure is 1 while nobody waits, and one more for every second that the queue will take."""
    budget = RequestBudget(number, per=per)
    assert budget.pressure == 1
    calls = asyncio.create_task(leave(budget, 16))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (budget.waiting, budget.pressure) == (15, pressure)
    await calls
    assert (budget.waiting, budget.pressure) == (0, 1)


@pytest.mark.parametrize("flow", [None, "bulk"])
@pytest.mark.parametrize(
    ("wait", "moment"), [(0, WHILE_WAITING), (0, AS_IT_WAKES), (1, WHILE_WAITING)]
)
async def test_cancelled_at_every_wait(wait, moment, flow):
    """Wherever a call is cancelled, the next one has its slot, and nothing is left of it."""
    budget = RequestBudget(10)
    await budget.acquire()
    interrupted = InterruptedAt(wait, moment, budget.acquire(flow))
    calls = [interrupted.run(), budget.acquire(flow), budget.acquire(flow)]
    outcome, *others = await asyncio.gather(*calls, return_exceptions=True)
    # There is no second wait, so that one went through.
    assert isinstance(outcome, asyncio.CancelledError) is interrupted.interrupted is (wait == 0)
    assert others == (at(0.1, 0.2) if wait == 0 else at(0.2, 0.3))
    assert (budget.waiting, pending_timers()) == (0, [])


async def test_cancelled_and_woken_at_once():
    """A slot that comes to a task whose cancelling is under way goes to the next one."""
    budget = RequestBudget(10)
    await budget.acquire()
    gone, next_one = (asyncio.create_task(budget.acquire()) for _ in range(2))
    asyncio.get_running_loop().call_at(0.1, gone.cancel)
    await asyncio.wait([gone, next_one])
    assert gone.cancelled()
    assert await next_one == 0.1


async def test_all_are_cancelled():
    """When all who wait are cancelled no slot was taken, and no timer is left."""
    budget = RequestBudget(10)
    await budget.acquire()
    calls = [asyncio.create_task(budget.acquire(flow)) for flow in (None, "a", "a", "b")]
    await asyncio.sleep(0.05)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert (budget.waiting, pending_timers()) == (0, [])
    assert await budget.acquire() == 0.1


async def test_many_are_cancelled():
    """With nine of ten cancelled, at every kind of moment, the others leave without a gap."""
    budget = RequestBudget(100)
    calls = [asyncio.create_task(budget.acquire(f"flow {i % 7}")) for i in range(1000)]
    for i, call in enumerate(calls):
        if i % 10:
            asyncio.get_running_loop().call_at(i % 9 / 100, call.cancel)
    await asyncio.wait(calls)
    moments = sorted(call.result() for call in calls if not call.cancelled())
    assert len(moments) >= 100
    assert all(later - earlier == pytest.approx(0.01) for earlier, later in pairwise(moments))


async def test_who_hurries_has_the_next_slot_of_its_flow():
    """One whose time runs out does not wait until those before it have had their slots."""
    budget, hurried = RequestBudget(10), Ticket("bulk")
    before = [asyncio.create_task(budget.acquire("bulk")) for _ in range(20)]
    late = asyncio.create_task(budget.acquire(hurried))
    asyncio.get_running_loop().call_at(0.25, hurried.hurry)
    assert await late == pytest.approx(0.3)
    assert await asyncio.gather(*before) == at(0, 0.1, 0.2, *[n / 10 for n in range(4, 21)])
    assert pending_timers() == []


async def test_hurry_in_the_moment_of_a_slot():
    """Whoever of two has the slot, the other one has the next, and none is lost."""
    budget, hurried = RequestBudget(10), Ticket("bulk")
    before = [asyncio.create_task(budget.acquire("bulk")) for _ in range(3)]
    late = asyncio.create_task(budget.acquire(hurried))
    asyncio.get_running_loop().call_at(0.1, hurried.hurry)
    moments = await asyncio.gather(*before, late)
    assert sorted(moments) == at(0, 0.1, 0.2, 0.3)
    assert moments[-1] < 0.25


@pytest.mark.parametrize("moment", [0.05, 0.1])
async def test_who_is_withdrawn(moment):
    """A request that nobody needs any more costs no slot, even in the moment it would have it."""
    budget, ticket = RequestBudget(10), Ticket()
    await budget.acquire()
    gone, next_one = (asyncio.create_task(budget.acquire(flow)) for flow in (ticket, None))
    asyncio.get_running_loop().call_at(moment, ticket.withdraw)
    with pytest.raises(WithdrawnError):
        await gone
    assert await next_one == pytest.approx(0.1)
    with pytest.raises(WithdrawnError):
        await budget.acquire(ticket)
    assert (budget.waiting, pending_timers()) == (0, [])


async def test_refusals_in_a_row():
    """Each refusal of a request that left after the last hold counts one more."""
    budget = RequestBudget(10)
    for number in (1, 2, 3):
        assert budget.refused(await budget.acquire()) == number
        budget.hold(10)


async def test_refused_together():
    """Requests that were in flight together and are refused together are one refusal."""
    budget = RequestBudget(10)
    together = await leave(budget, 5)
    numbers = []
    for granted in together:
        numbers.append(budget.refused(granted))
        budget.hold(10)
        await asyncio.sleep(1)
    assert numbers == [1] * 5
    assert budget.refused(await budget.acquire()) == 2


async def test_pauses_shrink_again():
    """A request that is let through takes one refusal back, unless it left before the last hold."""
    budget = RequestBudget(10)
    early = await budget.acquire()
    for _ in range(3):
        budget.refused(await budget.acquire())
        budget.hold(1)
    budget.accepted(early)
    assert budget.refused(early) == 3
    for _ in range(5):
        budget.accepted(await budget.acquire())
    assert budget.refused(await budget.acquire()) == 1


async def test_refused_after_a_hold_by_hand():
    """The first refusal counts even when somebody has held the budget since the request left."""
    budget = RequestBudget(10)
    granted = await budget.acquire()
    budget.hold(5)
    assert budget.refused(granted) == 1


def test_a_second_event_loop():
    """A budget belongs to the loop on which it is first used, and on another one says so."""
    budget = RequestBudget(10)
    in_virtual_time(budget.acquire())
    with pytest.raises(RuntimeError, match=r"RequestBudget\(10, per=1\) belongs to another"):
        in_virtual_time(budget.acquire())

    async def hold() -> None:
        budget.hold(1)

    with pytest.raises(RuntimeError, match="another event loop"):
        in_virtual_time(hold())


def test_made_outside_a_loop():
    """A budget can be made where no loop runs, and be shared by clients that are made later."""
    budget = RequestBudget(10)
    assert in_virtual_time(leave(budget, 2)) == at(0, 0.1)


@pytest.mark.parametrize("number", [0, -1, True, 2.5, "10", None, float("nan"), float("-inf")])
def test_a_number_that_is_none(number):
    """The number is a whole one of at least 1."""
    with pytest.raises((TypeError, ValueError), match="number must be a whole number"):
        RequestBudget(number)


@pytest.mark.parametrize("per", [0, -1, True, "1", None, float("nan"), float("inf")])
def test_a_time_that_is_none(per):
    """`per` is a finite number of seconds above 0."""
    with pytest.raises((TypeError, ValueError), match="per must be a finite number above 0"):
        RequestBudget(10, per=per)


@pytest.mark.parametrize("seconds", [-1, True, "1", None, float("nan"), float("inf")])
async def test_a_hold_that_is_none(seconds):
    """A hold is for a finite number of seconds, and one that is not holds nobody."""
    budget = RequestBudget(10)
    with pytest.raises((TypeError, ValueError), match="seconds must be a finite number"):
        budget.hold(seconds)
    assert await budget.acquire() == 0


def test_repr():
    """A budget shows how it can be made again."""
    assert repr(RequestBudget()) == "RequestBudget(10, per=1)"
    assert repr(RequestBudget(20, per=2.5)) == "RequestBudget(20, per=2.5)"
    assert repr(RequestBudget.unlimited()) == "RequestBudget.unlimited()"
    assert repr(RequestBudget(float("inf"))) == "RequestBudget.unlimited()"


STEPS = st.integers(0, 60).map(lambda step: step / 20)
ASKS = st.tuples(STEPS, st.sampled_from([None, None, "a", "b"]), st.none() | STEPS)
SPANS = st.lists(st.tuples(STEPS, STEPS), max_size=4)


class Crowd:
    """Calls that come, lose patience, are held and are stalled, all by the given plan."""

    def __init__(self, budget: RequestBudget) -> None:
        self.budget = budget
        self.left: list[float] = []
        self.holds: list[tuple[float, float]] = []
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
        moment = await self.budget.acquire(flow)
        assert moment == now()
        self.left.append(moment)

    async def hold(self, moment: float, seconds: float) -> None:
        await asyncio.sleep(moment)
        self.budget.hold(seconds)
        self.holds.append((now(), now() + seconds))

    async def stall(self, moment: float, seconds: float) -> None:
        await asyncio.sleep(moment)
        stall(seconds)


@given(st.integers(1, 40), st.lists(ASKS, min_size=1, max_size=60), SPANS, SPANS)
def test_whatever_comes(number, asks, holds, stalls):
    """In no window more than the number and a tenth leave, none in a hold, and all in the end."""

    async def story() -> None:
        crowd = Crowd(RequestBudget(number))
        await asyncio.gather(
            *[crowd.ask(*ask) for ask in asks],
            *[crowd.hold(*hold) for hold in holds],
            *[crowd.stall(*stalled) for stalled in stalls],
        )
        assert len(crowd.left) >= crowd.patient
        assert most_in_window(crowd.left, 1) <= number + number // 10
        for start, end in crowd.holds:
            assert not any(start < moment < end for moment in crowd.left)
        lost = sum(seconds for _, seconds in [*holds, *stalls])
        assert max(crowd.left, default=0) <= 3 + lost + len(asks) / number + 1e-9
        assert crowd.budget.waiting == 0

    in_virtual_time(story())
