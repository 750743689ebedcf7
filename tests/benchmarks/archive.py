"""The cost of saving covers safely, compared with a download that only writes what it receives.

Images come over https, as in production, with the address check patched to accept loopback, and
over http, as from an emulator. The ways take turns, in a different order each round, so that other
load on the machine affects them alike; the ratios are medians over the rounds. The server is
another process. The plain download writes as it receives, does not flush, and checks nothing. A
safe download, also by hand, takes only the steps that the archive's promises for each image need: a
thread writes it to a temporary file, hashes it, computes its checksum, flushes and moves it,
without a record. The arguments are the lines to measure, such as `"https at 1 Gbit/s"`, or none
for all.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch
from zlib import crc32

import aiohttp
from serving import fast_server

from kie_cover_async import CoverClient, CoverDetails, structure_details
from kie_cover_async.archive import CoverArchive
from kie_cover_async.transport import addresses

COVERS, IMAGES, CONCURRENCY, THREADS, ROUNDS = 200, 2, 16, 4, 9
PIECE = 64 * 1024
WALL, CPU = 0, 1
CERTIFICATE = Path(__file__).with_name("loopback.pem")
# The arguments of the server: bytes per second, and its certificate.
LINES = {
    "https at 1 Gbit/s": ("125e6", CERTIFICATE),
    "https at 2.5 Gbit/s": ("312.5e6", CERTIFICATE),
    "https, unlimited": ("inf", CERTIFICATE),
    "http, unlimited": ("inf",),
}

Way = Callable[[list[CoverDetails], str, Path], Awaitable[None]]
Receive = Callable[[aiohttp.ClientResponse, Path], Awaitable[None]]


def new_covers(url: str, number: int) -> list[CoverDetails]:
    return [
        structure_details(
            {
                "taskId": f"{n:032x}",
                "successFlag": 1,
                "response": {"images": [f"{url}/s/{n}-{i}.png" for i in range(IMAGES)]},
            }
        )
        for n in range(number)
    ]


async def by_the_package(covers: list[CoverDetails], url: str, folder: Path) -> None:
    async with (
        CoverClient("benchmark", base_url=url) as client,
        CoverArchive(folder, max_concurrent_downloads=CONCURRENCY) as archive,
    ):
        await asyncio.gather(*[archive.save(client, cover) for cover in covers])


async def write_as_it_comes(response: aiohttp.ClientResponse, path: Path) -> None:
    with path.open("wb") as file:
        async for piece in response.content.iter_chunked(PIECE):
            file.write(piece)


def write_safely(pieces: list[bytes], path: Path) -> tuple[str, int]:
    digest, checksum, part = sha256(), 0, path.with_suffix(".part")
    with part.open("xb", buffering=0) as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            checksum = crc32(piece, checksum)
        os.fsync(file.fileno())
    part.replace(path)
    return digest.hexdigest(), checksum


def download_by(receive: Receive) -> Way:
    async def download_all(covers: list[CoverDetails], url: str, folder: Path) -> None:
        slots = asyncio.Semaphore(CONCURRENCY)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def download(image: str, path: Path) -> None:
                async with slots, session.get(image) as response:
                    response.raise_for_status()
                    await receive(response, path)

            await asyncio.gather(
                *[
                    download(image, folder / f"{cover.task_id}-{n}.png")
                    for cover in covers
                    for n, image in enumerate(cover.images, 1)
                ]
            )

    return download_all


async def download_safely(covers: list[CoverDetails], url: str, folder: Path) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as threads:

        async def receive(response: aiohttp.ClientResponse, path: Path) -> None:
            pieces = [piece async for piece in response.content.iter_any()]
            await loop.run_in_executor(threads, write_safely, pieces, path)

        await download_by(receive)(covers, url, folder)


PLAIN, SAFE, PACKAGE = "plain download", "safe download", "kie_cover_async"
WAYS: dict[str, Way] = {
    PACKAGE: by_the_package,
    PLAIN: download_by(write_as_it_comes),
    SAFE: download_safely,
}


def measure(way: Way, covers: list[CoverDetails], url: str, folder: Path) -> tuple[float, float]:
    """Return the wall-clock and CPU seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(way(covers, url, folder))
    taken = time.perf_counter() - wall, time.process_time() - cpu
    files = [*folder.iterdir()]
    assert sum(path.suffix == ".png" for path in files) == len(covers) * IMAGES
    for path in files:
        # Emptied and not removed: ext4 searches the files that were removed in the last seconds
        # before it creates one, and the next way would pay for it.
        os.truncate(path, 0)
    return taken


def compare(url: str, folder: Path) -> dict[str, list[tuple[float, float]]]:
    covers = new_covers(url, COVERS)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for turn in range(1 + ROUNDS):
        first = turn % len(WAYS)
        for name in [*WAYS][first:] + [*WAYS][:first]:
            own_folder = Path(tempfile.mkdtemp(dir=folder))
            taken[name].append(measure(WAYS[name], covers, url, own_folder))
    # The first round is a warm-up.
    return {name: each[1:] for name, each in taken.items()}


def ratio(ours: list[tuple[float, float]], base: list[tuple[float, float]], which: int) -> float:
    return statistics.median(a[which] / b[which] for a, b in zip(ours, base, strict=True))


def main() -> None:
    for line in sys.argv[1:] or LINES:
        with (
            fast_server("image_server.py", *map(str, LINES[line])) as url,
            tempfile.TemporaryDirectory() as folder,
        ):
            taken = compare(url, Path(folder))
        plain = taken[PLAIN]
        for name in (PACKAGE, SAFE):
            own = taken[name]
            per_second = COVERS * IMAGES / statistics.median(each[WALL] for each in own)
            print(
                f"{ratio(plain, own, WALL):6.2f} × the speed of a plain download, {line:20}"
                f" {name:20} {per_second:5.0f} images/s, {ratio(own, plain, CPU):.2f} × its CPU",
                flush=True,
            )


if __name__ == "__main__":
    with patch.object(addresses, "is_public", return_value=True):
        main()
