"""Record the id of a paid task before the wait, and go on with it after a restart."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from kie_cover_async import CoverClient


async def main(music_task_id: str, task_id: str | None, record: Callable[[str], object]) -> None:
    async with CoverClient() as client:
        if task_id is not None:
            cover = await client.wait_for_cover(task_id)
        else:
            cover = await client.generate_and_wait(
                music_task_id, callback_url="https://example.com/covers", on_task_id=record
            )
    print(*cover.images, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python note_the_id.py SONG FILE")
    file = Path(sys.argv[2])
    recorded = file.read_text() if file.exists() else None
    asyncio.run(main(sys.argv[1], recorded, file.write_text))
