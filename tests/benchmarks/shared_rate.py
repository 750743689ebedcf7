"""One rate limit over three worker processes: what the server sees, calm, paused, without Redis.

Needs redis-server. Three processes want as many polls and submits as they can get, from an emulator
that has the vendor's limits and counts what arrives. After 20 s it refuses one poll, which pauses
all for 3 s; from 30 s to 38 s Redis is down, and comes back empty.
Run `python tests/benchmarks/shared_rate.py`; it takes a minute.
"""

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from tempfile import TemporaryDirectory

from kie_cover_async import CoverClient, KieCoverError
from kie_cover_async.emulator import CoverEmulator, Fault, Limits
from kie_cover_async.fleet import SharedRateLimiter

WORKERS, DURATION = 3, 60.0
POLLS, SUBMITS = 9, (19, 10.0)
PAUSED_AT, PAUSE = 20.0, 3.0
DOWN_AT, DOWN_FOR = 30.0, 8.0
# Seconds from the start until all workers are running.
WARM_UP = 2.0


async def worker(base_url: str, redis_url: str, name: str) -> None:
    polls = SharedRateLimiter(redis_url, POLLS, name="polls")
    number, per = SUBMITS
    submits = SharedRateLimiter(redis_url, number, per=per, name="submits", sends_in_outage=False)
    async with (
        polls,
        submits,
        CoverClient(
            name, base_url=base_url, rate_limiter=polls, submit_rate_limiter=submits
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        songs = (f"{name}-{number}" for number in count())
        for number in range(8):
            group.create_task(poll(client, f"{name}-{number}"))
            group.create_task(submit(client, songs))


async def poll(client: CoverClient, task_id: str) -> None:
    while True:
        with suppress(KieCoverError):
            await client.get_cover_details(task_id)


async def submit(client: CoverClient, songs: Iterator[str]) -> None:
    while True:
        with suppress(KieCoverError):
            await client.generate_cover(next(songs), callback_url="https://example.com")


class Redis:
    """A server of this benchmark's own that keeps nothing."""

    def __init__(self, folder: str) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port: int = bound.getsockname()[1]
        self._folder = folder

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            sys.exit("needs redis-server: apt-get install redis-server")
        options = ("--port", str(self.port), "--save", "", "--dir", self._folder)
        self._process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@asynccontextmanager
async def workers(emulator: CoverEmulator, redis: Redis) -> AsyncIterator[None]:
    url = f"redis://127.0.0.1:{redis.port}"
    command = [sys.executable, __file__, emulator.url, url]
    started = [
        await asyncio.create_subprocess_exec(*command, f"worker-{number}")
        for number in range(WORKERS)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            await process.wait()


async def run_timeline(emulator: CoverEmulator, redis: Redis) -> float:
    """Return the `loop.time()` at which it began."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(WARM_UP)
    began = loop.time()
    await asyncio.sleep(PAUSED_AT)
    emulator.fault(Fault.rate_limited(retry_after=PAUSE), endpoint="poll", count=1)
    await asyncio.sleep(began + DOWN_AT - loop.time())
    redis.kill()
    await asyncio.sleep(DOWN_FOR)
    redis.start()
    await asyncio.sleep(began + DURATION - loop.time())
    return began


def most(times: Sequence[float], window: float) -> int:
    """Return the most requests in any window of so many seconds."""
    return max(bisect_left(times, time + window) - n for n, time in enumerate(times))


def between(times: Sequence[float], begin: float, end: float) -> int:
    return bisect_left(times, end) - bisect_left(times, begin)


async def main() -> None:
    emulator = CoverEmulator(limits=Limits(), credits=1e9)
    with TemporaryDirectory() as folder:
        redis = Redis(folder)
        redis.start()
        async with emulator, workers(emulator, redis):
            began = await run_timeline(emulator, redis)
        redis.kill()
    report(emulator, began)


def report(emulator: CoverEmulator, began: float) -> None:
    received = [each for each in emulator.requests if each.received >= began]
    polls = [each for each in received if each.endpoint == "record-info"]
    times = [each.received - began for each in polls]
    submits = [each.received - began for each in received if each.endpoint == "generate"]
    shares = Counter(
        each.headers["Authorization"] for each in polls if each.received - began < PAUSED_AT
    )
    refused_at = next(each.received - began for each in polls if each.fault is not None)
    during = between(times, refused_at + 1e-6, refused_at + PAUSE)
    back_at = DOWN_AT + DOWN_FOR
    down = between(times, DOWN_AT, back_at) / (DOWN_FOR * POLLS)
    after = between(times, back_at, back_at + 4) / (4 * POLLS)
    number, per = SUBMITS
    calm = [time for time in times if time < DOWN_AT]
    rest = [time for time in times if time >= DOWN_AT]
    print(f"polls, calm: {between(times, 0, PAUSED_AT) / PAUSED_AT:.1f}/s", end=", ")
    print(f"most in any second {most(calm, 1.0)}")
    print(f"fairness, least / most: {min(shares.values()) / max(shares.values()):.2f}")
    print(f"polls in the {PAUSE:g} s after a refusal: {during}")
    print(f"without Redis for {DOWN_FOR:g} s: {down:.2f} of the rate", end=", ")
    print(f"{after:.2f} in the four seconds after; most in any second {most(rest, 1.0)}")
    print(f"submits: {len(submits)}, most in any {per:g} s {most(submits, per)} ({number} allowed)")
    print(f"refusals: {dict(emulator.refusals)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with suppress(KeyboardInterrupt):
            asyncio.run(worker(*sys.argv[1:]))
    else:
        asyncio.run(main())
