"""Measure the cost of thousands of covers, compared with loops written by hand.

The peers take turns within each round, so that what else the machine does meets them all alike, and
the ratios are medians over the rounds. What is measured of memory is measured in fresh processes;
the server is another process in any case.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import httpx
import peers
from serving import fast_server

from kie_cover_async import CoverClient, RateLimiter
from kie_cover_async.api import responses

IDS, HTTPX_IDS, AT_ONCE, ROUNDS = 20_000, 2_000, 100, 5
WAITS, POLLS = 10_000, 30_000
MANY, FEW = 100_000, 1_000

Poll = Callable[[str], Awaitable[dict]]
Pool = Callable[[int], Awaitable[None]]

# The plain install: orjson is here for the tests.
responses.parse_quickly = responses.parse_with_json


def some_ids(number: int, prefix: str = "") -> Iterator[str]:
    return (f"{prefix}{n:032x}" for n in range(number))


@asynccontextmanager
async def connected(url: str):
    async with CoverClient(
        "benchmark", base_url=url, rate_limiter=RateLimiter.unlimited()
    ) as client:
        yield client


async def by_hand(poll: Poll, number: int) -> None:
    """Make all polls, as many of them in flight as a semaphore allows."""
    semaphore = asyncio.Semaphore(AT_ONCE)

    async def limited(task_id: str) -> dict:
        async with semaphore:
            return await poll(task_id)

    records = await asyncio.gather(*map(limited, some_ids(number)))
    assert all(record["successFlag"] == 1 for record in records)


async def by_the_package(url: str, number: int) -> None:
    async with connected(url) as client, client.check_covers(some_ids(number)) as outcomes:
        assert sum([outcome.ok async for outcome in outcomes]) == number


async def by_aiohttp(url: str, number: int) -> None:
    async with aiohttp.ClientSession() as session:
        await by_hand(lambda task_id: peers.aiohttp_poll(session, url, task_id), number)


async def by_httpx(url: str, number: int) -> None:
    async with httpx.AsyncClient() as client:
        await by_hand(lambda task_id: peers.httpx_poll(client, url, task_id), number)


def seconds_each(pool: Callable[[str, int], Awaitable[None]], url: str, number: int):
    """Wall clock and CPU of this process for each id."""
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(pool(url, number))
    return (time.perf_counter() - wall) / number, (time.process_time() - cpu) / number


def throughput(url: str) -> None:
    pools = {
        "kie_cover_async": (by_the_package, IDS),
        "aiohttp by hand": (by_aiohttp, IDS),
        "httpx by hand": (by_httpx, HTTPX_IDS),
    }
    for pool, _ in pools.values():
        seconds_each(pool, url, 500)
    rounds = [
        {name: seconds_each(pool, url, number) for name, (pool, number) in pools.items()}
        for _ in range(ROUNDS)
    ]
    for name in pools:
        ratios = [
            statistics.median(a[name][i] / a["kie_cover_async"][i] for a in rounds) for i in (0, 1)
        ]
        a_second = statistics.median(1 / a[name][0] for a in rounds)
        cpu = statistics.median(a[name][1] for a in rounds) * 1e6
        print(
            f"{ratios[0]:6.2f} × the ids a second of {name:16} {a_second:7.0f} ids/s"
            f"   {ratios[1]:.2f} × by CPU, {cpu:.0f} µs an id"
        )


class Every:
    """A schedule of equal intervals, which counts the polls that it plans."""

    def __init__(self, seconds: float, polls: int) -> None:
        self.seconds, self.left = seconds, polls
        self.enough = asyncio.Event()

    def delay(self, age: float, pressure: float) -> float:
        self.left -= 1
        if self.left == 0:
            self.enough.set()
        return self.seconds


async def while_waiting(client: CoverClient, waits: int, schedule: Every) -> None:
    """Wait for covers that are never done, until there were polls enough."""

    async def consume() -> None:
        async with client.wait_for_covers(some_ids(waits, "pending"), schedule=schedule) as all_:
            await anext(all_)

    consuming = asyncio.create_task(consume())
    await schedule.enough.wait()
    consuming.cancel()
    with suppress(asyncio.CancelledError):
        await consuming


def memory(what: str) -> int:
    """Bytes: `VmRSS` is what is held now, `VmHWM` the most that this program ever held.

    `getrusage` would tell of the program that started this one, too, if that was larger.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [kibibytes] = [line.split()[1] for line in lines if line.startswith(what)]
    return int(kibibytes) * 1024


async def bytes_per_wait(url: str) -> float:
    async with connected(url) as client:
        await while_waiting(client, AT_ONCE, Every(0.0, 2000))
        before, schedule = memory("VmRSS"), Every(3600.0, WAITS)
        waiting = asyncio.create_task(while_waiting(client, WAITS, schedule))
        await schedule.enough.wait()
        per_wait = (memory("VmRSS") - before) / WAITS
        await waiting
    return per_wait


async def cpu_per_poll(url: str, waits: int) -> float:
    async with connected(url) as client:
        await while_waiting(client, waits, Every(0.0, waits + 1000))
        started = time.process_time()
        await while_waiting(client, waits, Every(0.0, POLLS))
        return (time.process_time() - started) / POLLS


async def peak(url: str, number: int) -> int:
    async with connected(url) as client, client.check_covers(some_ids(number)) as outcomes:
        async for _ in outcomes:
            pass
    return memory("VmHWM")


FIGURES = {figure.__name__: figure for figure in (bytes_per_wait, cpu_per_poll, peak)}


def in_a_fresh_process(figure: Callable[..., Awaitable[float]], url: str, *numbers: int) -> float:
    arguments = [sys.executable, __file__, figure.__name__, url, *map(str, numbers)]
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def main() -> None:
    with fast_server() as url:
        throughput(url)
        waits = in_a_fresh_process(bytes_per_wait, url)
        print(f"{waits / 1024:6.2f} KiB for each of {WAITS:,} concurrent waits")
        many, one = (
            statistics.median(in_a_fresh_process(cpu_per_poll, url, n) for _ in range(3))
            for n in (WAITS, 1)
        )
        print(
            f"{many / one:6.2f} × the CPU of a single wait's poll for each of {WAITS:,} waits':"
            f" {many * 1e6:.0f} and {one * 1e6:.0f} µs"
        )
        most, least = (in_a_fresh_process(peak, url, number) for number in (MANY, FEW))
        print(
            f"{most / least:6.2f} × the peak memory of {FEW:,} ids for {MANY:,}:"
            f" {most / 2**20:.1f} and {least / 2**20:.1f} MiB"
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case [name, url, *numbers]:
            print(json.dumps(asyncio.run(FIGURES[name](url, *map(int, numbers)))))
        case _:
            main()
