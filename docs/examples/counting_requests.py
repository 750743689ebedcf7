"""An observer that counts requests and the seconds of pauses, as metrics of a service would."""

import asyncio
import sys
from collections import Counter

from kie_cover_async import CoverClient
from kie_cover_async.events import Event, RequestFinished, RequestsPaused


class Counts:
    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.seconds_paused = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case RequestFinished(endpoint=endpoint, error=error):
                self.requests[f"{endpoint} {type(error).__name__ if error else 'ok'}"] += 1
            case RequestsPaused(seconds=seconds):
                self.seconds_paused += seconds


async def main(task_id: str) -> None:
    counts = Counts()
    async with CoverClient(observer=counts) as client:
        await client.wait_for_cover(task_id)
    print(dict(counts.requests), f"paused for {counts.seconds_paused:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python counting_requests.py TASK_ID")
    asyncio.run(main(sys.argv[1]))
