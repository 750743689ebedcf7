"""What a poll costs in user instructions, by cachegrind: steadier than time on a busy machine.

Each kind runs twice in a process of its own, for few ids and for many; the difference is free of
what starting costs. The server is another process. It takes some minutes, and needs valgrind.
"""

import asyncio
import os
import re
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import httpx
import peers
from serving import fast_server

from kie_cover_async import CoverClient, RateLimiter
from kie_cover_async.api import responses

FEW, MANY, CONCURRENT, REPEATS = 100, 500, 32, 3

Run = Callable[[str, list[str]], Awaitable[None]]
Poll = Callable[[str], Awaitable[object]]


async def by_workers(poll: Poll, ids: list[str]) -> None:
    remaining = iter(ids)

    async def worker() -> None:
        for task_id in remaining:
            await poll(task_id)

    await asyncio.gather(*(worker() for _ in range(CONCURRENT)))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[CoverClient]:
    limiter = RateLimiter.unlimited()
    async with CoverClient("benchmark", base_url=url, rate_limiter=limiter) as client:
        yield client


async def poll_by_package(url: str, ids: list[str]) -> None:
    async with connected(url) as client:
        await by_workers(client.get_cover_details, ids)


async def poll_with_speedups(url: str, ids: list[str]) -> None:
    responses.parse_quickly = responses.orjson_parser()
    await poll_by_package(url, ids)


async def poll_by_aiohttp(url: str, ids: list[str]) -> None:
    async with aiohttp.ClientSession() as session:
        await by_workers(lambda task_id: peers.aiohttp_poll(session, url, task_id), ids)


async def poll_by_httpx(url: str, ids: list[str]) -> None:
    async with httpx.AsyncClient() as client:
        await by_workers(lambda task_id: peers.httpx_poll(client, url, task_id), ids)


async def bulk_by_package(url: str, ids: list[str]) -> None:
    async with connected(url) as client, client.check_covers(ids) as outcomes:
        assert sum([outcome.ok async for outcome in outcomes]) == len(ids)


async def bulk_by_aiohttp(url: str, ids: list[str]) -> None:
    semaphore = asyncio.Semaphore(100)
    async with aiohttp.ClientSession() as session:

        async def limited(task_id: str) -> dict:
            async with semaphore:
                return await peers.aiohttp_poll(session, url, task_id)

        await asyncio.gather(*map(limited, ids))


KINDS: dict[str, Run] = {
    run.__name__: run
    for run in (
        poll_by_aiohttp,
        poll_by_package,
        poll_with_speedups,
        poll_by_httpx,
        bulk_by_aiohttp,
        bulk_by_package,
    )
}


def instructions(kind: str, url: str, number: int) -> int:
    """Return the user instructions of one process that asks for so many ids."""
    command = [
        *("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"),
        *(sys.executable, __file__, kind, url, str(number)),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    [found] = re.findall(r"I +refs: +([\d,]+)", done.stderr)
    return int(found.replace(",", ""))


def per_id(kind: str, url: str) -> float:
    """Return the median of what one more id costs."""
    return statistics.median(
        (instructions(kind, url, MANY) - instructions(kind, url, FEW)) / (MANY - FEW)
        for _ in range(REPEATS)
    )


def main() -> None:
    with fast_server() as url:
        costs = {kind: per_id(kind, url) for kind in KINDS}
    for kind, cost in costs.items():
        by_hand = costs[f"{kind.partition('_')[0]}_by_aiohttp"]
        print(
            f"{cost / by_hand:6.3f} of aiohttp by hand  {cost / 1000:7.1f} k instructions  {kind}"
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case [kind, url, number]:
            responses.parse_quickly = responses.parse_with_json  # orjson is here for the tests
            asyncio.run(KINDS[kind](url, [f"{n:032x}" for n in range(int(number))]))
        case _:
            main()
