"""Make covers in another process: `python song_process.py URL FOLDER MAX_CLAIM_AGE SONG…`.

After each claim was committed, and before it returns, a line is printed and one is read, which
blocks the process. At the end the states are printed.
"""

import asyncio
import sys
from typing import Any

from kie_cover_async import CoverClient, ExponentialSchedule
from kie_cover_async.archive import CoverArchive
from kie_cover_async.jobs import SongJob, submit
from kie_cover_async.jobs.stream import ArchiveImages


class BlockingClaims:
    """A ledger whose claims wait for a line of input."""

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def claim(self, *arguments: Any) -> Any:
        claim = await self._ledger.claim(*arguments)
        print("claimed", flush=True)  # noqa: T201 - the test reads it
        sys.stdin.readline()
        return claim


async def main(url: str, folder: str, max_claim_age: str, *songs: str) -> None:
    submit._MAX_CLAIM_AGE = float(max_claim_age)
    schedule = ExponentialSchedule(initial_delay=0.02, max_delay=0.05)
    async with (
        CoverClient("a-key", base_url=url, route="market", schedule=schedule) as client,
        CoverArchive(folder) as archive,
    ):
        await archive.ledger.want(songs)
        ledger: Any = BlockingClaims(archive.ledger)
        job = SongJob(client=client, ledger=ledger, images=ArchiveImages(archive))
        for song in songs:
            print((await job.run(song)).song.state, flush=True)  # noqa: T201


asyncio.run(main(*sys.argv[1:]))
