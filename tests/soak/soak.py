"""The soak test: tens of thousands of covers from an emulated service with many faults.

Five percent of the answers are faults; callbacks are lost, duplicated, late, wrongly signed and
forged; the service is down for two seconds in the middle. At the end every song must have its
cover, or its job's failure, and must have been paid for once. No image may come from a forged
callback, memory must not grow in the second half, and asyncio must not have logged a warning.
Run `python soak.py [covers]`; Linux only.
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


class WarningCollector(logging.Handler):
    """Collects the warnings of asyncio, the interpreter and the callback server."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.name}: {record.getMessage()}")


@define
class Account:
    """How each song ended, and at what cost. Its size does not grow while it fills."""

    ends: list[str | None]
    done: int = 0
    images: int = 0
    forged: int = 0
    errors: Counter[str] = field(factory=Counter)
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
    """The emulated service in another process, controlled by pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._words, self._lines = process.stdin, process.stdout
        self.url: str = self._read_reply()["url"]

    def restart(self) -> None:
        self._words.write("restart\n")
        self._words.flush()

    def end(self) -> int:
        """Stop the service, and return how many credits it has charged."""
        self._words.close()
        return self._read_reply()["charged"]

    def _read_reply(self) -> dict:
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
    """Serve the inbox, and yield its URL."""
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


async def get_cover(client: CoverClient, song: int, url: str, account: Account) -> None:
    """Submit until it is certain that the song was accepted, and wait for its cover."""
    while True:
        try:
            details = await client.generate_and_wait(f"song-{song}", callback_url=url, timeout=None)
        except CoverFailedError:
            account.end(song, "failed")
        except KieCoverError as error:
            account.errors[type(error).__name__] += 1
            continue
        else:
            account.have(details.images)
            account.end(song, "a cover")
        return


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


async def watch(account: Account, emulated: Service) -> None:
    """Sample the memory every second, print the progress, and restart the service halfway."""
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
                await get_cover(client, song, url, account)

        watching = asyncio.create_task(watch(account, emulated))
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())
        watching.cancel()


def growth(memory: list[int]) -> float:
    """Return the median memory of the last tenth, relative to the tenth after the middle."""
    tenth = max(1, len(memory) // 10)
    middle = len(memory) // 2
    return statistics.median(memory[-tenth:]) / statistics.median(memory[middle : middle + tenth])


def main() -> None:
    covers = int(sys.argv[1]) if len(sys.argv) > 1 else COVERS
    collected, account = WarningCollector(), Account([None] * covers)
    warnings.simplefilter("always")
    logging.captureWarnings(capture=True)
    for name in ("asyncio", "py.warnings", "aiohttp"):
        logging.getLogger(name).addHandler(collected)
    start = time.monotonic()
    with service() as emulated:
        asyncio.run(run(emulated, account))
        charged = emulated.end()
    seconds = time.monotonic() - start
    grown = growth(account.memory)
    print(f"{covers:,} songs in {seconds:.0f} s: {dict(Counter(account.ends))}")
    print(f"errors: {dict(account.errors)}")
    print(f"{charged:,} covers paid for; {account.images:,} images, {account.forged} forged")
    print(f"memory {account.memory[-1] / 2**20:.0f} MiB, {grown:.3f} of what it was halfway")
    print(f"warnings: {collected.messages or 'none'}")
    lost = covers - account.done
    if lost or charged != covers or account.forged or grown > FLAT or collected.messages:
        sys.exit("the soak test failed")


if __name__ == "__main__":
    main()
