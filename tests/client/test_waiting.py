import asyncio

import pytest

from kie_cover_async import (
    AuthenticationError,
    CoverFailedError,
    CoverState,
    CoverTimeoutError,
    ExponentialSchedule,
    InvalidResponseError,
    RateLimitedError,
    RetryPolicy,
    ServerError,
    TaskNotFoundError,
    TransportError,
)
from kie_cover_async.emulator import CoverScript, Fault

STALL = 0.2

# Each with the number of requests it takes to be felt: aiohttp repeats a GET by itself, once.
FAULTS = {
    "429 in the body": (Fault.rate_limited(), 1, RateLimitedError),
    "429 by status": (Fault.rate_limited(in_body=False), 1, RateLimitedError),
    "429, to wait a second": (
        Fault.rate_limited(in_body=False, retry_after=1),
        1,
        RateLimitedError,
    ),
    "429 in the body, to wait until a date": (
        Fault.rate_limited(retry_after=1, as_date=True),
        1,
        RateLimitedError,
    ),
    "500 in the body": (Fault.server_error(), 1, ServerError),
    "500 by status": (Fault.server_error(in_envelope=False), 1, ServerError),
    "500 and nothing": (Fault.server_error(in_envelope=False, empty=True), 1, ServerError),
    "502 with HTML": (Fault.gateway_page(), 1, ServerError),
    "a reset": (Fault.reset(), 2, TransportError),
    "a reset midway": (Fault.reset(midway=True), 1, TransportError),
    "a stall": (Fault.stall(), 1, TransportError),
    "a stall midway": (Fault.stall(midway=True), 1, TransportError),
    "truncated JSON": (Fault.truncated_json(), 1, InvalidResponseError),
    "a flag that is a list": (Fault.replace("data.successFlag", [1]), 1, InvalidResponseError),
    "a success's images that are a number": (
        Fault.replace("data", {"taskId": "a", "successFlag": 1, "response": {"images": 2}}),
        1,
        InvalidResponseError,
    ),
    "an id that is a number": (Fault.replace("data.taskId", 1), 1, InvalidResponseError),
    "data that is a text": (Fault.replace("data", "ok"), 1, InvalidResponseError),
    "a code that is an object": (Fault.replace("code", {}), 1, InvalidResponseError),
    "a record that is gone": (Fault.replace("data", None), 1, TaskNotFoundError),
}


def now():
    return asyncio.get_running_loop().time()


def fixed(seconds):
    return ExponentialSchedule(initial_delay=seconds, max_delay=seconds, jitter=0)


@pytest.mark.parametrize(("fault", "times", "_"), FAULTS.values(), ids=FAULTS)
async def test_a_wait_survives_each_fault(emulator, connect, fault, times, _):
    """A fault in the middle costs a poll, and the wait returns the cover."""
    client = connect(emulator, request_timeout=STALL)
    task_id = emulator.add_job(CoverScript(statuses=["generating", *[fault] * times, "success"]))
    details = await client.wait_for_cover(task_id, timeout=30)
    assert details.is_success
    met = [request.fault for request in emulator.requests]
    assert met == [None, *[fault] * times, None]


async def test_unreadable_images_do_not_hide_the_state(emulator, connect):
    """The state of a job is read even if its images cannot be."""
    client = connect(emulator)
    places, none = (Fault.replace("data.response", odd) for odd in ({"images": [None, ""]}, []))
    statuses = [("pending", none), ("generating", places), ("success", places), "success"]
    task_id = emulator.add_job(CoverScript(statuses=statuses))
    assert (await client.wait_for_cover(task_id, timeout=30)).is_success
    assert emulator.poll_count(task_id) == 4
    task_id = emulator.add_job(CoverScript(statuses=[("failure", none)]))
    with pytest.raises(CoverFailedError):
        await client.wait_for_cover(task_id, timeout=30)


async def test_a_wait_survives_all_faults_in_a_row(emulator, connect):
    """Neither all faults in a row nor a missing record at first end a wait."""
    client = connect(emulator, request_timeout=STALL)
    faults = [
        fault
        for fault, times, _ in FAULTS.values()
        for _ in range(times)
        if fault.retry_after is None
    ]
    statuses = ["missing", "missing", "pending", *faults, "generating", "success"]
    task_id = emulator.add_job(CoverScript(statuses=statuses))
    details = await client.wait_for_cover(task_id, timeout=60)
    assert details.is_success


@pytest.mark.parametrize(("fault", "_", "error"), FAULTS.values(), ids=FAULTS)
async def test_deadline_holds_under_every_fault(emulator, connect, fault, _, error):
    """Under a permanent fault the wait ends on time, and its error has the fault as its cause."""
    patient = RetryPolicy(initial_delay=5, max_delay=5)
    client = connect(emulator, request_timeout=0.1, retry=patient)
    task_id = emulator.add_job(CoverScript(statuses=["generating"]))
    emulator.fault(fault, rate=1.0, after=1)
    started = now()
    with pytest.raises(CoverTimeoutError) as caught:
        await client.wait_for_cover(task_id, timeout=0.3)
    assert 0.3 <= now() - started < 0.3 + 0.25
    assert caught.value.task_id == task_id
    assert caught.value.details.state is CoverState.GENERATING
    assert isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize("fault", [Fault.stall(), Fault.stall(midway=True), Fault.slow(3)])
async def test_the_deadline_cuts_a_request_short(emulator, client, fault):
    """A request with time left is cancelled at the wait's deadline."""
    task_id = emulator.add_job()
    emulator.fault(fault, rate=1.0)
    started = now()
    with pytest.raises(CoverTimeoutError) as caught:
        await client.wait_for_cover(task_id, timeout=0.2)
    assert 0.2 <= now() - started < 0.2 + 0.25
    assert (caught.value.polls, caught.value.details) == (0, None)


async def test_refused_key_ends_a_wait_immediately(emulator, client):
    """An error that no retry can fix is raised after the poll that returned it."""
    refusal = Fault.answer(200, {"code": 401, "msg": "Unauthorized"})
    task_id = emulator.add_job(CoverScript(statuses=["generating", refusal]))
    with pytest.raises(AuthenticationError) as caught:
        await client.wait_for_cover(task_id)
    assert caught.value.task_id == task_id
    assert emulator.poll_count(task_id) == 2


async def test_a_failed_job_ends_the_wait_within_one_interval(emulator, client):
    """The wait ends at the next poll, not at its deadline."""
    task_id = emulator.add_job(CoverScript(seconds=0.3, end="failure"))
    started = now()
    with pytest.raises(CoverFailedError, match="Cover generation failed") as caught:
        await client.wait_for_cover(task_id, schedule=fixed(0.2))
    assert caught.value.details.state is CoverState.GENERATE_COVER_FAILED
    assert 0.3 <= now() - started < 0.3 + 0.2 + 0.25


async def test_a_timeout_of_zero_is_one_poll(emulator, client):
    """With a timeout of 0 the wait ends with the result of its poll."""
    task_id = emulator.add_job(CoverScript(statuses=["generating", "success"]))
    with pytest.raises(CoverTimeoutError) as caught:
        await client.wait_for_cover(task_id, timeout=0)
    assert caught.value.details.state is CoverState.GENERATING
    assert (await client.wait_for_cover(task_id, timeout=0)).is_success
    assert emulator.poll_count(task_id) == 2


async def test_without_a_timeout_a_wait_has_no_deadline(emulator, client):
    """With no timeout the wait continues until the job has ended."""
    task_id = emulator.add_job(CoverScript(seconds=0.2))
    assert (await client.wait_for_cover(task_id, timeout=None)).is_success


@pytest.mark.parametrize("grace", [0, 0.3])
async def test_an_unknown_id_is_an_error_after_the_grace(emulator, client, grace):
    """No record means "not yet" within the grace, and "not found" after it."""
    started = now()
    with pytest.raises(TaskNotFoundError) as caught:
        await client.wait_for_cover("nobody", not_found_grace=grace)
    assert grace <= now() - started < grace + 0.5
    assert caught.value.task_id == "nobody"
    assert (emulator.poll_count("nobody") == 1) == (grace == 0)


async def test_on_update_is_called_after_every_poll(emulator, client):
    """A plain or async `on_update` is called after each poll with details, also the last."""
    script = CoverScript(statuses=["missing", "pending", "500", "generating", "success"])
    plain, asynchronous = [], []

    async def note(details):
        await asyncio.sleep(0)
        asynchronous.append(details.state.value)

    await client.wait_for_cover(
        emulator.add_job(script), on_update=lambda details: plain.append(details.state.value)
    )
    await client.wait_for_cover(emulator.add_job(script), on_update=note)
    assert plain == asynchronous == ["PENDING", "GENERATING", "SUCCESS"]


async def test_ten_waits_cost_the_polls_of_one(emulator, client):
    """Waits for one id share polls, whatever their deadlines and schedules."""
    statuses = ["missing", *["generating"] * 6, "success"]
    task_id = emulator.add_job(CoverScript(statuses=statuses))
    waits = [
        client.wait_for_cover(task_id, timeout=10 + n, schedule=fixed(0.1 + n / 20))
        for n in range(10)
    ]
    assert all(details.is_success for details in await asyncio.gather(*waits))
    assert emulator.poll_count(task_id) == len(statuses)


async def test_each_wait_keeps_its_own_deadline(emulator, client):
    """Waits that share polls end at their own deadlines with their own errors."""
    task_id = emulator.add_job(CoverScript(end="never"))
    started, waited = now(), []

    async def wait(timeout):
        with pytest.raises(CoverTimeoutError) as caught:
            await client.wait_for_cover(task_id, timeout=timeout, schedule=fixed(0.1))
        waited.append(now() - started - timeout)
        return caught.value

    errors = await asyncio.gather(*[wait(0.3 + n / 20) for n in range(10)])
    assert all(0 <= late < 0.25 for late in waited)
    assert len(set(errors)) == 10
    # Alone, the longest would poll about nine times; each polls again before its deadline.
    assert emulator.poll_count(task_id) <= 9 + 10


@pytest.mark.parametrize("in_flight", [True, False], ids=["polling", "resting"])
async def test_cancelling_some_waits_does_not_affect_the_others(emulate, connect, in_flight):
    """Even the wait that sent the request in flight may be cancelled."""
    emulator = await emulate(latency=0.1)
    client = connect(emulator, schedule=fixed(0.3))
    task_id = emulator.add_job(CoverScript(statuses=["generating", "generating", "success"]))
    waits = [asyncio.create_task(client.wait_for_cover(task_id)) for _ in range(10)]
    await asyncio.sleep(0.05 if in_flight else 0.25)
    for wait in waits[:5]:
        wait.cancel()
    outcomes = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:5]] == [asyncio.CancelledError] * 5
    assert all(details.is_success for details in outcomes[5:])
    assert emulator.poll_count(task_id) == 3


async def test_an_error_of_on_update_ends_its_own_wait(emulator, client):
    """The error is raised from that wait; others for the same id continue."""
    task_id = emulator.add_job(CoverScript(statuses=["generating", "generating", "success"]))

    def fail(_):
        raise TimeoutError("not ours")

    others = asyncio.gather(*[client.wait_for_cover(task_id) for _ in range(3)])
    with pytest.raises(TimeoutError, match="not ours"):
        await client.wait_for_cover(task_id, on_update=fail)
    assert all(details.is_success for details in await others)


async def test_a_single_poll_joins_the_one_in_flight(emulate, connect):
    """Calls for the same id at the same time are answered by one request, each error by its own."""
    emulator = await emulate(latency=0.1)
    client = connect(emulator)
    task_id = emulator.add_job(CoverScript(statuses=["generating"]))
    calls = [client.get_cover_details(task_id) for _ in range(5)]
    assert len({id(details) for details in await asyncio.gather(*calls)}) == 1
    assert emulator.poll_count(task_id) == 1
    lost = [client.get_cover_details("nobody") for _ in range(5)]
    errors = await asyncio.gather(*lost, return_exceptions=True)
    assert [type(error) for error in errors] == [TaskNotFoundError] * 5
    assert len(set(errors)) == 5
    assert emulator.poll_count("nobody") == 1
