"""A client that uses the session of your service, with its proxy and its connection pool."""

import asyncio
import sys

import aiohttp

from kie_cover_async import CoverClient


async def main(task_id: str) -> None:
    connector = aiohttp.TCPConnector(limit=20)
    async with (
        aiohttp.ClientSession(connector=connector, trust_env=True) as session,
        CoverClient(session=session) as client,  # closed before the session is
    ):
        cover = await client.wait_for_cover(task_id)
        print(*cover.images, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python external_session.py TASK_ID")
    asyncio.run(main(sys.argv[1]))
