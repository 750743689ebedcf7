"""What callbacks save, and how soon a cover is there after its callback.

A thousand covers are asked for and waited for at once, with an unlimited rate limiter; the emulator
that makes them and calls back is another process. The lag is from when it begins to send the
callback until `generate_and_wait` has returned.
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
    "ended as they were asked for, all within a second or two": {
        "generation_time": (10, 10),
        "callbacks": {},
    },
    "20 % of callbacks lost, 20 % doubled, 10 % forged": {
        "generation_time": (5, 15),
        "callbacks": {"lost": 0.2, "duplicated": 0.2, "forged": 0.1},
    },
}


@define
class Emulator:
    process: subprocess.Popen[str]
    url: str

    def when_called(self) -> dict[str, float]:
        """`time.monotonic()` of each cover's callback; the emulator ends with this."""
        told, _ = self.process.communicate()
        sent: dict[str, float] = json.loads(told)
        return sent


@contextmanager
def emulating(settings: dict[str, Any]) -> Iterator[Emulator]:
    program = Path(__file__).with_name("calling_emulator.py")
    command = [sys.executable, str(program), json.dumps({"callback_key": KEY, **settings})]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield Emulator(process, process.stdout.readline().strip())


@define
class Service:
    """What asks for covers, and is called back."""

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
            await asyncio.gather(*[self.one(client, n, callback_url) for n in range(COVERS)])
        await runner.cleanup()

    async def one(self, client: CoverClient, number: int, callback_url: str) -> None:
        cover = await client.generate_and_wait(f"song-{number}", callback_url=callback_url)
        self.ended[cover.task_id] = time.monotonic()
        self.covers.append(cover)


def report(name: str, service: Service, called: dict[str, float]) -> None:
    forged = sum(url.startswith(FORGED) for cover in service.covers for url in cover.images)
    lags = sorted(
        1000 * (ended - called[task_id])
        for task_id, ended in service.ended.items()
        if ended > called.get(task_id, ended)  # a poll of another cause may have been first
    )
    print(f"{COVERS:,} covers that {name}:" if name.startswith("ended") else f"{name}:")
    print(f"{len(service.covers):8,} covers arrived, {forged} forged images among theirs")
    print(f"{service.polls / COVERS:8.3f} polls for each")
    print(
        f"{statistics.median(lags):8.1f} ms from callback to cover: the median of {len(lags)};"
        f" {lags[int(0.99 * len(lags))]:.1f} ms the 99th of a hundred, {lags[-1]:.1f} ms the last"
    )


def main() -> None:
    for name, settings in RUNS.items():
        with emulating(settings) as emulator:
            service = Service(emulator.url)
            asyncio.run(service.run())
            report(name, service, emulator.when_called())


if __name__ == "__main__":
    main()
