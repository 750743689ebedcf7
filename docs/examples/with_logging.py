"""A wait with the log messages of the package."""

import asyncio
import logging
import sys

from kie_cover_async import CoverClient


async def main(task_id: str) -> None:
    async with CoverClient() as client:
        cover = await client.wait_for_cover(task_id)
    print(*cover.images, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python with_logging.py TASK_ID")
    logging.basicConfig(format="%(levelname)-5s  %(message)s")
    logging.getLogger("kie_cover_async").setLevel(logging.DEBUG)
    asyncio.run(main(sys.argv[1]))
