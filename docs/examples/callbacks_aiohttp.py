"""A service on aiohttp.web that receives the callbacks of the API."""

import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from aiohttp import web

from kie_cover_async import CoverClient
from kie_cover_async.callbacks import CallbackInbox

# The public URL: https://covers.example.com/callbacks/ and 32 random characters
CALLBACK_URL = os.environ["CALLBACK_URL"]
# One key, or two separated by a comma while you change it
KEYS = [key.strip() for key in os.environ["KIE_CALLBACK_KEY"].split(",")]

COVERS = web.AppKey("covers", CoverClient)
routes = web.RouteTableDef()


@routes.post("/songs/{music_task_id}/cover")
async def submit(request: web.Request) -> web.Response:
    task_id = await request.app[COVERS].generate_cover(
        request.match_info["music_task_id"], callback_url=CALLBACK_URL
    )
    return web.json_response({"task_id": task_id}, status=202)


@routes.get("/covers/{task_id}")
async def show(request: web.Request) -> web.Response:
    details = await request.app[COVERS].wait_for_cover(request.match_info["task_id"])
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
