import asyncio

import pytest

from kie_cover_async import (
    ApiError,
    AuthenticationError,
    CoverState,
    InvalidRequestError,
    InvalidResponseError,
    RateLimitedError,
    RetryPolicy,
    ServerError,
    TaskNotFoundError,
    TransportError,
    __version__,
)
from kie_cover_async.emulator import CoverScript, Fault

MIB = 1 << 20

ODD_IDS = ["a/b?c&d=é%", "../../x?y#z%00", "%2e%2e/..", "#+;:@", "日本", "'\"\\<>"]

PASSING = {
    "429 in the body": (Fault.rate_limited(), RateLimitedError),
    "429 by status": (Fault.rate_limited(in_body=False), RateLimitedError),
    "430": (Fault.rate_limited(code=430), RateLimitedError),
    "500 in the body": (Fault.server_error(), ServerError),
    "500 by status": (Fault.server_error(in_envelope=False), ServerError),
    "500 and nothing": (Fault.server_error(in_envelope=False, empty=True), ServerError),
    "502 with HTML": (Fault.gateway_page(), ServerError),
    "a reset": (Fault.reset(), TransportError),
    "a reset midway": (Fault.reset(midway=True), TransportError),
    "truncated JSON": (Fault.truncated_json(), InvalidResponseError),
    "a wrong type": (Fault.replace("data.successFlag", [1]), InvalidResponseError),
}


async def test_a_poll_returns_the_record(emulator, client):
    """One poll returns the details as the API has them."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]), music_task_id="song")
    details = await client.get_cover_details(task_id)
    assert (details.task_id, details.parent_task_id) == (task_id, "song")
    assert details.state is CoverState.SUCCESS
    assert [image.startswith(emulator.image_url) for image in details.images] == [True, True]


async def test_polling_a_failed_job_does_not_raise(emulator, client):
    """A single poll of a failed job returns its record."""
    details = await client.get_cover_details(emulator.add_job(CoverScript(statuses=["failure"])))
    assert details.state is CoverState.GENERATE_COVER_FAILED
    assert details.error_message == "Cover generation failed"


async def test_an_unknown_id_is_not_found_immediately(emulator, client):
    """A single poll has no grace, and its error names the id."""
    with pytest.raises(TaskNotFoundError) as caught:
        await client.get_cover_details("nobody")
    assert caught.value.task_id == "nobody"
    assert caught.value.request_id.endswith("-FRA")
    assert emulator.poll_count("nobody") == 1


async def test_refused_key_is_not_retried(emulate, connect):
    """An error that no retry can fix is raised after one request, by every method."""
    emulator = await emulate(api_key="another")
    client = connect(emulator)
    for call in (
        client.get_credits(),
        client.get_cover_details("id"),
        client.get_download_url("http://host/image.png"),
        client.generate_cover("song", callback_url="http://host"),
    ):
        with pytest.raises(AuthenticationError):
            await call
    assert len(emulator.requests) == 4


async def test_credits_have_decimals(emulator, client):
    """The balance is the API's number."""
    assert await client.get_credits() == emulator.credits == 5916.25


async def test_a_download_link_is_only_for_the_vendors_images(emulator, client):
    """The API refuses a link for any other image."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    image = (await client.get_cover_details(task_id)).images[0]
    assert (await client.get_download_url(image)).startswith(f"{image}?expires=")
    with pytest.raises(InvalidRequestError, match="url is wrong"):
        await client.get_download_url("https://elsewhere.example/image.png")


async def test_every_request_has_key_and_user_agent(emulator, client):
    """Each method sends the key, the content type and our user agent, no cookie."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    details = await client.get_cover_details(task_id)
    await client.get_download_url(details.images[0])
    await client.get_credits()
    await client.generate_cover("song", callback_url="http://host")
    assert len(emulator.requests) == 4
    for request in emulator.requests:
        assert request.headers["Authorization"] == "Bearer sk-0f1e2d3c4b5a6978"
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["User-Agent"] == f"kie-cover-async/{__version__}"
        assert "Cookie" not in request.headers


async def test_the_user_agent_can_be_set(emulator, connect):
    """Some hosts refuse unusual user agents, so it can be chosen."""
    await connect(emulator, user_agent="Mozilla/5.0").get_credits()
    assert emulator.requests[0].headers["User-Agent"] == "Mozilla/5.0"


async def test_reads_share_one_connection(emulator, client):
    """Consecutive calls of any kind use the same connection."""
    task_id = emulator.add_job()
    for _ in range(3):
        await client.get_cover_details(task_id)
        await client.get_credits()
    assert len(emulator.requests) == 6
    assert len({request.connection for request in emulator.requests}) == 1


@pytest.mark.parametrize("task_id", ODD_IDS)
async def test_an_id_reaches_the_server_unchanged(emulator, client, task_id):
    """Whatever characters an id has, the server gets the same ones in one parameter."""
    emulator.add_job(CoverScript(statuses=["success"]), task_id=task_id)
    assert (await client.get_cover_details(task_id)).task_id == task_id
    assert dict(emulator.requests[0].query) == {"taskId": task_id}


async def test_the_record_of_another_id_is_rejected(emulator, connect):
    """A record with another id is an unreadable answer."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    emulator.fault(Fault.replace("data.taskId", "another"))
    with pytest.raises(InvalidResponseError, match="another"):
        await connect(emulator, retry=RetryPolicy(max_attempts=1)).get_cover_details(task_id)


@pytest.mark.parametrize(("fault", "error"), PASSING.values(), ids=PASSING)
async def test_a_transient_fault_is_retried(emulator, client, fault, error):
    """A read continues after a transient fault and returns its value."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    emulator.fault(fault, count=2)
    assert (await client.get_cover_details(task_id)).is_success
    assert [request.fault for request in emulator.requests][:2] == [fault, fault]


@pytest.mark.parametrize(("fault", "error"), PASSING.values(), ids=PASSING)
async def test_a_permanent_fault_ends_the_attempts(emulator, client, fault, error):
    """After the policy's four attempts the fault is raised as its error."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    emulator.fault(fault, rate=1.0)
    with pytest.raises(error) as caught:
        await client.get_cover_details(task_id)
    assert caught.value.transient
    assert caught.value.retryable
    assert not caught.value.maybe_accepted
    # aiohttp repeats a GET by itself where a connection broke before the first byte.
    assert emulator.poll_count(task_id) == (8 if fault == Fault.reset() else 4)


@pytest.mark.parametrize("midway", [False, True])
async def test_a_stall_ends_with_the_request_timeout(emulator, connect, midway):
    """The timeout includes the body, and each attempt has its own."""
    client = connect(
        emulator, request_timeout=0.2, retry=RetryPolicy(max_attempts=2, initial_delay=0.01)
    )
    emulator.fault(Fault.stall(midway=midway), rate=1.0)
    started = asyncio.get_running_loop().time()
    with pytest.raises(TransportError, match=r"no answer within 0\.2 s"):
        await client.get_credits()
    assert 0.4 <= asyncio.get_running_loop().time() - started < 1
    assert len(emulator.requests) == 2


async def test_a_retry_after_that_is_too_long_is_not_waited_for(emulator, client):
    """If the server asks for more than two minutes, a single call raises immediately."""
    emulator.fault(Fault.rate_limited(in_body=False, retry_after=600))
    with pytest.raises(RateLimitedError) as caught:
        await client.get_credits()
    assert caught.value.retry_after == 600
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("as_date", [False, True])
async def test_a_retry_after_pauses_every_call(emulator, client, as_date):
    """No request is sent for that time, which is seconds or a date."""
    emulator.fault(Fault.rate_limited(in_body=False, retry_after=1, as_date=as_date))
    await asyncio.gather(client.get_credits(), _later(client.get_credits()))
    refused, *others = [request.received for request in emulator.requests]
    assert len(others) == 2
    assert all(received - refused >= 1 for received in others)


async def _later(call):
    await asyncio.sleep(0.1)
    return await call


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_refused(emulator, emulate, client, status):
    """No redirect is followed, so the key is not sent to its target."""
    elsewhere = await emulate()
    headers = {"Location": f"{elsewhere.url}/api/v1/chat/credit"}
    emulator.fault(Fault.answer(status, b"", headers), count=2)
    with pytest.raises(ApiError, match="redirect") as caught:
        await client.get_credits()
    assert (caught.value.code, caught.value.http_status) == (status, status)
    with pytest.raises(ApiError, match="redirect"):
        await client.generate_cover("song", callback_url="http://host")
    assert len(emulator.requests) == 2
    assert elsewhere.requests == []


async def test_an_answer_is_cut_off_at_one_mebibyte(emulator, connect):
    """A body of the maximum size is read; one byte more is an unreadable answer."""
    client = connect(emulator, retry=RetryPolicy(max_attempts=1))
    wrapping = len(b'{"code":200,"data":1.5,"msg":""}')
    fits = b'{"code":200,"data":1.5,"msg":"%s"}' % (b"x" * (MIB - wrapping))
    emulator.fault(Fault.answer(200, fits))
    assert await client.get_credits() == 1.5
    emulator.fault(Fault.answer(200, fits.replace(b"x", b"xx", 1)))
    with pytest.raises(InvalidResponseError):
        await client.get_credits()
