"""The callback server, and connections without a callback or far too many of them."""

import asyncio
import re
import resource
import socket
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
from support.posted import HEAD, signed
from support.raw_peer import drop_by_drop

from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.cli.callback_server import Address, callback_server
from kie_cover_async.cli.output import INTERRUPTED

KEY = "test-webhook-hmac-key"
# Receives callbacks at the path of `HEAD`, and polls nothing.
LISTEN = ("listen", "--port", "0", "--path", "/callbacks")
ADDRESS = Address("127.0.0.1", 0, "/callbacks")
KEYS = {"KIE_CALLBACK_KEY": KEY, "KIE_API_KEY": ""}


@asynccontextmanager
async def connection(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def all_of(reader):
    """Return what is received until the connection ends, in whatever way."""
    received = b""
    with suppress(ConnectionError):
        while piece := await reader.read(65_536):
            received += piece
    return received


async def answer(port, posted):
    """Return the answer to what is posted on a connection of its own."""
    async with asyncio.timeout(20), connection(port) as (reader, writer):
        [request] = posted.steps()
        writer.write(request)
        return await all_of(reader)


async def port_of(command):
    message = await command.message(" until Ctrl-C.\n")
    return int(message.partition("127.0.0.1:")[2].partition("/")[0])


async def test_idle_connections_do_not_keep_callbacks_out(started):
    """A callback is received while 150 slow connections exceed the limit of descriptors."""
    limit = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (96, 96))"
    async with started(*LISTEN, before=limit, **KEYS) as command:
        port = await port_of(command)
        opening = [asyncio.open_connection("127.0.0.1", port) for _ in range(150)]
        slow = [writer for _, writer in await asyncio.gather(*opening)]
        for writer in slow:
            writer.write(HEAD.encode())
        assert (await answer(port, signed("a-cover"))).startswith(b"HTTP/1.1 200 OK")
        assert (await command.document())["taskId"] == "a-cover"
        command.interrupt()
        ended = await command.end()
        for writer in slow:
            writer.close()
    assert ended.code == INTERRUPTED
    assert "closed 49 idle connections: no more than 48 may be open\n" in ended.err
    assert ended.err.endswith("callbacks: 1 received\n")
    assert ended.err.count("\n") <= 4


async def test_flood_of_refusals_is_few_lines(started):
    """Forged callbacks have one line, and so have requests that are not HTTP."""
    async with started(*LISTEN, **KEYS) as command:
        port = await port_of(command)
        forged = signed("a-cover", key="another")
        for _ in range(100):
            assert b" 401 " in await answer(port, forged)
            async with connection(port) as (reader, writer):
                writer.write(b"POST / HTTP/9\r\n\r\n")
                assert b" 400 " in await reader.read()
        command.interrupt()
        ended = await command.end()
    assert ended.err.count("callback signature does not match") == 1
    assert ended.err.count("Error handling request") == 1
    assert ended.err.endswith("callbacks: 100 signature does not match\n")
    assert ended.err.count("\n") <= 4


@pytest.fixture
async def port(instant_time):
    """Receive callbacks in this process; return the port."""
    inbox = CallbackInbox(KEY)
    async with callback_server(inbox.receive, ADDRESS, is_signed=True) as url:
        yield url.port


BODY_TO_COME = f"{HEAD}Content-Length: 1000\r\n\r\n".encode()

SLOW = {
    "nothing": ([], b""),
    "half a head": ([HEAD.encode()], b""),
    "a head, byte by byte": (drop_by_drop(HEAD.encode() * 9), b""),
    "half a body": ([BODY_TO_COME], b"HTTP/1.1 408 Request Timeout"),
    "a body, byte by byte": ([BODY_TO_COME, *drop_by_drop(b"x" * 999)], b"HTTP/1.1 408 Request"),
    "a body for another path": (
        [BODY_TO_COME.replace(b"/callbacks", b"/")],
        b"HTTP/1.1 404 Not Found",
    ),
}


@pytest.mark.parametrize(("sent", "answered"), SLOW.values(), ids=SLOW)
async def test_slow_connection_is_closed(instant_time, port, sent, answered):
    """A connection without a callback is closed within 30 seconds."""
    async with connection(port) as (reader, writer):

        async def send():
            for step in sent:
                if isinstance(step, bytes):
                    writer.write(step)
                else:
                    await asyncio.sleep(step)

        sending = asyncio.create_task(send())
        assert (await all_of(reader)).startswith(answered)
        assert instant_time.elapsed <= 30
        sending.cancel()


async def test_connection_is_closed_after_its_answer(port):
    """The answer says so."""
    async with connection(port) as (reader, writer):
        [request] = signed("a-cover").steps()
        writer.write(request.replace(b"Connection: close\r\n", b""))
        assert b"\r\nConnection: close\r\n" in await reader.read()


@contextmanager
def no_descriptor_left():
    """No file or socket can be opened in the block."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


async def test_running_out_of_descriptors_is_one_line(port, caplog):
    """The connection is accepted later."""
    with socket.socket() as caller:
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        with no_descriptor_left():
            await loop.sock_connect(caller, ("127.0.0.1", port))
            await asyncio.sleep(29)
            refusal = "no connection can be accepted: Too many open files"
            assert [record.getMessage() for record in caplog.records] == [refusal]
            await asyncio.sleep(2)
        [request] = signed("a-cover").steps()
        await loop.sock_sendall(caller, request)
        assert (await loop.sock_recv(caller, 1000)).startswith(b"HTTP/1.1 200 OK")
    # On a busy machine the clock may have jumped over a second period meanwhile.
    _, later, *_ = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(rf"{refusal} \(and [\d,]+ more in 30 s\)", later)


@pytest.mark.parametrize("steps", range(8))
async def test_connection_that_comes_at_the_end_is_closed(steps):
    """It is made while the server stops."""
    inbox = CallbackInbox(KEY)
    async with callback_server(inbox.receive, ADDRESS, is_signed=True) as url:
        opening = asyncio.create_task(asyncio.open_connection("127.0.0.1", url.port))
        for _ in range(steps):
            await asyncio.sleep(0)
    with suppress(ConnectionError):
        reader, writer = await opening
        async with asyncio.timeout(5):
            assert await all_of(reader) == b""
        writer.close()
