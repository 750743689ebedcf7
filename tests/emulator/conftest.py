import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from attrs import frozen

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

    async def until(self, condition: Callable[[], bool]) -> None:
        """Lets the server run until it has come this far."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)

    async def get(self, path: str) -> dict[str, Any]:
        async with self.session.get(self.emulator.url + path, headers=KEY) as answer:
            return json.loads(await answer.read())

    async def post(self, path: str, body: Any) -> dict[str, Any]:
        async with self.session.post(self.emulator.url + path, json=body, headers=KEY) as answer:
            return json.loads(await answer.read())


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
