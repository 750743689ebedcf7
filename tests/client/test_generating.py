"""Submits: what is sent, what is repeated, and what may have been paid for."""

import asyncio
import json
import logging
import socket
from functools import partial

import aiohttp
import pytest

from kie_cover_async import (
    AuthenticationError,
    CoverAlreadyExistsError,
    CoverClient,
    InsufficientCreditsError,
    InvalidRequestError,
    InvalidResponseError,
    KieCoverError,
    RateLimitedError,
    RateLimiter,
    RetryPolicy,
    ServerError,
    TransportError,
)
from kie_cover_async.emulator import CoverEmulator, Fault
from kie_cover_async.events import RetryScheduled

CALLBACK = "https://example.com/covers?a=b&c=d"

NOT_TAKEN = {
    "429 in the body": Fault.rate_limited(),
    "429 by status": Fault.rate_limited(in_body=False),
    "429, to wait": Fault.rate_limited(in_body=False, retry_after=0.1),
    "430": Fault.rate_limited(code=430),
}

DOUBTFUL = {
    "a stall": (Fault.stall(), TransportError),
    "a stall midway": (Fault.stall(midway=True), TransportError),
    "a reset": (Fault.reset(), TransportError),
    "a reset midway": (Fault.reset(midway=True), TransportError),
    "408": (Fault.server_error(408), ServerError),
    "500 in the body": (Fault.server_error(), ServerError),
    "500 by status": (Fault.server_error(in_envelope=False), ServerError),
    "500 and nothing": (Fault.server_error(in_envelope=False, empty=True), ServerError),
    "502 with HTML": (Fault.gateway_page(), ServerError),
    "503 with HTML": (Fault.gateway_page(503), ServerError),
    "524 with HTML": (Fault.gateway_page(524), ServerError),
    "truncated JSON": (Fault.truncated_json(), InvalidResponseError),
    "an id that is a number": (Fault.replace("data.taskId", 5), InvalidResponseError),
    "no id": (Fault.remove("data.taskId"), InvalidResponseError),
    "no data": (Fault.replace("data", None), InvalidResponseError),
}

REFUSALS = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    405: RateLimitedError,
    409: CoverAlreadyExistsError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    433: RateLimitedError,
}


@pytest.fixture
def connect(connect):
    """Connect as in other tests, without a rate limit for submits."""
    return partial(connect, submit_rate_limiter=RateLimiter.unlimited())


def submit_requests(emulator):
    return [request for request in emulator.requests if request.endpoint == "generate"]


def spent(emulator):
    """How many jobs the account was charged for."""
    return (5916.25 - emulator.credits) / 0.25


async def test_song_and_callback_are_sent(emulator, client):
    """The song and the callback URL are sent under the API's names."""
    task_id = await client.generate_cover("song", callback_url=CALLBACK)
    assert (await client.get_cover_details(task_id)).parent_task_id == "song"
    assert json.loads(submit_requests(emulator)[0].body) == {
        "taskId": "song",
        "callBackUrl": CALLBACK,
    }


@pytest.mark.parametrize("fault", NOT_TAKEN.values(), ids=NOT_TAKEN)
async def test_a_rate_limited_submit_is_retried(emulator, client, fault):
    """After HTTP 429 the submit is retried, and the cover is paid for once."""
    emulator.fault(fault, count=2)
    await client.generate_cover("song", callback_url=CALLBACK)
    assert [request.fault for request in submit_requests(emulator)] == [fault, fault, None]
    assert spent(emulator) == 1


@pytest.mark.parametrize(("fault", "error"), DOUBTFUL.values(), ids=DOUBTFUL)
async def test_a_submit_that_may_be_accepted_is_not_retried(emulator, connect, fault, error):
    """After one such request the error says that it may be accepted."""
    client = connect(emulator, submit_timeout=0.3)
    emulator.fault(fault, rate=1.0)
    with pytest.raises(error) as caught:
        await client.generate_cover("song", callback_url=CALLBACK)
    assert caught.value.maybe_accepted
    assert "may have been accepted" in str(caught.value)
    assert not caught.value.retryable
    assert len(submit_requests(emulator)) == 1
    assert spent(emulator) == 1


@pytest.mark.parametrize("fault", [Fault.reset(accepted=False), Fault.gateway_page(accepted=False)])
async def test_lost_submit_is_not_repeated(emulator, client, fault):
    """A request that may have been accepted is not repeated, even if it was lost."""
    emulator.fault(fault)
    with pytest.raises(KieCoverError) as caught:
        await client.generate_cover("song", callback_url=CALLBACK)
    assert caught.value.maybe_accepted
    assert len(submit_requests(emulator)) == 1
    assert spent(emulator) == 0


@pytest.mark.parametrize(("code", "error"), REFUSALS.items())
async def test_a_permanent_refusal_is_raised_and_costs_nothing(emulator, client, code, error):
    """A permanent refusal is raised after one request."""
    emulator.fault(Fault.answer(200, {"code": code, "msg": "no", "data": None}), rate=1.0)
    with pytest.raises(error) as caught:
        await client.generate_cover("song", callback_url=CALLBACK)
    assert not caught.value.maybe_accepted
    assert not caught.value.retryable
    assert len(submit_requests(emulator)) == 1


async def test_submit_is_repeated_if_no_connection_was_made():
    """A refused connection accepted nothing: the submit is repeated until a server listens."""
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    failed = asyncio.Event()
    plans = []

    def on_event(event):
        if isinstance(event, RetryScheduled):
            plans.append(event)
            failed.set()

    async with CoverClient(
        "a-key",
        base_url=f"http://127.0.0.1:{port}",
        retry=RetryPolicy(max_attempts=100, initial_delay=0.05, max_delay=0.1),
        rate_limiter=RateLimiter.unlimited(),
        observer=on_event,
    ) as client:
        generating = asyncio.create_task(client.generate_cover("song", callback_url=CALLBACK))
        await failed.wait()
        async with CoverEmulator(port=port) as emulator:
            await generating
            assert len(submit_requests(emulator)) == 1
    assert not plans[0].error.connected
    assert not plans[0].error.maybe_accepted


async def test_refused_connections_end_the_attempts(connect):
    """After the policy's attempts the error says that nothing was accepted."""
    plans = []
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        nobody = CoverEmulator(port=placeholder.getsockname()[1])
    client = connect(
        nobody, retry=RetryPolicy(max_attempts=3, initial_delay=0.01), observer=plans.append
    )
    with pytest.raises(TransportError) as caught:
        await client.generate_cover("song", callback_url=CALLBACK)
    assert not caught.value.connected
    assert not caught.value.maybe_accepted
    assert caught.value.retryable
    assert sum(isinstance(event, RetryScheduled) for event in plans) == 2


class Unreachable(aiohttp.BaseConnector):
    """A network without any answer, not even a refusal."""

    async def _create_connection(self, *_):
        await asyncio.get_running_loop().create_future()


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("timeouts", "seconds"),
    [
        ({}, 10),
        ({"submit_connect_timeout": 0.5}, 0.5),
        ({"submit_timeout": 6}, 5.4),
        ({"submit_timeout": 300, "submit_connect_timeout": 30}, 30),
        ({"request_timeout": 1}, 10),
    ],
)
async def test_a_connection_timeout_means_that_nothing_was_sent(timeouts, seconds):
    """A submit without a connection in time was certainly not accepted."""
    async with aiohttp.ClientSession(connector=Unreachable()) as session:
        client = CoverClient(
            "a-key",
            session=session,
            retry=RetryPolicy(max_attempts=1),
            **timeouts,
        )
        with pytest.raises(TransportError) as caught:
            await client.generate_cover("song", callback_url=CALLBACK)
    assert not caught.value.connected
    assert not caught.value.maybe_accepted
    assert asyncio.get_running_loop().time() == seconds


async def test_a_submit_waits_a_minute_by_default(instant_time, cover_emulator, cover_client):
    """Giving up an answer would lose an id that was paid for."""
    cover_emulator.fault(Fault.slow(59.0))
    task_id = await cover_client.generate_cover("song", callback_url=CALLBACK)
    assert task_id in cover_emulator._service.jobs
    cover_emulator.fault(Fault.stall())
    with pytest.raises(TransportError, match="no answer within 60 s") as caught:
        await cover_client.generate_cover("another", callback_url=CALLBACK)
    assert caught.value.maybe_accepted
    assert instant_time.elapsed == pytest.approx(59 + 60, abs=0.1)


@pytest.mark.parametrize("external", [False, True], ids=["owned", "external"])
async def test_a_submit_has_its_own_connection(emulator, connect, make_session, external):
    """It uses neither the connection of reads nor that of another submit."""
    client = connect(emulator, session=make_session() if external else None)
    for song in ("one", "two"):
        await client.get_credits()
        await client.generate_cover(song, callback_url=CALLBACK)
    await client.get_credits()
    read, first, read_again, second, read_at_last = [r.connection for r in emulator.requests]
    assert read == read_again == read_at_last
    assert len({read, first, second}) == 3
    assert [request.headers["Connection"] for request in submit_requests(emulator)] == [
        "close",
        "close",
    ]


async def test_a_cancelled_submit_is_logged(emulator, client, caplog, eventually):
    """A submit that is cancelled in flight may be paid for: the log has its song."""
    emulator.fault(Fault.stall())
    generating = asyncio.create_task(client.generate_cover("song-17", callback_url=CALLBACK))
    await eventually(lambda: emulator.requests)
    generating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await generating
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "song-17 was sent, and ended by CancelledError" in record.getMessage()
    assert "may have been accepted" in record.getMessage()


async def test_cancelling_an_unsent_submit_is_not_logged(emulator, connect, caplog, eventually):
    """A submit that still queued for its slot, and a poll, are cancelled silently."""
    limiter = RateLimiter.unlimited()
    client = connect(emulator, rate_limiter=limiter, submit_rate_limiter=limiter)
    limiter.pause(60)
    calls = [client.generate_cover("song", callback_url=CALLBACK), client.get_credits()]
    tasks = [asyncio.create_task(call) for call in calls]
    await eventually(lambda: limiter.queued == len(tasks))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)
    assert caplog.records == []
    assert emulator.requests == []


async def test_each_song_is_paid_for_at_most_once_under_faults(emulate, connect):
    """None of fifty concurrent submits, a third of them with faults, is paid for twice."""
    emulator = await emulate(seed=7)
    client = connect(emulator, submit_timeout=2.0)
    for fault in (Fault.reset(), Fault.gateway_page(), Fault.rate_limited(), Fault.stall()):
        emulator.fault(fault, rate=0.1, endpoint="generate")
    asking = [client.generate_cover(f"song-{n}", callback_url=CALLBACK) for n in range(50)]
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, KieCoverError)]
    ids = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(ids) + len(errors) == 50
    assert len(set(ids)) == len(ids) > 0
    assert all(error.maybe_accepted for error in errors)
    assert len(errors) > 0
    assert spent(emulator) == 50
