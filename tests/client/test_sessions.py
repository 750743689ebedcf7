import asyncio
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.raw_peer import SILENCE

from kie_cover_async import (
    ClientClosedError,
    ConnectionSetupError,
    CoverClient,
    RetryPolicy,
    TaskNotFoundError,
)
from kie_cover_async.emulator import CoverScript, Fault

CALLBACK = "https://example.com/covers"


def everything_of(session):
    """What an owner could see change."""
    return (
        list(session.headers.items()),
        [(cookie.key, cookie.value) for cookie in session.cookie_jar],
        session.cookie_jar,
        session.timeout,
        session.connector,
        session.raise_for_status,
        session.auto_decompress,
        session.trust_env,
    )


async def use(client):
    """Every verb once, with a redirect, an error and a broken connection on the way."""
    task_id = await client.generate_cover("song", callback_url=CALLBACK)
    details = await client.wait_for_cover(task_id)
    await client.get_download_url(details.images[0])
    with pytest.raises(TaskNotFoundError):
        await client.get_cover_details("nobody")
    assert await client.get_credits() > 0
    assert details.is_success


async def test_an_external_session_is_left_as_it_was(emulator, connect, make_session):
    """After all verbs and `aclose` the session is open, and nothing about it has changed."""
    session = make_session(
        headers={"X-Mine": "1", "Accept": "text/html"},
        cookies={"mine": "1"},
        timeout=aiohttp.ClientTimeout(total=9),
    )
    before = everything_of(session)
    async with connect(emulator, session=session) as client:
        emulator.fault(Fault.reset(), endpoint="record-info")
        emulator.fault(Fault.gateway_page(), endpoint="credit")
        await use(client)
    assert everything_of(session) == before
    assert not session.closed
    async with session.get(emulator.url) as answer:
        assert answer.status == 404


async def test_an_external_session_adds_its_headers(emulator, connect, make_session):
    """The owner's headers are sent, except where the API needs ours."""
    session = make_session(
        headers={"X-Mine": "1", "Authorization": "Basic mine", "Content-Type": "text/plain"}
    )
    await connect(emulator, session=session).get_credits()
    sent = emulator.requests[0].headers
    assert sent["X-Mine"] == "1"
    assert sent.getall("Authorization") == ["Bearer sk-0f1e2d3c4b5a6978"]
    assert sent.getall("Content-Type") == ["application/json"]


@pytest.fixture
async def cache(emulator, stack):
    """Start a cache in front of the emulator. It repeats old answers unless asked for new ones."""
    session = await stack.enter_async_context(aiohttp.ClientSession())
    answers = {}

    async def fresh(request):
        target = f"{emulator.url}{request.path_qs}"
        async with session.get(target, headers=request.headers) as answer:
            answers[request.path_qs] = await answer.read()
        return answers[request.path_qs]

    async def answer(request):
        is_fresh = "no-cache" in request.headers.get("Cache-Control", "")
        kept = None if is_fresh else answers.get(request.path_qs)
        return web.Response(body=kept or await fresh(request), content_type="application/json")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    server = await stack.enter_async_context(TestServer(app))
    return SimpleNamespace(url=server.make_url("/"))


async def test_a_cache_repeats_no_status(emulator, connect, cache):
    """A wait receives every new status through a cache, and the credits are those of the moment."""
    task_id = emulator.add_job("generating, generating, success")
    client = connect(cache)
    before = await client.get_credits()
    assert (await client.wait_for_cover(task_id, timeout=2)).is_success
    assert emulator.poll_count(task_id) == 3
    await connect(emulator).generate_cover("song", callback_url=CALLBACK)
    assert before > await client.get_credits() == emulator.credits


ODD_HABITS = {
    "raising for a status": {"raise_for_status": True},
    "judging every answer": {"raise_for_status": pytest.fail},
    "a base URL": {"base_url": "http://elsewhere.example/api/"},
    "cookies": {"cookies": {"a": "b"}},
    "a jar for any host": {"cookie_jar_class": aiohttp.CookieJar},
    "no time for anything": {"timeout": aiohttp.ClientTimeout(total=1e-9, sock_read=1e-9)},
    "compressed bodies": {"auto_decompress": False},
    "its own JSON": {"json_serialize": pytest.fail},
    "no headers by itself": {"skip_auto_headers": ["User-Agent", "Content-Type", "Accept"]},
    "HTTP 1.0": {"version": aiohttp.HttpVersion10},
    "an environment to trust": {"trust_env": True},
}


@pytest.mark.parametrize("habits", ODD_HABITS.values(), ids=ODD_HABITS)
async def test_the_settings_of_a_session_do_not_matter(
    emulator, connect, make_session, monkeypatch, habits
):
    """With any session settings, every method works and raises our own errors."""
    monkeypatch.setenv("NETRC", "/dev/null")
    habits = dict(habits)
    if jar := habits.pop("cookie_jar_class", None):
        habits["cookie_jar"] = jar(unsafe=True)
    await use(connect(emulator, session=make_session(**habits)))


@pytest.mark.parametrize("external", [False, True])
async def test_only_a_jar_that_wants_them_keeps_cookies(emulator, connect, make_session, external):
    """The gateway's cookie is of no use: our own session forgets it, an external one does as it
    does.
    """
    session = make_session(cookie_jar=aiohttp.CookieJar(unsafe=True)) if external else None
    client = connect(emulator, session=session)
    await client.get_credits()
    await client.get_credits()
    assert ("Cookie" in emulator.requests[1].headers) == external


async def test_a_session_closed_by_its_owner_is_an_error(emulator, connect, make_session):
    """After the owner has closed the session, every method raises."""
    session = make_session()
    client = connect(emulator, session=session)
    await client.get_credits()
    await session.close()
    for call in (
        client.get_credits(),
        client.get_cover_details("id"),
        client.wait_for_cover("id"),
        client.generate_cover("song", callback_url=CALLBACK),
    ):
        with pytest.raises(ClientClosedError, match="the external session") as caught:
            await call
        assert not caught.value.maybe_accepted
    assert len(emulator.requests) == 1
    await client.aclose()
    with pytest.raises(ClientClosedError, match="the client is closed"):
        await client.get_credits()


async def test_closing_the_session_ends_a_running_wait(emulator, connect, make_session, eventually):
    """The wait ends with its id, before its deadline."""
    session = make_session()
    client = connect(emulator, session=session)
    task_id = emulator.add_job(CoverScript(end="never"))
    waiting = asyncio.create_task(client.wait_for_cover(task_id))
    await eventually(lambda: emulator.poll_count(task_id))
    await session.close()
    with pytest.raises(ClientClosedError, match="the external session") as caught:
        await waiting
    assert caught.value.task_id == task_id


async def test_a_session_with_credentials_is_rejected_immediately(emulator, make_session):
    """A session that sends its own credentials cannot send the key."""
    with pytest.warns(DeprecationWarning, match="auth"):
        session = make_session(auth=aiohttp.BasicAuth("me", "my-password"))
    with pytest.raises(ValueError, match="session must have no auth") as caught:
        CoverClient("a-key", base_url=emulator.url, session=session)
    assert "my-password" not in str(caught.value)


@pytest.fixture
def netrc(monkeypatch, tmp_path):
    """A file of credentials that has some for the API's host."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password my-password\n")
    monkeypatch.setenv("NETRC", str(netrc))


@pytest.mark.usefixtures("netrc")
async def test_credentials_in_a_netrc_file_are_named(emulator, connect, make_session, caplog):
    """Where the environment has credentials for the API's host, the error says where from."""
    client = connect(emulator, session=make_session(trust_env=True))
    for call in (
        client.get_credits(),
        client.wait_for_cover("id"),
        client.generate_cover("song", callback_url=CALLBACK),
    ):
        with pytest.raises(ValueError, match=r"^session .*netrc") as caught:
            await call
        assert "my-password" not in str(caught.value)
    assert emulator.requests == []
    assert caplog.records == []


async def test_a_tracing_error_is_passed_on(emulator, connect, make_session, caplog):
    """It is not mistaken for a credential conflict; a submit may be accepted then."""

    async def fail(session, context, params):
        raise ValueError("no such label")

    tracing = aiohttp.TraceConfig()
    tracing.on_request_end.append(fail)
    client, before = (
        connect(emulator, session=make_session(trace_configs=[tracing])),
        emulator.credits,
    )
    with pytest.raises(ValueError, match=r"^no such label\n"):
        await client.get_credits()
    assert caplog.records == []
    with pytest.raises(ValueError, match=r"^no such label\n"):
        await client.generate_cover("song-17", callback_url=CALLBACK)
    [record] = caplog.records
    assert "generate for song song-17 was sent, and ended by ValueError" in record.getMessage()
    assert "may have been accepted" in record.getMessage()
    assert emulator.credits < before


@pytest.mark.parametrize(
    ("pool", "most"),
    [({"limit": 2}, 2), ({"limit": 0, "limit_per_host": 1}, 1), ({"limit": 0}, 6)],
)
async def test_a_pool_bounds_concurrent_requests(emulate, connect, make_session, pool, most):
    """Requests never exceed the pool's connections, and none times out in the queue."""
    emulator = await emulate(latency=0.15)
    session = make_session(connector=aiohttp.TCPConnector(**pool))
    client = connect(
        emulator, session=session, request_timeout=0.6, retry=RetryPolicy(max_attempts=1)
    )
    await asyncio.gather(*[client.get_credits() for _ in range(6)])
    assert _most_at_once(emulator, 0.15) <= most


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_submits_leave_the_pool_to_polls(emulate, connect, make_session, eventually, limit):
    """Submits that take their time never fill a pool: polls have connections of their own.

    Only a pool of one connection serves both in turn; a poll then queues before its time begins.
    """
    emulator = await emulate()
    emulator.fault(Fault.slow(0.6), endpoint="generate", count=3)
    client = connect(
        emulator,
        session=make_session(connector=aiohttp.TCPConnector(limit=limit)),
        request_timeout=0.3,
        retry=RetryPolicy(max_attempts=1),
    )
    submits = [
        asyncio.create_task(client.generate_cover(f"song-{number}", callback_url=CALLBACK))
        for number in range(3)
    ]
    await eventually(lambda: emulator.requests)
    assert await client.get_credits() > 0
    assert any(not submit.done() for submit in submits) or limit == 1
    assert len(set(await asyncio.gather(*submits))) == 3


@pytest.mark.parametrize("external", [False, True], ids=["own", "external"])
async def test_a_call_that_is_cancelled_in_a_body_leaves_no_connection(
    play, connect, make_session, eventually, external
):
    """The connection whose body was being read is closed, and the next call makes another."""
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n"
    peer = await play([begun, b'{"code"', SILENCE], [begun + b'{"code":200,"data":1.5}', SILENCE])
    session = make_session(connector=aiohttp.TCPConnector(limit=1)) if external else None
    client = connect(peer, session=session)
    call = asyncio.create_task(client.get_credits())
    await eventually(lambda: peer.bytes_sent > len(begun))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: peer.open_connections == 0)
    assert await client.get_credits() == 1.5
    assert peer.connections == 2


async def test_max_concurrent_requests_bounds_concurrency(emulate, connect):
    """Requests never exceed the setting, and none times out in the queue.
    queue.
    """
    emulator = await emulate(latency=0.15)
    client = connect(
        emulator, max_concurrent_requests=2, request_timeout=0.4, retry=RetryPolicy(max_attempts=1)
    )
    await asyncio.gather(*[client.get_credits() for _ in range(6)])
    assert _most_at_once(emulator, 0.15) <= 2


def _most_at_once(emulator, latency):
    arrivals = [request.received for request in emulator.requests]
    return max(
        sum(start <= arrival < start + latency for arrival in arrivals) for start in arrivals
    )


async def test_the_password_of_a_proxy_is_not_shown(make_session):
    """The error shows a refusing proxy's answer, not its URL."""

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    session = make_session(proxy=f"http://somebody:hunter2@127.0.0.1:{port}")
    async with (
        proxy,
        CoverClient("a-key", session=session) as client,
    ):
        with pytest.raises(ConnectionSetupError, match="the proxy answered 407") as caught:
            await client.generate_cover("song", callback_url=CALLBACK)
    assert "hunter2" not in repr(caught.value)
    assert not caught.value.connected
