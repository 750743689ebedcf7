"""The examples of the page on several processes."""

import asyncio
import runpy
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from support.redis_server import needs_redis

from kie_cover_async.emulator import CoverEmulator

pytestmark = needs_redis

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
KEY = "test-webhook-hmac-key"


@pytest.fixture
async def emulator(redis, monkeypatch):
    monkeypatch.setenv("REDIS_URL", redis.url)
    monkeypatch.setenv("KIE_API_KEY", "example-key")
    monkeypatch.setenv("KIE_CALLBACK_KEY", KEY)
    async with CoverEmulator(generation_time=0.0, callback_key=KEY) as emulator:
        monkeypatch.setenv("KIE_BASE_URL", emulator.url)
        yield emulator


async def test_covers_are_waited_for_with_a_shared_limit(emulator, capsys):
    """The example prints the images of each cover."""
    example = runpy.run_path(str(EXAMPLES / "shared_rate_limit.py"))
    await example["main"]([emulator.add_job(), emulator.add_job()])
    assert capsys.readouterr().out.count(emulator.image_url) == 4


async def start_worker(stack, listening):
    """Start a worker as another process would."""
    runner = web.AppRunner(runpy.run_path(str(EXAMPLES / "callbacks_workers.py"))["make_app"]())
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listening).start()


def url_of(listening):
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_callback_at_one_worker_ends_the_wait_in_another(emulator, monkeypatch):
    """A worker returns the cover that it waits for, because another one gets the callback."""
    async with AsyncExitStack() as stack, asyncio.timeout(20):
        waiting, receiving = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)
        ]
        monkeypatch.setenv("CALLBACK_URL", f"{url_of(receiving)}/callbacks/secret")
        for each in (waiting, receiving):
            await start_worker(stack, each)
        session = await stack.enter_async_context(ClientSession())
        async with session.post(f"{url_of(waiting)}/songs/song/cover") as response:
            assert len((await response.json())["images"]) == 2
    polls = [each for each in emulator.requests if each.endpoint == "record-info"]
    assert (len(polls), len(emulator.callbacks)) == (1, 1)
