"""Add songs to a ledger in PostgreSQL, and show what is in it."""

import asyncio
import os
import sys

from kie_cover_async.fleet import PostgresLedger
from kie_cover_async.ledger import SongState


async def main(songs: list[str], schema: str = "kie_cover") -> None:
    async with PostgresLedger(os.environ["DATABASE_URL"], schema=schema) as ledger:
        new = await ledger.want(songs)
        print(len(new), "new")
        for song in await ledger.page(SongState.IN_DOUBT):
            print(f"in doubt: {song.music_task_id}, since {song.reason}")
        for state, count in (await ledger.counts()).items():
            if count:
                print(count, state)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python postgres_ledger.py SONG [SONG...]")
    asyncio.run(main(sys.argv[1:]))
