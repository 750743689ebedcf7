import asyncio
import logging

import pytest

from kie_cover_async import (
    AuthenticationError,
    ClientClosedError,
    CoverDetails,
    CoverFailedError,
    CoverState,
    CoverTimeoutError,
    InvalidTaskIdError,
    RateLimitedError,
    RateLimiter,
    ServerError,
    TaskNotFoundError,
    TransportError,
)
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.events import (
    CoverPolled,
    RequestFinished,
    RequestsPaused,
    RetryScheduled,
    StateChanged,
    WaitFinished,
    WaitStarted,
)

CALLBACK = "https://example.com/covers"


def of_kind(kind, events):
    return [event for event in events if isinstance(event, kind)]


async def test_every_request_is_an_event(emulator, connect):
    """Its event has the request, its duration and its result."""
    events = []
    client = connect(emulator, observer=events.append)
    emulator.fault(Fault.slow(0.1), endpoint="credit")
    await client.get_credits()
    with pytest.raises(TaskNotFoundError) as caught:
        await client.get_cover_details("nobody")
    credit, record = events
    assert (credit.endpoint, credit.task_id, credit.error) == ("credit", None, None)
    assert (record.endpoint, record.task_id) == ("record-info", "nobody")
    for event in (credit, record):
        assert (event.method, event.http_status, event.attempt) == ("GET", 200, 1)
    assert type(record.error) is type(caught.value)
    assert 0.1 <= credit.duration < 1
    assert 0 <= credit.queue_time < 0.1


async def test_a_submit_is_a_post(emulator, connect):
    """The event of a submit has its method, and no task id, since it has no task yet."""
    events = []
    client = connect(emulator, observer=events.append)
    await client.generate_cover("song", callback_url=CALLBACK)
    [submit] = events
    assert (submit.endpoint, submit.method, submit.task_id) == ("generate", "POST", None)
    assert (submit.http_status, submit.attempt) == (200, 1)


ATTEMPTS = {
    "get_credits": lambda client, task_id: client.get_credits(),
    "get_cover_details": lambda client, task_id: client.get_cover_details(task_id),
    "generate_cover": lambda client, task_id: client.generate_cover("song", callback_url=CALLBACK),
}


@pytest.mark.parametrize("call", ATTEMPTS.values(), ids=ATTEMPTS)
async def test_attempts_are_counted(emulator, connect, call):
    """Each request of one call has its number, and the HTTP status of its own answer."""
    events = []
    client = connect(emulator, observer=events.append)
    emulator.fault(Fault.rate_limited(in_body=False))
    emulator.fault(Fault.rate_limited())
    await call(client, emulator.add_job())
    requests = of_kind(RequestFinished, events)
    assert [(request.attempt, request.http_status) for request in requests] == [
        (1, 429),
        (2, 200),
        (3, 200),
    ]


async def test_a_request_without_an_answer_has_no_status(emulator, connect):
    """If no answer came, the event has the error, and no HTTP status."""
    events = []
    client = connect(emulator, observer=events.append, request_timeout=0.1)
    emulator.fault(Fault.stall())
    await client.get_credits()
    first, second = of_kind(RequestFinished, events)
    assert (first.attempt, first.http_status, type(first.error)) == (1, None, TransportError)
    assert (second.attempt, second.http_status, second.error) == (2, 200, None)


async def test_polls_of_a_wait_are_first_attempts(emulator, connect):
    """A wait does not repeat a call: each of its polls is one of its own."""
    events = []
    client = connect(emulator, observer=events.append)
    await client.wait_for_cover(emulator.add_job(CoverScript(statuses=["500", "500", "success"])))
    assert [event.attempt for event in of_kind(RequestFinished, events)] == [1, 1, 1]


async def test_pauses_are_of_polls_or_of_submits(emulator, connect):
    """A refusal of a submit pauses submits, one of anything else pauses polls."""
    events = []
    client = connect(emulator, observer=events.append)
    emulator.fault(Fault.rate_limited(), endpoint="credit")
    await client.get_credits()
    emulator.fault(Fault.rate_limited(), endpoint="generate")
    await client.generate_cover("song", callback_url=CALLBACK)
    assert [event.kind for event in of_kind(RequestsPaused, events)] == ["polls", "submits"]


async def test_time_in_the_queue_is_separate(emulator, connect):
    """Seconds before a request was sent are not counted as the server's."""
    events = []
    client = connect(emulator, observer=events.append, rate_limiter=RateLimiter(1, per=0.2))
    await asyncio.gather(client.get_credits(), client.get_credits())
    assert events[1].queue_time > 0.15
    assert events[1].duration < events[1].queue_time


async def test_repetitions_and_pauses_are_events(emulator, connect):
    """Each repetition and each pause is an event, with its error."""
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


async def test_every_poll_of_a_wait_is_an_event(emulator, connect):
    """A poll is an event of each wait that has its outcome, a shared one of several."""
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


async def test_every_change_of_state_is_an_event(emulator, connect):
    """A state other than before is an event, right after that of the poll."""
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


async def returned(client, wait):
    """Leave the wait alone."""


async def cancelled(client, wait):
    wait.cancel()


async def closed(client, wait):
    await client.aclose()


def fail(details):
    raise ZeroDivisionError


def cancel(details):
    raise asyncio.CancelledError


async def note_later(event):
    """Do nothing: nothing awaits an async observer."""


OUTCOMES = {
    "a cover": (["generating", "success"], returned, {}, CoverDetails),
    "a failed job": (["generating", "failure"], returned, {}, CoverFailedError),
    "a lasting error": (
        ["generating", Fault.replace("code", 401)],
        returned,
        {},
        AuthenticationError,
    ),
    "no record": (["missing"], returned, {"not_found_grace": 0}, TaskNotFoundError),
    "the timeout": (["generating"] * 99, returned, {"timeout": 0.1}, CoverTimeoutError),
    "one poll": (["generating"], returned, {"timeout": 0}, CoverTimeoutError),
    "closing": (["generating"] * 99, closed, {}, ClientClosedError),
    "a cancellation": (["generating"] * 99, cancelled, {}, asyncio.CancelledError),
    "an error of on_update": (["generating"], returned, {"on_update": fail}, ZeroDivisionError),
    "a cancellation in on_update": (
        ["generating"],
        returned,
        {"on_update": cancel},
        asyncio.CancelledError,
    ),
}


@pytest.mark.parametrize("case", OUTCOMES.values(), ids=OUTCOMES)
async def test_a_wait_starts_and_finishes(emulator, connect, eventually, case):
    """The first and the last event of a wait say that it began, and what it returned or raised."""
    statuses, disturb, options, kind = case
    events = []
    client = connect(emulator, observer=events.append)
    task_id = emulator.add_job(CoverScript(statuses=statuses))
    wait = asyncio.create_task(client.wait_for_cover(task_id, **options))
    await eventually(lambda: of_kind(CoverPolled, events))
    await disturb(client, wait)
    [outcome] = await asyncio.gather(wait, return_exceptions=True)
    assert isinstance(outcome, kind)
    first, last = events[0], events[-1]
    assert first == WaitStarted(task_id=task_id, wait=last.wait)
    assert isinstance(last, WaitFinished)
    assert (last.task_id, last.polls) == (task_id, len(of_kind(CoverPolled, events)))
    assert last.outcome is outcome or isinstance(outcome, asyncio.CancelledError)
    assert isinstance(last.outcome, kind)
    assert {event.wait for event in of_kind(CoverPolled, events)} == {last.wait}
    assert len(of_kind(WaitStarted, events)) == len(of_kind(WaitFinished, events)) == 1


async def test_waits_of_every_call_start_and_finish(emulator, connect):
    """Those of a bulk call and of `generate_and_wait` do, each as an object of its own."""
    events = []
    client = connect(emulator, observer=events.append)
    jobs = [emulator.add_job("success") for _ in range(3)]
    async with client.wait_for_covers([*jobs, jobs[0]]) as outcomes:
        assert [outcome.ok async for outcome in outcomes] == [True] * 4
    details = await client.generate_and_wait("song", callback_url=CALLBACK)
    started, finished = of_kind(WaitStarted, events), of_kind(WaitFinished, events)
    assert sorted(event.task_id for event in started) == sorted([*jobs, jobs[0], details.task_id])
    assert {event.wait for event in started} == {event.wait for event in finished}
    assert len({event.wait for event in started}) == 5


async def test_a_wait_that_cannot_begin_is_not_an_event(emulator, connect):
    """An invalid id or a closed client raises without a wait's events."""
    events = []
    client = connect(emulator, observer=events.append)
    with pytest.raises(InvalidTaskIdError):
        await client.wait_for_cover("no id")
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await client.wait_for_cover("task")
    assert events == []


async def test_every_observer_gets_every_event(emulator, connect, caplog):
    """The order is the same for all, even if one of them fails."""

    def fail(event):
        raise ValueError("the observer's own mistake")

    one, other = [], []
    client = connect(emulator, observer=[one.append, fail, other.append])
    await client.wait_for_cover(emulator.add_job("generating, success"))
    assert one == other
    assert {type(event) for event in one} == {
        WaitStarted,
        RequestFinished,
        CoverPolled,
        StateChanged,
        WaitFinished,
    }
    assert caplog.text.count("an observer failed on") == len(one)


async def test_an_async_observer_among_several_is_refused(emulator, connect):
    """Nothing would await it: the error names the argument and the observer."""

    with pytest.raises(TypeError, match=r"observer must be a plain function.*note_later"):
        connect(emulator, observer=[print, note_later])


async def test_a_cancelled_request_is_not_an_event(emulator, connect):
    """A request that was cancelled has neither an answer nor an error to report."""
    events = []
    client = connect(emulator, observer=events.append)
    emulator.fault(Fault.stall())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.get_credits()
    assert len(emulator.requests) == 1
    assert events == []


async def test_a_failing_observer_does_not_lose_the_cover(emulator, connect, caplog):
    """The observer's error is logged, and the cover is returned."""

    def fail(event):
        raise ValueError("the observer's own mistake")

    client = connect(emulator, observer=fail)
    task_id = emulator.add_job(CoverScript(statuses=["500", "429", "success"]))
    assert (await client.wait_for_cover(task_id)).is_success
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert {record.args[0] for record in failures} == {
        "RequestFinished",
        "RequestsPaused",
        "WaitStarted",
        "CoverPolled",
        "StateChanged",
        "WaitFinished",
    }


async def test_answers_shorten_the_next_pause(emulator, connect):
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
