"""The routes for aiohttp.web, over real sockets."""

import asyncio
import gzip
import json
import logging
import time

import pytest
from aiohttp import ClientSession, web

from kie_cover_async.callbacks import CallbackInbox, SongCallbackUrls, sign_callback
from kie_cover_async.callbacks import web as routes_of_web
from kie_cover_async.callbacks.web import callback_routes

TASK = "21aee3c3c2a01fa5e030b3799fa4dd56"
KEY = "test-webhook-hmac-key"
BODY = json.dumps({"code": 200, "data": {"taskId": TASK, "images": ["https://x.example/1"]}})
CAP = 64 * 1024


class CallbackServer:
    """A service with the routes of an inbox, and a client that posts to it."""

    def __init__(self, inbox, caller):
        self.inbox, self.caller = inbox, caller
        self.notified = []
        inbox.subscribe(TASK, lambda: self.notified.append(TASK))

    async def start(self, song_urls=None, **settings):
        app = web.Application(**settings)
        app.add_routes(self.inbox.routes("/callbacks/a-long-secret", song_urls))
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/callbacks/a-long-secret"

    async def post(self, body, headers=None, method="POST"):
        request = self.caller.request(method, self.url, data=body, headers=headers)
        async with request as answer:
            return answer.status, await answer.text()

    async def send(self, head, body=b""):
        """A connection on which these very bytes were sent."""
        reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = ["POST /callbacks/a-long-secret HTTP/1.1", "Host: x", *head, "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)
        await self.writer.drain()
        return reader

    async def hang_up(self):
        self.writer.close()
        await self.writer.wait_closed()


@pytest.fixture
async def server(request):
    """A parameter of the test is how its application is made."""
    async with ClientSession() as caller:
        server = CallbackServer(CallbackInbox(KEY), caller)
        await server.start(**getattr(request, "param", {}))
        yield server
    await server.runner.cleanup()


async def first_line(reader):
    async with asyncio.timeout(5):
        return await reader.readuntil(b"\r\n")


async def test_a_genuine_callback_is_answered_with_200(server):
    """A genuine callback is answered with 200 and wakes the wait."""
    assert await server.post(BODY, sign_callback(TASK, KEY)) == (200, "OK")
    assert server.notified == [TASK]


async def test_a_repeated_callback_is_answered_with_200(server):
    """A repeated callback is answered with 200, so that it is the last, and wakes nothing."""
    for _ in range(3):
        assert await server.post(BODY, sign_callback(TASK, KEY)) == (200, "OK")
    assert server.notified == [TASK]


@pytest.mark.parametrize("headers", [{}, sign_callback(TASK, "another"), sign_callback("x", KEY)])
async def test_a_forged_callback_is_answered_with_401(server, headers):
    """A wrong signature is answered with 401, without a reason."""
    assert await server.post(BODY, headers) == (401, "Unauthorized")
    assert not server.notified


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[" * 60_000])
async def test_an_unreadable_body_is_answered_with_400(server, body):
    """A body without an id is answered with 400."""
    assert await server.post(body, sign_callback(TASK, KEY)) == (400, "Bad Request")


def padded(size):
    return BODY.ljust(size)


async def in_parts(body, parts=10):
    for start in range(0, len(body), size := len(body) // parts):
        yield body[start : start + size].encode()


async def test_a_body_of_64_kib_is_accepted(server):
    """64 KiB are accepted, whether or not the length is announced."""
    headers = sign_callback(TASK, KEY)
    assert await server.post(padded(CAP), headers) == (200, "OK")
    assert await server.post(in_parts(padded(CAP)), headers) == (200, "OK")


async def test_a_larger_body_is_answered_with_413(server):
    """One byte more is answered with 413, whether or not the length is announced."""
    headers = sign_callback(TASK, KEY)
    assert (await server.post(padded(CAP + 1), headers))[0] == 413
    assert (await server.post(in_parts(padded(CAP + 1)), headers))[0] == 413
    assert not server.notified


async def test_a_compressed_body_is_measured_decompressed(server):
    """A compressed body is decompressed, and its decompressed size counts."""
    packed = {"Content-Encoding": "gzip", **sign_callback(TASK, KEY)}
    assert (await server.post(gzip.compress(BODY.encode()), packed))[0] == 200
    assert (await server.post(gzip.compress(padded(50 * 2**20).encode()), packed))[0] == 413


def body_is_read_by(read, **settings):
    """Return how to make an application in which a middleware reads the body first."""

    @web.middleware
    async def middleware(request, handler):
        await read(request)
        return await handler(request)

    return {"middlewares": [middleware], **settings}


async def several_times(request):
    await request.read()
    await request.json()
    await request.post()


MIDDLEWARES = {
    "read": body_is_read_by(web.Request.read),
    "text": body_is_read_by(web.Request.text),
    "json": body_is_read_by(web.Request.json),
    "post": body_is_read_by(web.Request.post),
    "several times": body_is_read_by(several_times),
}


@pytest.mark.parametrize("server", MIDDLEWARES.values(), ids=MIDDLEWARES, indirect=True)
@pytest.mark.parametrize("media_type", ["application/json", "application/x-www-form-urlencoded"])
async def test_middleware_may_read_the_body_first(server, media_type):
    """A callback whose body a middleware has read is received like any other."""
    headers = {"Content-Type": media_type, **sign_callback(TASK, KEY)}
    assert await server.post(BODY, headers) == (200, "OK")
    assert await server.post(in_parts(BODY), headers) == (200, "OK")
    packed = {"Content-Encoding": "gzip", **headers}
    assert await server.post(gzip.compress(BODY.encode()), packed) == (200, "OK")
    assert await server.post(BODY, {}) == (401, "Unauthorized")
    assert server.notified == [TASK]


UNLIMITED = body_is_read_by(web.Request.read, client_max_size=0)


@pytest.mark.parametrize("server", [UNLIMITED], indirect=True)
async def test_body_read_by_a_middleware_has_the_same_cap(server):
    """A body that a middleware has read may have 64 KiB, and no more."""
    headers = sign_callback(TASK, KEY)
    assert await server.post(padded(CAP), headers) == (200, "OK")
    assert (await server.post(padded(CAP + 1), headers))[0] == 413
    assert (await server.post(in_parts(padded(2 << 20)), headers))[0] == 413


APPS_LIMIT = body_is_read_by(web.Request.read, client_max_size=1000)


@pytest.mark.parametrize("server", [APPS_LIMIT], indirect=True)
async def test_app_may_have_a_lower_cap(server):
    """A body that is too large for the application is rejected with 413 by its middleware."""
    headers = sign_callback(TASK, KEY)
    assert await server.post(BODY, headers) == (200, "OK")
    assert (await server.post(padded(1001), headers))[0] == 413


@pytest.mark.parametrize("server", [MIDDLEWARES["read"]], indirect=True)
async def test_empty_body_read_by_a_middleware(server):
    """An empty body is answered with 400, whether or not a middleware has read it."""
    assert await server.post(b"", sign_callback(TASK, KEY)) == (400, "Bad Request")


BROKEN = {
    "an encoding that it has not": (["Content-Encoding: gzip", "Content-Length: 5"], b"nogzi"),
    "broken chunks": (["Transfer-Encoding: chunked"], b"5\r\nabcdefgh\r\n"),
}


@pytest.mark.parametrize(("head", "body"), BROKEN.values(), ids=BROKEN)
async def test_a_malformed_body_is_answered_with_400(server, head, body):
    """A body that cannot be decoded is answered with 400."""
    assert b" 400 " in await first_line(await server.send(head, body))
    await server.hang_up()


async def test_a_missing_body_is_answered_with_408(server, monkeypatch):
    """A body that is announced and not sent is answered with 408 after a timeout."""
    monkeypatch.setattr(routes_of_web, "_BODY_TIMEOUT", 0.05)
    reader = await server.send(["Content-Length: 9", "Connection: close"], b"{")
    assert b" 408 " in await first_line(reader)
    # aiohttp goes on reading what was promised for a while, to let the answer arrive.
    server.writer.write(b'"late":1}')
    await reader.read()
    await server.hang_up()


async def test_a_body_received_in_time_is_read_late(server, monkeypatch):
    """A body that arrived in time is accepted, even if the loop reads it late."""
    monkeypatch.setattr(routes_of_web, "_BODY_TIMEOUT", 0.1)
    length, signed = f"Content-Length: {len(BODY)}", sign_callback(TASK, KEY)
    head = [length, "Expect: 100-continue", *(f"{name}: {signed[name]}" for name in signed)]
    reader = await server.send(head)
    # The interim answer is sent when the body is about to be read.
    assert b" 100 " in await first_line(reader)
    server.writer.write(BODY.encode())
    block(0.3)
    await reader.readuntil(b"\r\n")
    assert b" 200 " in await first_line(reader)
    assert server.notified == [TASK]
    await server.hang_up()


def block(seconds):
    time.sleep(seconds)


async def test_a_closed_connection_is_no_server_error(server, caplog):
    """A client that disconnects in the middle of a body causes no server error."""
    await server.send(["Content-Length: 9"], b"{")
    assert await server.post(BODY, sign_callback(TASK, KEY)) == (200, "OK")
    await server.hang_up()
    assert await server.post(BODY, sign_callback(TASK, KEY)) == (200, "OK")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_post_is_allowed(server, method):
    """Callbacks are accepted by POST only."""
    status, _ = await server.post(BODY, sign_callback(TASK, KEY), method)
    assert status == 405


async def test_flood_of_refusals_is_two_lines(instant_time, server, caplog):
    """Refusals for one reason are logged once in 30 seconds, and then counted."""
    caplog.set_level(logging.INFO, "kie_cover_async")
    for _ in range(50):
        await server.post(BODY, sign_callback(TASK, "another"))
    await server.post(BODY, {})
    await asyncio.sleep(1)
    for _ in range(2):
        await server.post(b"{}", {})
    await asyncio.sleep(61)
    await server.post(BODY, {})
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"callback refused: callback signature does not match; task {TASK}",
        f"callback refused: callback signature is missing; task {TASK}",
        "callback refused, it cannot be read at $.data.taskId",
        f"callback refused: callback signature does not match; task {TASK} (and 49 more in 30 s)",
        "callback refused, it cannot be read at $.data.taskId (and 1 more in 30 s)",
        f"callback refused: callback signature is missing; task {TASK}",
    ]


async def test_a_refusal_is_logged_without_secrets(server, caplog):
    """A refusal is logged with its reason, without key, signature and images."""
    caplog.set_level(logging.DEBUG, "kie_cover_async")
    genuine, forged = sign_callback(TASK, KEY), sign_callback(TASK, "another")
    await server.post(BODY, genuine)
    await server.post(BODY, forged)
    await server.post(b'{"data": {"taskId": "secret with blanks"}}', forged)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"callback for {TASK}: 1 are waiting",
        f"callback refused: callback signature does not match; task {TASK}",
        "callback refused, it cannot be read at $.data.taskId",
    ]


class TestSongUrls:
    """Callbacks at the songs' own URLs."""

    @pytest.fixture
    def song_urls(self):
        return SongCallbackUrls("http://127.0.0.1/callbacks/a-long-secret", ["s" * 32])

    @pytest.fixture
    async def server(self, song_urls):
        async with ClientSession() as caller:
            server = CallbackServer(CallbackInbox(), caller)
            await server.start(song_urls)
            yield server
        await server.runner.cleanup()

    @pytest.fixture
    async def unknown(self, server):
        unknown = []
        server.inbox.subscribe_unknown(lambda *each: unknown.append(each))
        return unknown

    async def test_a_callback_brings_its_song(self, server, song_urls, unknown):
        """The listener for unknown ids gets the song of the URL, and none from the plain one."""
        body, plain = BODY.replace(TASK, "new"), server.url
        for song in ("song a?", "b/ä"):
            server.url = f"{plain}/{song_urls(song.replace(' ', '')).rpartition('/')[2]}"
            assert await server.post(body) == (200, "OK")
        server.url = plain
        assert await server.post(body) == (200, "OK")
        assert unknown == [("new", "songa?"), ("new", "b/ä"), ("new", None)]
        assert not server.notified

    async def test_a_callback_still_wakes_the_wait_for_its_id(self, server, song_urls, unknown):
        """An id that is awaited is not unknown."""
        server.url += f"/{song_urls('a').rpartition('/')[2]}"
        assert await server.post(BODY) == (200, "OK")
        assert (server.notified, unknown) == ([TASK], [])

    @pytest.mark.parametrize("token", ["x", "YQ.x", "%80"])
    async def test_a_wrong_token_is_answered_with_404(self, server, unknown, token, caplog):
        """Nothing is notified, and the log does not show the token."""
        caplog.set_level(logging.INFO)
        server.url += f"/{token}"
        assert await server.post(BODY) == (404, "Not Found")
        assert (server.notified, unknown) == ([], [])
        assert "the token at the end of its URL is wrong" in caplog.text

    async def test_a_wrong_body_is_answered_as_at_the_plain_url(self, server, song_urls):
        """The token does not replace the other checks."""
        server.url += f"/{song_urls('a').rpartition('/')[2]}"
        assert await server.post(b"{}") == (400, "Bad Request")

    async def test_a_callback_that_cannot_be_stored_is_answered_with_503(
        self, server, song_urls, caplog
    ):
        """The vendor repeats it, and then it is received."""
        answers = [OSError("the disk is full"), None]

        def store(*_):
            stored = asyncio.get_running_loop().create_future()
            error = answers.pop(0)
            stored.set_result(None) if error is None else stored.set_exception(error)
            return stored

        server.inbox.subscribe_unknown(store)
        body = BODY.replace(TASK, "new")
        server.url += f"/{song_urls('a').rpartition('/')[2]}"
        assert await server.post(body) == (503, "Service Unavailable")
        assert await server.post(body) == (200, "OK")
        assert "it cannot be stored: the disk is full" in caplog.text

    async def test_any_function_can_receive(self, server, song_urls):
        """A plain one gets the headers and the body, and at a song's own URL the song."""
        received = []
        app = web.Application()
        routes = callback_routes("/plain", lambda *each: received.append(each[1:]), song_urls)
        app.add_routes(routes)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        plain = f"http://127.0.0.1:{runner.addresses[0][1]}/plain"
        for url in (plain, f"{plain}/{song_urls('a').rpartition('/')[2]}"):
            async with server.caller.post(url, data=b"x") as answer:
                assert answer.status == 200
        await runner.cleanup()
        assert received == [(b"x",), (b"x", "a")]

    async def test_without_song_urls_there_is_no_such_route(self, server):
        """The plain inbox serves one path."""
        assert len(server.inbox.routes("/callbacks")) == 1
