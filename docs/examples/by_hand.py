"""The loop that most people write first, and that this package replaces."""

import asyncio
import os

import aiohttp

URL = f"{os.environ['KIE_BASE_URL']}/api/v1/suno/cover/record-info"
HEADERS = {"Authorization": f"Bearer {os.environ['KIE_API_KEY']}"}


async def images_of(session: aiohttp.ClientSession, task_id: str) -> list[str]:
    while True:
        query = {"taskId": task_id}
        async with session.get(URL, params=query, headers=HEADERS) as response:
            data = (await response.json())["data"]
        if data["successFlag"] == 1:
            images: list[str] = data["response"]["images"]
            return images
        if data["successFlag"] in (2, 3):
            raise RuntimeError(data["errorMessage"])
        await asyncio.sleep(3)
