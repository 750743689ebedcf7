"""Note what was paid for before waiting for it, and find it again after a restart."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from kie_cover_async import CoverClient


async def main(song: str, noted: str | None, note: Callable[[str], object]) -> None:
    async with CoverClient() as client:
        if noted is not None:
            cover = await client.wait_for_cover(noted)
        else:
            cover = await client.generate_and_wait(
                song, callback_url="https://example.com/covers", on_task_id=note
            )
    print(*cover.images, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python note_the_id.py SONG FILE")
    file = Path(sys.argv[2])
    noted = file.read_text() if file.exists() else None
    asyncio.run(main(sys.argv[1], noted, file.write_text))
