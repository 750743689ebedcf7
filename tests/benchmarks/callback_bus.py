"""Callbacks over three processes: how soon they reach the others, and what a cut connection loses.

Needs redis-server. Each process has a web server, an inbox and a bus. Callbacks are posted to them
in turn, at a steady rate, over one connection each. The latency is the time from the start of a
POST until a listener in another process is called, at 50 callbacks a second. At 300 a second it is
counted what is lost: undisturbed, when all connections to Redis are cut by CLIENT KILL, twice, and
when Redis is killed and comes back empty after three seconds.
Run `python tests/benchmarks/callback_bus.py`; it takes a minute.
"""

import asyncio
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory

from aiohttp import ClientSession, web
from attrs import define, field
from redis.asyncio import Redis

from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.fleet import CallbackBus

PROCESSES = 3
# Callbacks, and how many of them in a second: for the latency, and for what is lost.
CALM, BUSY = (500, 50.0), (1500, 300.0)
# Seconds after the last POST until the processes are asked for what they have received.
PATIENCE = 6.0


async def run_process(redis_url: str) -> None:
    """Serve callbacks, and at the end print each id with the time at which it arrived."""
    inbox, received = CallbackInbox(), list[str]()

    def note(task_id: str, _: str | None) -> None:
        received.append(f"{task_id} {time.monotonic()}")

    inbox.subscribe_unknown(note)
    app = web.Application()
    app.add_routes(inbox.routes("/"))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    async with CallbackBus(redis_url, inbox):
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    await runner.cleanup()
    print(*received, sep="\n")


@define
class Process:
    process: asyncio.subprocess.Process
    port: int

    async def end(self) -> dict[str, float]:
        """Return the time at which each callback arrived first."""
        output, _ = await self.process.communicate(b"\n")
        times: dict[str, float] = {}
        for task_id, received in map(str.split, output.decode().splitlines()):
            times.setdefault(task_id, float(received))
        return times


@define
class Server:
    """A Redis server of this benchmark's own that keeps nothing."""

    folder: str
    port: int = field(init=False)
    process: subprocess.Popen[bytes] | None = None

    def __attrs_post_init__(self) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port = bound.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            sys.exit("needs redis-server: apt-get install redis-server")
        options = ("--port", str(self.port), "--save", "", "--dir", self.folder)
        self.process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


async def leave_alone(_: Server) -> None:
    """Let the callbacks pass undisturbed."""


async def cut_connections(server: Server) -> None:
    async with Redis.from_url(server.url) as client:
        for _ in range(2):
            await asyncio.sleep(BUSY[0] / BUSY[1] / 3)
            await client.client_kill_filter(_type="normal", skipme=True)


async def kill_server(server: Server) -> None:
    await asyncio.sleep(BUSY[0] / BUSY[1] / 3)
    server.kill()
    await asyncio.sleep(3.0)
    server.start()


@asynccontextmanager
async def processes(server: Server) -> AsyncIterator[list[Process]]:
    command = (sys.executable, __file__, server.url)
    started = []
    for _ in range(PROCESSES):
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        started.append(Process(process, int(await process.stdout.readline())))
    yield started


async def post_all(ports: list[int], count: int, rate: float) -> dict[str, tuple[int, float]]:
    """Return for each id the process to which it was posted, and when."""
    posted: dict[str, tuple[int, float]] = {}
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with ClientSession() as session:
        for number in range(count):
            await asyncio.sleep(began + number / rate - loop.time())
            to, task_id = number % PROCESSES, f"cover-{number}"
            posted[task_id] = to, time.monotonic()
            body = {"code": 200, "data": {"taskId": task_id}}
            async with session.post(f"http://127.0.0.1:{ports[to]}/", json=body) as response:
                response.raise_for_status()
    return posted


@define
class Result:
    posted: dict[str, tuple[int, float]]
    received: list[dict[str, float]]

    def latencies(self, *, elsewhere: bool) -> list[float]:
        """Return the seconds until each callback arrived, in other processes or in its own."""
        return [
            times[task_id] - at
            for task_id, (to, at) in self.posted.items()
            for number, times in enumerate(self.received)
            if (number != to) is elsewhere and task_id in times
        ]

    def print_lost(self, name: str) -> None:
        expected = len(self.posted) * (PROCESSES - 1)
        lost = expected - len(self.latencies(elsewhere=True))
        print(f"{name}: {lost} of {len(self.posted):,} callbacks to two other processes lost")

    def print_latency(self) -> None:
        latencies = self.latencies(elsewhere=True)
        *_, late = statistics.quantiles(latencies, n=100)
        own = statistics.median(self.latencies(elsewhere=False))
        middle = statistics.median(latencies)
        print(f"POST to another process: median {middle * 1000:.1f} ms", end=" ")
        print(f"({own * 1000:.1f} to its own)", end=", ")
        print(f"99th percentile {late * 1000:.1f}, maximum {max(latencies) * 1000:.0f}")


async def run(count: int, rate: float, disturb: Callable[[Server], Awaitable[None]]) -> Result:
    with TemporaryDirectory() as folder:
        server = Server(folder)
        server.start()
        async with processes(server) as started:
            ports = [each.port for each in started]
            posted, _ = await asyncio.gather(post_all(ports, count, rate), disturb(server))
            await asyncio.sleep(PATIENCE)
            received = [await each.end() for each in started]
        server.kill()
    return Result(posted, received)


async def main() -> None:
    (await run(*CALM, leave_alone)).print_latency()
    (await run(*BUSY, leave_alone)).print_lost("undisturbed")
    (await run(*BUSY, cut_connections)).print_lost("connections cut twice")
    (await run(*BUSY, kill_server)).print_lost("Redis killed, back empty after 3 s")


if __name__ == "__main__":
    asyncio.run(run_process(sys.argv[1]) if len(sys.argv) > 1 else main())
