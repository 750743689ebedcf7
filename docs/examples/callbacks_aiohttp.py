"""A service on aiohttp.web that is called back when a cover is done."""

import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from aiohttp import web

from kie_cover_async import CoverClient
from kie_cover_async.callbacks import CallbackInbox

# As the vendor reaches it: https://covers.example.com/callbacks/ and 32 random characters
CALLBACK_URL = os.environ["CALLBACK_URL"]
# One key, or two with a comma in between, while they are being changed
KEYS = [key.strip() for key in os.environ["KIE_CALLBACK_KEY"].split(",")]

COVERS = web.AppKey("covers", CoverClient)
routes = web.RouteTableDef()


@routes.post("/songs/{song}/cover")
async def ask(request: web.Request) -> web.Response:
    song = request.match_info["song"]
    task_id = await request.app[COVERS].generate_cover(song, callback_url=CALLBACK_URL)
    return web.json_response({"cover": task_id}, status=202)


@routes.get("/covers/{cover}")
async def cover(request: web.Request) -> web.Response:
    details = await request.app[COVERS].wait_for_cover(request.match_info["cover"])
    return web.json_response({"images": details.images})


def make_app() -> web.Application:
    inbox = CallbackInbox(KEYS)

    async def one_client(app: web.Application) -> AsyncIterator[None]:
        async with CoverClient(inbox=inbox) as app[COVERS]:
            yield

    app = web.Application()
    app.add_routes(routes)
    app.add_routes(inbox.routes(urlsplit(CALLBACK_URL).path))
    app.cleanup_ctx.append(one_client)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8080)
