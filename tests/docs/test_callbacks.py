"""The examples that receive callbacks: two services on ports of their own."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from functools import partial

import pytest
import uvicorn
from aiohttp import ClientSession, web

from kie_cover_async.callbacks import sign_callback
from kie_cover_async.emulator import CoverScript

KEY = "test-webhook-hmac-key"


@web.middleware
async def aiohttp_middleware(request, handler):
    await request.text()
    return await handler(request)


@asynccontextmanager
async def on_aiohttp(example, listening, *, middlewares=()):
    app = example("callbacks_aiohttp.py")["make_app"]()
    app.middlewares.extend(middlewares)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    yield
    await runner.cleanup()


async def fastapi_middleware(request, call_next):
    await request.body()
    return await call_next(request)


@asynccontextmanager
async def on_fastapi(example, listening, *, middlewares=()):
    app = example("callbacks_fastapi.py")["app"]
    for middleware in middlewares:
        app.middleware("http")(middleware)
    config = uvicorn.Config(app, http="h11", ws="none", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listening])
    yield
    await server.shutdown([listening])


class Service:
    """A running example and a client of it."""

    def __init__(self, url, session):
        self.url, self.session = url, session

    async def post(self, path, **request):
        async with self.session.post(f"{self.url}{path}", **request) as response:
            return response.status, await response.text()

    async def call_back(self, body, headers):
        return (await self.post("/callbacks/secret", data=body, headers=headers))[0]


SERVICES = {
    "aiohttp": on_aiohttp,
    "aiohttp, read first by a middleware": partial(on_aiohttp, middlewares=[aiohttp_middleware]),
    "fastapi": on_fastapi,
    "fastapi, read first by a middleware": partial(on_fastapi, middlewares=[fastapi_middleware]),
}


@pytest.fixture(params=SERVICES.values(), ids=SERVICES)
async def service(request, emulator, example, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("CALLBACK_URL", f"{url}/callbacks/secret")
        monkeypatch.setenv("KIE_CALLBACK_KEY", f"old,{KEY}")
        async with request.param(example, listening), ClientSession() as session:
            yield Service(url, session)


async def test_callback_ends_the_wait(service, emulator):
    """A wait returns as soon as the callback arrives, after one more poll."""
    emulator.script_song("song", CoverScript(statuses=["generating", "success"]))
    status, body = await service.post("/songs/song/cover")
    task_id = json.loads(body)["task_id"]

    async def fetch_images():
        async with service.session.get(f"{service.url}/covers/{task_id}") as response:
            return (await response.json())["images"]

    async with asyncio.timeout(10):
        fetching = asyncio.create_task(fetch_images())
        while not emulator.poll_count(task_id):  # noqa: ASYNC110 - the emulator has no event for a poll
            await asyncio.sleep(0.005)
        body = json.dumps({"code": 200, "data": {"taskId": task_id}})
        assert await service.call_back(body, sign_callback(task_id, KEY)) == 200
        assert len(await fetching) == 2
    assert (status, emulator.poll_count(task_id)) == (202, 2)


async def test_bad_callbacks_are_refused(service):
    """A callback that is unreadable, unsigned or too large is refused."""
    body, genuine = b'{"data": {"taskId": "x"}}', sign_callback("x", KEY)
    assert await service.call_back(body, genuine) == 200
    assert await service.call_back(b"{}", genuine) == 400
    assert await service.call_back(body, {}) == 401
    assert await service.call_back(body.ljust(70_000), genuine) == 413
