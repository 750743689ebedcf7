"""Poll from any number of processes with one key: start this several times."""

import asyncio
import os
import sys

from kie_cover_async import CoverClient
from kie_cover_async.fleet import SharedRateLimiter

REDIS = os.environ.get("REDIS_URL", "redis://localhost")


async def main(task_ids: list[str]) -> None:
    polls = SharedRateLimiter(REDIS, 9, per=1.0, name="kie-polls")
    submits = SharedRateLimiter(REDIS, 19, per=10.0, name="kie-submits", sends_in_outage=False)
    async with (
        polls,
        submits,
        CoverClient(rate_limiter=polls, submit_rate_limiter=submits) as client,
    ):
        async for outcome in client.wait_for_covers(task_ids):
            print(
                outcome.task_id, *(outcome.details.images if outcome.details else ()), outcome.error
            )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python shared_rate_limit.py TASK_ID [TASK_ID...]")
    asyncio.run(main(sys.argv[1:]))
