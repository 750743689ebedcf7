"""Submit a song, wait for its cover, and print the URLs of the images."""

import asyncio

from kie_cover_async import CoverClient, CoverFailedError, CoverTimeoutError


async def main(music_task_id: str) -> None:
    async with CoverClient() as client:  # the key comes from KIE_API_KEY
        try:
            cover = await client.generate_and_wait(
                music_task_id, callback_url="https://example.com/covers"
            )
        except CoverFailedError as error:
            print("no cover:", error.details.error_message)
        except CoverTimeoutError as error:
            print("not done yet; wait again for task", error.task_id)
        else:
            print(*cover.images, sep="\n")


if __name__ == "__main__":
    asyncio.run(main("73d6128b3523a0079df10da9471017c8"))
