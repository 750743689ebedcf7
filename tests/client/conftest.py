from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import ClientSession
from support.raw_peer import REQUEST, RawPeer, Step

from kie_cover_async import CoverClient, ExponentialSchedule, RateLimiter, RetryPolicy
from kie_cover_async.emulator import CoverEmulator

KEY = "sk-0f1e2d3c4b5a6978"
QUICK_SETTINGS: dict[str, Any] = {
    "request_timeout": 5.0,
    "submit_timeout": 5.0,
    "retry": RetryPolicy(initial_delay=0.02, max_delay=0.05),
    "schedule": ExponentialSchedule(initial_delay=0.02, max_delay=0.05),
}

Emulate = Callable[..., Awaitable[CoverEmulator]]
Connect = Callable[..., CoverClient]
MakeSession = Callable[..., ClientSession]
Play = Callable[..., Awaitable[RawPeer]]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What is entered here is left when the test ends, the last first."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def emulate(stack: AsyncExitStack) -> Emulate:
    """Starts an emulator with the given settings."""

    async def emulate(**settings: Any) -> CoverEmulator:
        return await stack.enter_async_context(CoverEmulator(**settings))

    return emulate


@pytest.fixture
async def emulator(emulate: Emulate) -> CoverEmulator:
    return await emulate(generation_time=0.1)


@pytest.fixture
async def play(stack: AsyncExitStack) -> Play:
    """Starts a peer that follows the scripts, each after a first request."""

    async def play(*scripts: Iterable[Step]) -> RawPeer:
        return await stack.enter_async_context(RawPeer.of(*([REQUEST, *each] for each in scripts)))

    return play


@pytest.fixture
async def connect(stack: AsyncExitStack) -> Connect:
    """Makes a client of a server, quicker in everything than by default, and closes it."""

    def connect(server: CoverEmulator | RawPeer, **settings: Any) -> CoverClient:
        settings = {
            "rate_limiter": RateLimiter.unlimited(),
            "submit_rate_limiter": RateLimiter.unlimited(),
            **QUICK_SETTINGS,
            **settings,
        }
        client = CoverClient(KEY, base_url=server.url, **settings)
        stack.push_async_callback(client.aclose)
        return client

    return connect


@pytest.fixture
async def client(connect: Connect, emulator: CoverEmulator) -> CoverClient:
    return connect(emulator)


@pytest.fixture
async def make_session(stack: AsyncExitStack) -> MakeSession:
    """Makes a session that stays its maker's, who closes it when the test ends."""

    def make_session(**settings: Any) -> ClientSession:
        session = ClientSession(**settings)
        stack.push_async_callback(session.close)
        return session

    return make_session
