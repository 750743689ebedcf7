"""Covers by the ten thousand through an emulated service where much goes wrong, for some minutes.

Five answers in a hundred are faults; callbacks are lost, doubled, late, wrongly signed and forged;
the service goes away for two seconds in the middle. At the end every song has its cover, or its
job's failure, and has been paid for once; no image comes from a forged callback; the memory of the
second half is flat; asyncio has complained of nothing. `python soak.py [covers]`; Linux only.
"""

import asyncio
import json
import logging
import statistics
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from resource import getpagesize

from aiohttp import web
from attrs import define, field

from kie_cover_async import (
    CoverClient,
    CoverFailedError,
    KieCoverError,
    RateLimiter,
    RetryPolicy,
)
from kie_cover_async.callbacks import CallbackInbox

COVERS, AT_ONCE = 50_000, 1_000
KEY = "soak-webhook-hmac-key"
FLAT = 1.05


class Complaints(logging.Handler):
    """What asyncio, the interpreter and the callback server have logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(f"{record.name}: {record.getMessage()}")


@define
class Account:
    """What became of each song, and what it took. It takes no more memory as it fills."""

    ends: list[str | None]
    done: int = 0
    images: int = 0
    forged: int = 0
    detours: Counter[str] = field(factory=Counter)
    memory: list[int] = field(factory=list)

    def end(self, song: int, how: str) -> None:
        if self.ends[song] is not None:
            raise AssertionError(f"song {song} has ended twice")
        self.ends[song] = how
        self.done += 1

    def have(self, images: Sequence[str]) -> None:
        self.images += len(images)
        self.forged += sum("forged" in url for url in images)


class Service:
    """The emulated service, spoken to by pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._words, self._lines = process.stdin, process.stdout
        self.url: str = self._heard()["url"]

    def restart(self) -> None:
        self._words.write("restart\n")
        self._words.flush()

    def end(self) -> int:
        """The credits that it has taken."""
        self._words.close()
        return self._heard()["taken"]

    def _heard(self) -> dict:
        return json.loads(self._lines.readline())


@contextmanager
def service() -> Iterator[Service]:
    command = [sys.executable, str(Path(__file__).with_name("service.py")), KEY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Service(process)


@asynccontextmanager
async def listening(inbox: CallbackInbox) -> AsyncIterator[str]:
    """Serve the inbox; gives its URL."""
    app = web.Application()
    app.add_routes(inbox.routes("/covers"))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}/covers"
    finally:
        await runner.cleanup()


async def have_cover(client: CoverClient, song: int, url: str, account: Account) -> None:
    """Ask until it is certain that the cover was asked for, and wait for it."""
    while True:
        try:
            details = await client.generate_and_wait(f"song-{song}", callback_url=url, timeout=None)
        except CoverFailedError:
            account.end(song, "failed")
        except KieCoverError as error:
            account.detours[type(error).__name__] += 1
            continue
        else:
            account.have(details.images)
            account.end(song, "a cover")
        return


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


async def watch(account: Account, emulated: Service) -> None:
    """Sample the memory every second, tell how far it is, and restart the service halfway."""
    restarted = False
    while True:
        await asyncio.sleep(1)
        account.memory.append(resident())
        print(f"{account.done:,} of {len(account.ends):,}", file=sys.stderr, flush=True)
        if not restarted and account.done >= len(account.ends) // 2:
            restarted = True
            emulated.restart()


async def run(emulated: Service, account: Account) -> None:
    inbox = CallbackInbox(keys=KEY, fallback_poll_interval=5.0)
    async with (
        listening(inbox) as url,
        CoverClient(
            "soak",
            base_url=emulated.url,
            rate_limiter=RateLimiter.unlimited(),
            submit_rate_limiter=RateLimiter.unlimited(),
            retry=RetryPolicy(initial_delay=0.05, max_delay=1.0),
            inbox=inbox,
        ) as client,
    ):
        songs = iter(range(len(account.ends)))

        async def worker() -> None:
            for song in songs:
                await have_cover(client, song, url, account)

        watching = asyncio.create_task(watch(account, emulated))
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())
        watching.cancel()


def growth(memory: list[int]) -> float:
    """The memory of the last tenth over that of the tenth after the middle: medians."""
    tenth = max(1, len(memory) // 10)
    middle = len(memory) // 2
    return statistics.median(memory[-tenth:]) / statistics.median(memory[middle : middle + tenth])


def main() -> None:
    covers = int(sys.argv[1]) if len(sys.argv) > 1 else COVERS
    complaints, account = Complaints(), Account([None] * covers)
    warnings.simplefilter("always")
    logging.captureWarnings(capture=True)
    for name in ("asyncio", "py.warnings", "aiohttp"):
        logging.getLogger(name).addHandler(complaints)
    start = time.monotonic()
    with service() as emulated:
        asyncio.run(run(emulated, account))
        taken = emulated.end()
    seconds = time.monotonic() - start
    grown = growth(account.memory)
    print(f"{covers:,} songs in {seconds:.0f} s: {dict(Counter(account.ends))}")
    print(f"on the way: {dict(account.detours)}")
    print(f"{taken:,} covers paid for; {account.images:,} images, {account.forged} forged")
    print(f"memory {account.memory[-1] / 2**20:.0f} MiB, {grown:.3f} of what it was halfway")
    print(f"complaints: {complaints.said or 'none'}")
    lost = covers - account.done
    if lost or taken != covers or account.forged or grown > FLAT or complaints.said:
        sys.exit("the soak has found something")


if __name__ == "__main__":
    main()
