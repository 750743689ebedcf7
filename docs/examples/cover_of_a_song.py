"""Ask for the cover of a song, wait for it, and print the URLs of its images."""

import asyncio

from kie_cover_async import CoverClient, CoverFailedError, CoverTimeoutError


async def main(song: str) -> None:
    async with CoverClient() as client:  # the key comes from KIE_API_KEY
        try:
            cover = await client.generate_and_wait(song, callback_url="https://example.com/covers")
        except CoverFailedError as error:
            print("no cover:", error.details.error_message)
        except CoverTimeoutError as error:
            print("not yet; ask again later for task", error.task_id)
        else:
            print(*cover.images, sep="\n")


if __name__ == "__main__":
    asyncio.run(main("73d6128b3523a0079df10da9471017c8"))
