"""The service on aiohttp.web with several workers behind one URL: start this several times."""

import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from aiohttp import web

from kie_cover_async import CoverClient
from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.fleet import CallbackBus, SharedRateLimiter

REDIS = os.environ.get("REDIS_URL", "redis://localhost")
CALLBACK_URL = os.environ["CALLBACK_URL"]
KEYS = [key.strip() for key in os.environ["KIE_CALLBACK_KEY"].split(",")]

COVERS = web.AppKey("covers", CoverClient)
routes = web.RouteTableDef()


@routes.post("/songs/{music_task_id}/cover")
async def make_cover(request: web.Request) -> web.Response:
    # The callback may reach any worker; this one gets it by the bus.
    details = await request.app[COVERS].generate_and_wait(
        request.match_info["music_task_id"], callback_url=CALLBACK_URL
    )
    return web.json_response({"images": details.images})


def make_app() -> web.Application:
    inbox = CallbackInbox(KEYS)

    async def one_client(app: web.Application) -> AsyncIterator[None]:
        polls = SharedRateLimiter(REDIS, 9, per=1.0, name="kie-polls")
        submits = SharedRateLimiter(REDIS, 19, per=10.0, name="kie-submits", sends_in_outage=False)
        async with (
            polls,
            submits,
            CallbackBus(REDIS, inbox, name="kie"),
            CoverClient(inbox=inbox, rate_limiter=polls, submit_rate_limiter=submits) as app[
                COVERS
            ],
        ):
            yield

    app = web.Application()
    app.add_routes(routes)
    app.add_routes(inbox.routes(urlsplit(CALLBACK_URL).path))
    app.cleanup_ctx.append(one_client)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8080, reuse_port=True)
