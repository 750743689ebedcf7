import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from attrs import define, field, frozen

from kie_cover_async.emulator import CoverEmulator

KEY = {"Authorization": "Bearer a-key"}
RECORD = "/api/v1/suno/cover/record-info"
GENERATE = "/api/v1/suno/cover/generate"
CREDIT = "/api/v1/chat/credit"
DOWNLOAD = "/api/v1/common/download-url"


@frozen
class Caller:
    """An emulator and a session to call it with; each answer is its envelope."""

    emulator: CoverEmulator
    session: ClientSession

    async def record(self, task_id: str) -> dict[str, Any]:
        return await self.get(f"{RECORD}?taskId={task_id}")

    async def generate(self, song: str = "song", callback: str = "http://x") -> dict[str, Any]:
        return await self.post(GENERATE, {"taskId": song, "callBackUrl": callback})

    async def eventually(self, condition: Callable[[], bool]) -> None:
        """Let the server run until the condition is true."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0)

    async def get(self, path: str) -> dict[str, Any]:
        async with self.session.get(self.emulator.url + path, headers=KEY) as answer:
            return json.loads(await answer.read())

    async def post(self, path: str, body: Any) -> dict[str, Any]:
        async with self.session.post(self.emulator.url + path, json=body, headers=KEY) as answer:
            return json.loads(await answer.read())


@define
class Receiver:
    """Where callbacks go; `answers` are the statuses of the first ones, and 200 that of the rest.

    A status of 0 is silence, for as long as the other side will wait for.
    """

    url: str = ""
    answers: list[int] = field(factory=list)
    heard: list[tuple[float, web.Request, Any]] = field(factory=list)
    waiting: int = 0
    most_at_once: int = 0

    async def receive(self, request: web.Request) -> web.Response:
        self.waiting += 1
        self.most_at_once = max(self.waiting, self.most_at_once)
        try:
            body = json.loads(await request.read())
            self.heard.append((asyncio.get_running_loop().time(), request, body))
            status = self.answers.pop(0) if self.answers else 200
            if status == 0:
                await asyncio.get_running_loop().create_future()
        finally:
            self.waiting -= 1
        return web.Response(status=status, headers={"Location": self.url})

    @property
    def times(self) -> list[float]:
        return [time for time, _, _ in self.heard]

    @property
    def bodies(self) -> list[Any]:
        return [body for _, _, body in self.heard]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = web.Server(receiver.receive, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/covers"
    yield receiver
    await runner.cleanup()


Start = Callable[..., Awaitable[Caller]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Caller:
            emulator = await stack.enter_async_context(CoverEmulator(**settings))
            return Caller(emulator, await stack.enter_async_context(ClientSession()))

        yield start


@pytest.fixture
async def caller(start: Start) -> Caller:
    return await start()


@pytest.fixture
def recorded() -> Callable[[str], Any]:
    replies = Path(__file__).parent.parent / "replies"
    return lambda name: json.loads((replies / f"{name}.json").read_text("utf-8"))
