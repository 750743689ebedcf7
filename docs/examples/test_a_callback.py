"""A test of a service that receives callbacks, each of them twice."""

import asyncio

from aiohttp import web
from aiohttp.test_utils import TestServer

from kie_cover_async.emulator import CallbackPlan, CoverEmulator


async def test_service_receives_both_callbacks() -> None:
    received: asyncio.Queue[str] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        received.put_nowait((await request.json())["data"]["taskId"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/covers", receive)
    plan = CallbackPlan(duplicated=1.0, duplicate_after=0.1)
    async with (
        TestServer(app) as server,
        CoverEmulator(generation_time=0.1, callbacks=plan) as emulator,
    ):
        task_id = emulator.add_job(callback_url=str(server.make_url("/covers")))
        assert [await received.get(), await received.get()] == [task_id, task_id]
