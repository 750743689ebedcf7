"""Wait for a cover and save its images."""

import asyncio
import sys

from kie_cover_async import CoverClient
from kie_cover_async.archive import CoverArchive


async def main(folder: str, task_id: str) -> None:
    async with CoverClient() as client, CoverArchive(folder) as archive:
        details = await client.wait_for_cover(task_id)
        saved = await archive.save(client, details)
    for image in saved.images:
        print(image.path, f"{image.width} x {image.height}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python save_a_cover.py FOLDER TASK_ID")
    asyncio.run(main(*sys.argv[1:]))
