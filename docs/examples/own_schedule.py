"""A custom schedule: no poll before 25 seconds, then one every three."""

import asyncio
import sys

from kie_cover_async import CoverClient


class AfterTwentyFive:
    def delay(self, age: float, pressure: float) -> float:
        return max(25.0 - age, 3.0 * pressure)


async def main(task_id: str) -> None:
    async with CoverClient(schedule=AfterTwentyFive()) as client:
        cover = await client.wait_for_cover(task_id)
    print(*cover.images, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python own_schedule.py TASK_ID")
    asyncio.run(main(sys.argv[1]))
