"""Move to the Market route: new songs go there, and old waits end on the route they began on."""

import asyncio
import sys

from kie_cover_async import CoverClient, RateLimiter


async def finish(client: CoverClient, task_ids: tuple[str, ...]) -> None:
    async with client.wait_for_covers(task_ids) as outcomes:
        async for outcome in outcomes:
            print(outcome.task_id, outcome.error or outcome.result().images)


async def generate(client: CoverClient, music_task_id: str) -> None:
    cover = await client.generate_and_wait(music_task_id)  # no callback URL is needed here
    print(cover.task_id, cover.images)


async def main(music_task_id: str, *old_task_ids: str) -> None:
    # The vendor counts requests by the key, so both clients share a rate limiter.
    rate_limiter = RateLimiter()
    async with (
        CoverClient(route="suno", rate_limiter=rate_limiter) as old,
        CoverClient(route="market", rate_limiter=rate_limiter) as new,
    ):
        await asyncio.gather(finish(old, old_task_ids), generate(new, music_task_id))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python change_route.py SONG [TASK_ID...]")
    asyncio.run(main(*sys.argv[1:]))
