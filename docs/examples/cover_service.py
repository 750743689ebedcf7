"""A web service for covers: POST submits a song, GET reports how far its cover is."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from kie_cover_async import CoverClient, CoverDetails, CoverFailedError, CoverTimeoutError

CLIENT = web.AppKey("client", CoverClient)
COVERS = web.AppKey("covers", dict[str, asyncio.Task[CoverDetails]])


async def lifespan(app: web.Application) -> AsyncIterator[None]:
    async with CoverClient() as client:  # one for the whole service; KIE_API_KEY has the key
        app[CLIENT], app[COVERS] = client, {}
        yield
    await asyncio.gather(*app[COVERS].values(), return_exceptions=True)


async def submit(request: web.Request) -> web.Response:
    music_task_id, covers = request.match_info["music_task_id"], request.app[COVERS]
    if music_task_id not in covers:
        cover = request.app[CLIENT].generate_and_wait(
            music_task_id, callback_url="https://example.com/covers"
        )
        covers[music_task_id] = asyncio.create_task(cover)
    return web.Response(status=202)


async def show(request: web.Request) -> web.Response:
    cover = request.app[COVERS].get(request.match_info["music_task_id"])
    if cover is None:
        return web.json_response({"error": "this song was never submitted"}, status=404)
    if not cover.done():
        return web.json_response({"state": "generating"}, status=202)
    try:
        return web.json_response({"images": cover.result().images})
    except CoverFailedError as error:
        return web.json_response({"error": error.details.error_message}, status=502)
    except CoverTimeoutError:
        return web.json_response({"error": "not done in time"}, status=504)


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(lifespan)
    app.router.add_post("/songs/{music_task_id}/cover", submit)
    app.router.add_get("/songs/{music_task_id}/cover", show)
    return app


if __name__ == "__main__":
    web.run_app(make_app())
