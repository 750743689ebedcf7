"""Each submit has a connection of its own, which the client closes after the answer."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import TCPConnector
from support.raw_peer import REQUEST, SILENCE, RawPeer

from kie_cover_async import KieCoverError

# Self-signed, for another name than 127.0.0.1; valid until 2126.
CERTIFICATE = Path(__file__).with_name("another.example.pem")
CALLBACK = "https://example.com/covers"
BODY = b'{"code":200,"data":{"taskId":"task"}}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"

KEEP_ALIVE_ANSWERS = {
    "HTTP/1.1 by default": b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + BODY,
    "HTTP/1.1 by header": b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n"
    b"Keep-Alive: timeout=600\r\n" + LENGTH + b"\r\n" + BODY,
    "HTTP/1.0 by header": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
    + LENGTH
    + b"\r\n"
    + BODY,
    "chunked": b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "an error status": b"HTTP/1.1 500 Oops\r\n" + LENGTH + b"\r\n" + BODY,
    "no body": b"HTTP/1.1 204 No Content\r\n\r\n",
}

# Longer than any test: what closes a connection is not the pool's own clock.
KEPT_FOR = 600.0


@pytest.fixture(params=["own", "external"])
def connected(request, connect, make_session):
    """Makes a client of a server, with a session of its own or an external one."""

    def connected(server):
        if request.param == "own":
            return connect(server)
        return connect(
            server, session=make_session(connector=TCPConnector(keepalive_timeout=KEPT_FOR))
        )

    return connected


async def submit(client):
    return await client.generate_cover("song", callback_url=CALLBACK)


@pytest.mark.parametrize("answer", KEEP_ALIVE_ANSWERS.values(), ids=KEEP_ALIVE_ANSWERS)
async def test_the_connection_is_closed_although_the_server_would_keep_it(
    play, connected, eventually, answer
):
    """The server sees the connection end after each answer, and the next submit on a new one."""
    peer = await play([answer, REQUEST, answer, SILENCE])
    client = connected(peer)
    for count in (1, 2, 3):
        with suppress(KieCoverError):
            await submit(client)
        await eventually(lambda: peer.open_connections == 0)
        assert (peer.connections, len(peer.requests)) == (count, count)


async def test_submits_at_the_same_time_share_no_connection(play, connected, eventually):
    """An answer frees its connection for no other submit, whenever that one begins."""
    answer = KEEP_ALIVE_ANSWERS["HTTP/1.1 by default"]
    peer = await play([answer, REQUEST, answer, SILENCE])
    client = connected(peer)

    async def submits():
        return [await submit(client) for _ in range(5)]

    outcomes = await asyncio.gather(*[submits() for _ in range(4)])
    assert outcomes == [["task"] * 5] * 4
    assert peer.connections == 20
    await eventually(lambda: peer.open_connections == 0)


async def test_a_server_that_closes_after_its_answer_costs_no_submit(play, connected):
    """A server that ends connections without having said so receives every submit."""
    peer = await play([KEEP_ALIVE_ANSWERS["HTTP/1.1 by default"]])
    client = connected(peer)
    assert [await submit(client) for _ in range(5)] == ["task"] * 5
    assert len(peer.requests) == 5


async def test_other_requests_keep_their_connection(play, connected, eventually):
    """Reads before and after a submit share one connection, which stays open."""
    read = b'HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{"code":200,"data":1.5}'
    kept = [read, REQUEST, read, SILENCE]
    peer = await play(kept, [KEEP_ALIVE_ANSWERS["HTTP/1.1 by default"], SILENCE])
    client = connected(peer)
    assert await client.get_credits() == 1.5
    assert await submit(client) == "task"
    assert await client.get_credits() == 1.5
    await eventually(lambda: peer.open_connections == 1)
    assert peer.connections == 2


async def test_the_connection_is_closed_over_tls(stack, connect, make_session, eventually):
    """TLS changes nothing: the server sees the connection end after the answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    answer = KEEP_ALIVE_ANSWERS["HTTP/1.1 by default"]
    peer = RawPeer([[REQUEST, answer, REQUEST, answer, SILENCE]], tls=context)
    await stack.enter_async_context(peer)
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    trusting.check_hostname = False
    client = connect(peer, session=make_session(connector=TCPConnector(ssl=trusting)))
    assert [await submit(client) for _ in range(2)] == ["task"] * 2
    assert peer.connections == 2
    await eventually(lambda: peer.open_connections == 0)
