"""Wait for a cover that was submitted earlier, and print each state."""

import asyncio
import sys

from kie_cover_async import CoverClient, CoverDetails


def print_state(details: CoverDetails) -> None:
    print(details.state.value, file=sys.stderr)


async def main(task_id: str) -> None:
    async with CoverClient() as client:
        cover = await client.wait_for_cover(task_id, timeout=600.0, on_update=print_state)
    print(*cover.images, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python wait_with_progress.py TASK_ID")
    asyncio.run(main(sys.argv[1]))
