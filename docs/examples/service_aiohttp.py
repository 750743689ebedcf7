"""A service on aiohttp.web that submits songs and reports how far their covers are."""

from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler
from caller_answers import answer_to

from kie_cover_async import CoverClient, KieCoverError

COVERS = web.AppKey("covers", CoverClient)
routes = web.RouteTableDef()


@routes.post("/songs/{music_task_id}/cover")
async def submit(request: web.Request) -> web.Response:
    task_id = await request.app[COVERS].generate_cover(
        request.match_info["music_task_id"], callback_url="https://example.com/covers"
    )
    return web.json_response({"task_id": task_id}, status=202)


@routes.get("/covers/{task_id}")
async def show(request: web.Request) -> web.Response:
    client = request.app[COVERS]
    details = await client.wait_for_cover(request.match_info["task_id"], timeout=20.0)
    return web.json_response({"state": "done", "images": details.images})


@web.middleware
async def errors_as_answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except KieCoverError as error:
        status, answer = answer_to(error)
        return web.json_response(answer, status=status)


async def one_client(app: web.Application) -> AsyncIterator[None]:
    async with CoverClient() as app[COVERS]:
        yield


async def end_waits(app: web.Application) -> None:
    await app[COVERS].aclose()


def make_app() -> web.Application:
    app = web.Application(middlewares=[errors_as_answers])
    app.add_routes(routes)
    app.cleanup_ctx.append(one_client)
    app.on_shutdown.append(end_waits)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8080)
