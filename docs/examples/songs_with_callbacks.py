"""Make the covers of songs; a callback to a song's own URL ends a doubt about it."""

import asyncio
import os
import sys

from aiohttp import web

from kie_cover_async import CoverClient
from kie_cover_async.archive import CoverArchive
from kie_cover_async.callbacks import CallbackInbox, SongCallbackUrls
from kie_cover_async.jobs import make_covers

# What the service calls, and where that arrives, for example behind a reverse proxy.
PUBLIC_URL = os.environ.get("PUBLIC_URL", "https://example.com/covers")
HOST, PORT, PATH = "127.0.0.1", int(os.environ.get("PORT", "8080")), "/covers"


async def main(songs: list[str]) -> None:
    inbox = CallbackInbox()
    async with CoverClient(inbox=inbox) as client, CoverArchive("covers") as archive:
        urls = SongCallbackUrls(PUBLIC_URL, await archive.ledger.callback_secrets())
        app = web.Application()
        app.add_routes(inbox.routes(PATH, urls))
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, HOST, PORT).start()
        try:
            stream = make_covers(client, archive, songs, callback_url=urls, inbox=inbox)
            async for outcome in stream:
                print(outcome.song.music_task_id, outcome.song.state, *outcome.images)
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python songs_with_callbacks.py SONG [SONG...]")
    asyncio.run(main(sys.argv[1:]))
