"""A web service that has covers made: POST asks for one, GET says how far it is."""

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


async def ask(request: web.Request) -> web.Response:
    song, covers = request.match_info["song"], request.app[COVERS]
    if song not in covers:
        cover = request.app[CLIENT].generate_and_wait(
            song, callback_url="https://example.com/covers"
        )
        covers[song] = asyncio.create_task(cover)
    return web.Response(status=202)


async def show(request: web.Request) -> web.Response:
    cover = request.app[COVERS].get(request.match_info["song"])
    if cover is None:
        return web.json_response({"error": "nobody has asked for it"}, status=404)
    if not cover.done():
        return web.json_response({"state": "in the making"}, status=202)
    try:
        return web.json_response({"images": cover.result().images})
    except CoverFailedError as error:
        return web.json_response({"error": error.details.error_message}, status=502)
    except CoverTimeoutError:
        return web.json_response({"error": "it takes too long"}, status=504)


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(lifespan)
    app.router.add_post("/songs/{song}/cover", ask)
    app.router.add_get("/songs/{song}/cover", show)
    return app


if __name__ == "__main__":
    web.run_app(make_app())
