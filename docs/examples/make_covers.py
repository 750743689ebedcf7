"""Make the covers of songs, and keep their images in a folder."""

import asyncio
import sys

from kie_cover_async import CoverClient
from kie_cover_async.archive import CoverArchive
from kie_cover_async.jobs import make_covers

CALLBACK_URL = "https://example.com/covers"  # required on the suno route


async def main(songs: list[str]) -> None:
    async with CoverClient() as client, CoverArchive("covers") as archive:
        async for outcome in make_covers(client, archive, songs, callback_url=CALLBACK_URL):
            print(outcome.song.music_task_id, outcome.song.state, *outcome.images)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python make_covers.py SONG [SONG...]")
    asyncio.run(main(sys.argv[1:]))
