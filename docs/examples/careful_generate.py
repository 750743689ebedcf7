"""Submit a song without paying twice."""

import asyncio
import sys

from kie_cover_async import CoverAlreadyExistsError, CoverClient, KieCoverError


async def main(music_task_id: str) -> None:
    async with CoverClient() as client:
        try:
            task_id = await client.generate_cover(
                music_task_id, callback_url="https://example.com/covers"
            )
        except CoverAlreadyExistsError as error:
            print("already there:", error.existing_task_id or "the API did not name it")
        except KieCoverError as error:
            print("perhaps paid for:" if error.maybe_accepted else "not submitted:", error)
        else:
            print(task_id)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python careful_generate.py SONG")
    asyncio.run(main(sys.argv[1]))
