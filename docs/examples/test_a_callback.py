"""A service's own test: it is told that a cover has ended, and has to bear being told twice."""

import asyncio

from aiohttp import web
from aiohttp.test_utils import TestServer

from kie_cover_async.emulator import CallbackPlan, CoverEmulator


async def test_the_service_is_told() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    async def hear(request: web.Request) -> web.Response:
        told.put_nowait((await request.json())["data"]["taskId"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/covers", hear)
    plan = CallbackPlan(duplicated=1.0, duplicate_after=0.1)
    async with (
        TestServer(app) as server,
        CoverEmulator(generation_time=0.1, callbacks=plan) as emulator,
    ):
        task_id = emulator.add_job(callback_url=str(server.make_url("/covers")))
        assert [await told.get(), await told.get()] == [task_id, task_id]
