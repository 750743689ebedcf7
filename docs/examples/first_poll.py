"""One poll of a cover: how far is it?"""

import asyncio
import sys

from kie_cover_async import CoverClient


async def main(task_id: str) -> None:
    async with CoverClient() as client:
        details = await client.get_cover_details(task_id)
    print(details.state.value, *details.images, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python first_poll.py TASK_ID")
    asyncio.run(main(sys.argv[1]))
