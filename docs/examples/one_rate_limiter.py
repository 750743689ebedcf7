"""Two clients with the same key share one rate limiter."""

import asyncio
import sys

from kie_cover_async import CoverClient, RateLimiter


async def main(first: str, second: str) -> None:
    rate_limiter = RateLimiter(9, per=1.0)
    async with (
        CoverClient(rate_limiter=rate_limiter) as one,
        CoverClient(rate_limiter=rate_limiter) as other,
    ):
        covers = await asyncio.gather(one.wait_for_cover(first), other.wait_for_cover(second))
    for cover in covers:
        print(*cover.images, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python one_rate_limiter.py TASK_ID TASK_ID")
    asyncio.run(main(*sys.argv[1:]))
