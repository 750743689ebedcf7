"""Wait with a schedule that keeps what it has learned from one run to the next."""

import asyncio
import json
import sys
from pathlib import Path

from kie_cover_async import AdaptiveSchedule, CoverClient


async def wait(task_id: str, schedule: AdaptiveSchedule) -> None:
    async with CoverClient(schedule=schedule) as client:
        details = await client.wait_for_cover(task_id)
    print(*details.images, sep="\n")


def main(task_id: str, file: Path) -> None:
    schedule = AdaptiveSchedule()
    if file.exists():
        schedule.load_state(json.loads(file.read_text()))
    asyncio.run(wait(task_id, schedule))
    file.write_text(json.dumps(schedule.dump_state()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python remember_times.py TASK_ID")
    main(sys.argv[1], Path("cover-times.json"))
