"""Songs in, covers kept: a run at the vendor's ceilings, and the CPU time of the ledger.

The run takes about three minutes of real time. The emulator refuses what exceeds the vendor's
numbers in any sliding window. The ledger is measured alone, without requests and images.
"""

import asyncio
import math
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from kie_cover_async import CoverClient, CoverDetails
from kie_cover_async.archive import CoverArchive, SqliteLedger
from kie_cover_async.archive import covers as statements
from kie_cover_async.archive.database import ArchiveDatabase
from kie_cover_async.emulator import CoverEmulator, CoverScript, Limits
from kie_cover_async.jobs import make_covers
from kie_cover_async.ledger import Api

SONGS, MEDIAN, SIGMA = 200, 35.0, 0.4
# Seconds between two submits of the client's own limiter, and the longest interval of its polls.
SUBMIT_INTERVAL, MAX_DELAY = 10 / 19, 6.0
CALLBACK = "https://example.com/covers"
LEDGER_SONGS, AT_ONCE, ROUNDS = 500, 20, 5
API = Api(route="suno", origin="https://api.kie.ai")


async def run_at_the_ceilings(folder: Path) -> None:
    rng = random.Random(1)
    seconds = [rng.lognormvariate(math.log(MEDIAN), SIGMA) for _ in range(SONGS)]
    songs = [f"song-{n}" for n in range(SONGS)]
    async with CoverEmulator(limits=Limits()) as emulator:
        for song, duration in zip(songs, seconds, strict=True):
            emulator.script_song(song, CoverScript(seconds=duration))
        started, cpu = time.perf_counter(), time.process_time()
        async with (
            CoverClient("benchmark", base_url=emulator.url) as client,
            CoverArchive(folder) as archive,
        ):
            stream = make_covers(client, archive, songs, callback_url=CALLBACK)
            kept = sum([outcome.ok async for outcome in stream])
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        polls = sum(emulator.poll_count(each) for each in emulator._service.jobs)
    ends = [n * SUBMIT_INTERVAL + duration for n, duration in enumerate(seconds, 1)]
    bound = max(ends) + MAX_DELAY
    print(f"{kept} of {SONGS} kept in {took:.1f} s, with {polls / SONGS:.1f} polls a song")
    print(f"the last submit at {SONGS * SUBMIT_INTERVAL:.1f} s, its job {seconds[-1]:.1f} s")
    print(f"the last job could end at {max(ends):.1f} s; with {MAX_DELAY:g} s: {bound:.1f} s")
    print(f"ratio {took / bound:.3f} (target at most 1.1)")
    print(f"refusals: {dict(emulator.refusals)} (target 0)")
    print(f"CPU of client, archive and emulator: {1e3 * cpu / SONGS:.1f} ms a song")


def keep(database: ArchiveDatabase, task_id: str) -> None:
    details = CoverDetails(task_id=task_id)
    statements.record_details(database, details, API)
    statements.record_save(database, details, [], is_complete=True)


async def needed(archive: CoverArchive, ledger: SqliteLedger, song: str) -> None:
    """Make the three commits that a song needs; the last one is that of saving its cover."""
    await ledger.claim(song, API)
    await ledger.record_id(song, f"task-of-{song}", API)
    await archive._query(lambda database: keep(database, f"task-of-{song}"))


async def without_ledger(archive: CoverArchive, _: SqliteLedger, song: str) -> None:
    """Record a saved cover that is of no song."""
    await archive._query(lambda database: keep(database, f"task-of-{song}"))


async def by_a_job(archive: CoverArchive, ledger: SqliteLedger, song: str) -> None:
    """Make all calls that a job makes."""
    await ledger.want([song])
    await ledger.find(song)
    await ledger.claim(song, API)
    await ledger.record_id(song, f"task-of-{song}", API)
    await ledger.find(song)
    await ledger.start_wait(song, f"task-of-{song}")
    await archive._query(lambda database: keep(database, f"task-of-{song}"))
    await ledger.keep(f"task-of-{song}")
    await ledger.find(song)


Way = Callable[[CoverArchive, SqliteLedger, str], Awaitable[None]]


def cpu_of(way: Way, workers: int) -> float:
    """Return the milliseconds of CPU time for each song in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(cpu_in(Path(folder), way, workers))


async def cpu_in(folder: Path, way: Way, workers: int) -> float:
    songs = [f"song-{n}" for n in range(LEDGER_SONGS)]
    async with CoverArchive(folder) as archive:
        if way is needed:
            await archive.ledger.want(songs)
        waiting = iter(songs)

        async def work() -> None:
            for song in waiting:
                await way(archive, archive.ledger, song)

        cpu = time.process_time()
        await asyncio.gather(*[work() for _ in range(workers)])
        return 1e3 * (time.process_time() - cpu) / LEDGER_SONGS


def measure_ledger() -> None:
    """Print what the ledger adds to the record of saved covers, by rounds in turn."""
    for workers in (AT_ONCE, 1):
        print(f"CPU time a song, {workers} at the same time; the target of the first is 0.8 ms:")
        for name, way in (("claim, record_id and keep", needed), ("all calls of a job", by_a_job)):
            found = [cpu_of(way, workers) - cpu_of(without_ledger, workers) for _ in range(ROUNDS)]
            print(f"  {name}: {statistics.median(found):.2f} ms")


if __name__ == "__main__":
    measure_ledger()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run_at_the_ceilings(Path(folder)))
