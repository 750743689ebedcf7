"""Waits that a callback wakes, and its handler, cancelled at every await."""

import asyncio
from contextlib import suppress

import pytest
from aiohttp import web
from support.cancellation import CancelledAt, cancel_at_each_await, leaked_state

from kie_cover_async.callbacks import CallbackInbox, sign_callback
from kie_cover_async.emulator import CoverScript

KEY = "test-webhook-hmac-key"


class CallbackServer:
    """A service with the routes of an inbox, of whose next request the handler is cancelled."""

    def __init__(self, inbox):
        self.inbox, self.url = inbox, ""
        self.at = None
        self.handlers = []

    async def start(self, stack):
        app = web.Application(middlewares=[self._interrupted])
        app.add_routes(self.inbox.routes("/callbacks"))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks"

    @web.middleware
    async def _interrupted(self, request, handler):
        if self.at is None:
            return await handler(request)
        at, self.at = self.at, None
        handling = CancelledAt(*at, handler(request))
        self.handlers.append(handling)
        return await handling.run()

    async def post(self, task_id):
        """A callback whose body comes in two pieces; what was answered, if anything."""
        port = int(self.url.split(":")[2].partition("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = f'{{"data": {{"taskId": "{task_id}"}}}}'
        fields = {**sign_callback(task_id, KEY), "Host": "x", "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(
            f"POST /callbacks HTTP/1.1\r\nConnection: close\r\n{head}\r\n{body[:9]}".encode()
        )
        await asyncio.sleep(0.01)
        writer.write(body[9:].encode())
        answer = b""
        # What the server had not read when it closed makes a reset of its closing.
        with suppress(ConnectionResetError):
            answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n")[0]


@pytest.fixture
async def inbox():
    return CallbackInbox(KEY, fallback_poll_interval=3600)


@pytest.fixture
async def site(stack, inbox):
    site = CallbackServer(inbox)
    await site.start(stack)
    return site


async def test_generate_and_wait_can_be_cancelled_anywhere(emulate, connect, inbox, site):
    """`generate_and_wait` is cancelled at each await: nothing subscribes to the inbox any more."""
    emulator = await emulate(generation_time=0.01, callback_key=KEY)

    async def begin(moment, wait):
        async with connect(emulator, inbox=inbox, max_concurrent_requests=1) as client:
            asking = client.generate_and_wait(
                f"song {moment} {wait}".replace(" ", "-"), callback_url=site.url
            )
            making = CancelledAt(wait, moment, asking)
            [outcome] = await asyncio.gather(
                asyncio.create_task(making.run()), return_exceptions=True
            )
            assert isinstance(outcome, asyncio.CancelledError) == making.interrupted, outcome
            assert not any(leaked_state(client).values()), leaked_state(client)
            assert not inbox._listeners
            assert await client.get_credits() == emulator.credits
        return making

    await cancel_at_each_await(begin)


async def test_one_of_two_called_waits_can_be_cancelled_anywhere(emulate, connect, inbox, site):
    """One of two waits that a callback wakes is cancelled at each await; the other goes on."""
    emulator = await emulate()

    async def begin(moment, wait):
        async with connect(emulator, inbox=inbox, max_concurrent_requests=1) as client:
            task_id = emulator.add_job(CoverScript(statuses=["generating", "success"]))
            seen = asyncio.Event()
            making = CancelledAt(wait, moment, client.wait_for_cover(task_id))
            waits = [
                asyncio.create_task(making.run()),
                asyncio.create_task(client.wait_for_cover(task_id, on_update=lambda _: seen.set())),
            ]
            await seen.wait()
            assert b" 200 " in await site.post(task_id)
            _, details = await asyncio.gather(*waits, return_exceptions=True)
            assert details.is_success
            assert not any(leaked_state(client).values()), leaked_state(client)
            assert not inbox._listeners
        return making

    await cancel_at_each_await(begin)


async def test_the_handler_of_a_callback_can_be_cancelled_anywhere(
    emulator, connect, inbox, site, caplog
):
    """The handler of a callback is cancelled at each await: the next callback is accepted."""
    client = connect(emulator, inbox=inbox)

    async def begin(moment, wait):
        task_id = emulator.add_job(CoverScript(statuses=["generating", "success"]))
        seen = asyncio.Event()
        waiting = asyncio.create_task(
            client.wait_for_cover(task_id, on_update=lambda _: seen.set())
        )
        await seen.wait()
        site.at = (wait, moment)
        answered = await site.post(task_id)
        assert answered == b"" if site.handlers[-1].interrupted else b" 200 " in answered
        assert b" 200 " in await site.post(task_id)
        assert (await waiting).is_success
        assert not inbox._listeners
        return site.handlers[-1]

    await cancel_at_each_await(begin)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
