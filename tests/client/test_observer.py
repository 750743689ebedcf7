import asyncio
import logging

import pytest

from kie_cover_async import (
    CoverState,
    RateLimitedError,
    RateLimiter,
    ServerError,
    TaskNotFoundError,
)
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.events import (
    CoverPolled,
    RequestFinished,
    RequestsPaused,
    RetryScheduled,
    StateChanged,
)


def of_kind(kind, events):
    return [event for event in events if isinstance(event, kind)]


async def test_every_request_is_told_of(emulator, connect):
    """An observer hears what was asked, how long it took, and what came of it."""
    events = []
    client = connect(emulator, observer=events.append)
    emulator.fault(Fault.slow(0.1), endpoint="credit")
    await client.get_credits()
    with pytest.raises(TaskNotFoundError) as caught:
        await client.get_cover_details("nobody")
    credit, record = events
    assert (credit.endpoint, credit.task_id, credit.error) == ("credit", None, None)
    assert (record.endpoint, record.task_id) == ("record-info", "nobody")
    assert type(record.error) is type(caught.value)
    assert 0.1 <= credit.duration < 1
    assert 0 <= credit.queue_time < 0.1


async def test_time_in_the_queue_is_told_apart(emulator, connect):
    """Seconds before a request was sent are not counted as the server's."""
    events = []
    client = connect(emulator, observer=events.append, rate_limiter=RateLimiter(1, per=0.2))
    await asyncio.gather(client.get_credits(), client.get_credits())
    assert events[1].queue_time > 0.15
    assert events[1].duration < events[1].queue_time


async def test_repetitions_and_pauses_are_told_of(emulator, connect):
    """An observer hears of every pause, with the error that it is for."""
    events = []
    client = connect(emulator, observer=events.append)
    emulator.fault(Fault.server_error())
    emulator.fault(Fault.rate_limited(in_body=False, retry_after=0.1))
    await client.get_credits()
    [held] = of_kind(RequestsPaused, events)
    assert isinstance(held.error, RateLimitedError)
    assert 0.1 <= held.seconds <= 0.1 + 0.02
    plans = of_kind(RetryScheduled, events)
    assert [(plan.attempt, type(plan.error)) for plan in plans] == [
        (1, ServerError),
        (2, RateLimitedError),
    ]
    assert 0 <= plans[0].delay <= 0.02
    assert [type(done.error) for done in of_kind(RequestFinished, events)] == [
        ServerError,
        RateLimitedError,
        type(None),
    ]


async def test_every_poll_of_a_wait_is_told_of(emulator, connect):
    """An observer hears of polls by wait, and of a shared one once for each that heard it."""
    events = []
    client = connect(emulator, observer=events.append)
    task_id = emulator.add_job(CoverScript(statuses=["missing", "generating", "success"]), age=80)
    await asyncio.gather(client.wait_for_cover(task_id), client.wait_for_cover(task_id))
    polled = of_kind(CoverPolled, events)
    waits = {event.wait for event in polled}
    assert len(waits) == 2
    for wait in waits:
        first, second, third = [event for event in polled if event.wait is wait]
        assert isinstance(first.error, TaskNotFoundError)
        assert first.details is second.error is third.error is None
        assert second.details.state is CoverState.GENERATING
        assert third.details.is_success
        assert first.age < 10
        assert 79 <= second.age < 90
    assert len(of_kind(RequestFinished, events)) == 3


async def test_every_change_of_state_is_told_of(emulator, connect):
    """An observer hears when a wait sees another state than before, right after the poll."""
    events = []
    client = connect(emulator, observer=events.append)
    statuses = ["missing", "pending", "pending", "500", "pending", "generating", "success"]
    await client.wait_for_cover(emulator.add_job(CoverScript(statuses=statuses)))
    changes = of_kind(StateChanged, events)
    assert [(change.previous_state, change.details.state) for change in changes] == [
        (None, CoverState.PENDING),
        (CoverState.PENDING, CoverState.GENERATING),
        (CoverState.GENERATING, CoverState.SUCCESS),
    ]
    for change in changes:
        poll = events[events.index(change) - 1]
        assert (poll.details, poll.wait, poll.age) == (change.details, change.wait, change.age)


async def test_a_request_that_was_cancelled_is_not_told_of_as_done(emulator, connect):
    """A request that ended without an answer or an error of its own is no success."""
    events = []
    client = connect(emulator, observer=events.append)
    emulator.fault(Fault.stall())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.get_credits()
    assert len(emulator.requests) == 1
    assert events == []


async def test_an_observer_that_fails_costs_nothing(emulator, connect, caplog):
    """What an observer raises is logged, and the cover comes all the same."""

    def fail(event):
        raise ValueError("the observer's own mistake")

    client = connect(emulator, observer=fail)
    task_id = emulator.add_job(CoverScript(statuses=["500", "429", "success"]))
    assert (await client.wait_for_cover(task_id)).is_success
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert {record.args[0] for record in failures} == {
        "RequestFinished",
        "RequestsPaused",
        "CoverPolled",
        "StateChanged",
    }


async def test_answers_shorten_the_next_hold(emulator, connect):
    """Pauses that grew with refusals shrink with every answer, an error of the API's included."""
    events = []
    client = connect(emulator, observer=events.append)
    for fault in (Fault.rate_limited(), Fault.rate_limited()):
        emulator.fault(fault)
    await client.get_credits()
    for _ in range(2):
        with pytest.raises(TaskNotFoundError):
            await client.get_cover_details("nobody")
    emulator.fault(Fault.rate_limited())
    await client.get_credits()
    first, second, third = [event.seconds for event in of_kind(RequestsPaused, events)]
    assert 0.02 <= first <= 0.04 <= second <= 0.06
    assert 0.02 <= third <= 0.04
