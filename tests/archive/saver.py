"""Save covers into a folder: `python saver.py FOLDER ID…`."""

import asyncio
import sys

from kie_cover_async import CoverClient, RateLimiter
from kie_cover_async.archive import CoverArchive


async def main(folder: str, *task_ids: str) -> None:
    async with (
        CoverClient(rate_limiter=RateLimiter.unlimited()) as client,
        CoverArchive(folder, max_concurrent_downloads=4) as archive,
    ):
        await archive.add(task_ids)

        async def save(task_id: str) -> None:
            await archive.save(client, await client.get_cover_details(task_id))

        await asyncio.gather(*[save(each.task_id) for each in await archive.pending()])


asyncio.run(main(*sys.argv[1:]))
