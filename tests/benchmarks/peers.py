"""What people write by hand, as they write it: the loops that the package is measured against."""

import aiohttp
import httpx

PATH = "/api/v1/suno/cover/record-info"
HEADERS = {"Authorization": "Bearer benchmark", "Content-Type": "application/json"}


async def aiohttp_poll(session: aiohttp.ClientSession, url: str, task_id: str) -> dict:
    async with session.get(url + PATH, params={"taskId": task_id}, headers=HEADERS) as response:
        return (await response.json())["data"]


async def httpx_poll(client: httpx.AsyncClient, url: str, task_id: str) -> dict:
    response = await client.get(url + PATH, params={"taskId": task_id}, headers=HEADERS)
    return response.json()["data"]
