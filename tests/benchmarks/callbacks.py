"""How many polls callbacks save, and how soon after its callback a cover is returned.

A thousand covers are requested and waited for concurrently, with an unlimited rate limiter. The
emulator that makes them and sends the callbacks is another process. The lag is the time from the
start of sending the callback until `generate_and_wait` has returned.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from attrs import define, field

from kie_cover_async import CoverClient, CoverDetails, RateLimiter
from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.events import Event, RequestFinished

COVERS = 1000
KEY = "a-key-for-benchmarks"
FORGED = "https://forged.example"

RUNS: dict[str, dict[str, Any]] = {
    "ended over ten seconds": {"generation_time": (5, 15), "callbacks": {}},
    "ended in the order of their requests, all within a second or two": {
        "generation_time": (10, 10),
        "callbacks": {},
    },
    "20 % of callbacks lost, 20 % duplicated, 10 % forged": {
        "generation_time": (5, 15),
        "callbacks": {"lost": 0.2, "duplicated": 0.2, "forged": 0.1},
    },
}


@define
class Emulator:
    process: subprocess.Popen[str]
    url: str

    def callback_times(self) -> dict[str, float]:
        """Stop the emulator and return `time.monotonic()` of each cover's callback."""
        output, _ = self.process.communicate()
        times: dict[str, float] = json.loads(output)
        return times


@contextmanager
def running_emulator(settings: dict[str, Any]) -> Iterator[Emulator]:
    program = Path(__file__).with_name("calling_emulator.py")
    command = [sys.executable, str(program), json.dumps({"callback_key": KEY, **settings})]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield Emulator(process, process.stdout.readline().strip())


@define
class Service:
    """A service that requests covers and receives their callbacks."""

    url: str
    polls: int = 0
    ended: dict[str, float] = field(factory=dict)
    covers: list[CoverDetails] = field(factory=list)

    def count(self, event: Event) -> None:
        self.polls += isinstance(event, RequestFinished) and event.endpoint == "record-info"

    async def run(self) -> None:
        inbox = CallbackInbox(KEY)
        app = web.Application()
        app.add_routes(inbox.routes("/callbacks"))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        callback_url = f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks"
        async with CoverClient(
            "benchmark",
            base_url=self.url,
            rate_limiter=RateLimiter.unlimited(),
            inbox=inbox,
            observer=self.count,
        ) as client:
            await asyncio.gather(*[self.generate(client, n, callback_url) for n in range(COVERS)])
        await runner.cleanup()

    async def generate(self, client: CoverClient, number: int, callback_url: str) -> None:
        cover = await client.generate_and_wait(f"song-{number}", callback_url=callback_url)
        self.ended[cover.task_id] = time.monotonic()
        self.covers.append(cover)


def report(name: str, service: Service, sent: dict[str, float]) -> None:
    forged = sum(url.startswith(FORGED) for cover in service.covers for url in cover.images)
    lags = sorted(
        1000 * (ended - sent[task_id])
        for task_id, ended in service.ended.items()
        if ended > sent.get(task_id, ended)  # another poll may have been earlier
    )
    print(f"{COVERS:,} covers that {name}:" if name.startswith("ended") else f"{name}:")
    print(f"{len(service.covers):8,} covers returned, with {forged} forged images")
    print(f"{service.polls / COVERS:8.3f} polls per cover")
    print(
        f"{statistics.median(lags):8.1f} ms from callback to cover: the median of {len(lags)};"
        f" {lags[int(0.99 * len(lags))]:.1f} ms the 99th percentile, {lags[-1]:.1f} ms the maximum"
    )


def main() -> None:
    for name, settings in RUNS.items():
        with running_emulator(settings) as emulator:
            service = Service(emulator.url)
            asyncio.run(service.run())
            report(name, service, emulator.callback_times())


if __name__ == "__main__":
    main()
