"""Measure the CPU time of a poll, compared with loops written by hand.

The peers take turns within each round, so that what else the machine does meets them all alike;
the server is another process. The ratios are the medians over the rounds.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from compileall import compile_dir
from pathlib import Path

import aiohttp
import httpx
import peers
from serving import fast_server

import kie_cover_async
from kie_cover_async import CoverClient, RateLimiter
from kie_cover_async.api import responses

POLLS, CONCURRENT, ROUNDS = 320, 32, 31
IMPORTS = 15

Poll = Callable[[str], Awaitable[object]]

# The plain install: orjson is here for the tests.
responses.parse_quickly = responses.parse_with_json


async def cpu_per_poll(poll: Poll, polls: int) -> float:
    """Microseconds of this process's CPU, some polls at the same time."""
    ids = iter(range(polls))

    async def worker() -> None:
        for number in ids:
            await poll(f"{number:032x}")

    start = time.process_time()
    await asyncio.gather(*(worker() for _ in range(CONCURRENT)))
    return (time.process_time() - start) / polls * 1e6


async def compare(url: str) -> dict[str, list[float]]:
    async with (
        aiohttp.ClientSession() as session,
        httpx.AsyncClient() as client,
        CoverClient("benchmark", base_url=url, rate_limiter=RateLimiter.unlimited()) as ours,
    ):
        polls: dict[str, Poll] = {
            "kie_cover_async": ours.get_cover_details,
            "aiohttp by hand": lambda task_id: peers.aiohttp_poll(session, url, task_id),
            "httpx by hand": lambda task_id: peers.httpx_poll(client, url, task_id),
        }
        for poll in polls.values():
            await cpu_per_poll(poll, POLLS)
        costs: dict[str, list[float]] = {name: [] for name in polls}
        for _ in range(ROUNDS):
            for name, poll in polls.items():
                costs[name].append(await cpu_per_poll(poll, POLLS))
    return costs


def ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def import_time(modules: str) -> float:
    """Seconds that a fresh Python takes to import these."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
    return time.perf_counter() - start


def import_ratio() -> float:
    """Return the time to import the package, relative to that of its four dependencies."""
    compile_dir(Path(kie_cover_async.__file__).parent, quiet=1)  # as pip does when it installs
    pairs = [
        (import_time("kie_cover_async"), import_time("aiohttp, attrs, cattrs, backoff"))
        for _ in range(IMPORTS)
    ]
    return statistics.median(ours / theirs for ours, theirs in pairs)


def main() -> None:
    with fast_server() as url:
        costs = asyncio.run(compare(url))
    ours = costs["kie_cover_async"]
    for name, theirs in costs.items():
        print(f"{ratio(ours, theirs):6.2f} of {name:16} {statistics.median(theirs):7.0f} µs a poll")
    print(f"{import_ratio():6.2f} of importing aiohttp, attrs, cattrs and backoff")


if __name__ == "__main__":
    main()
