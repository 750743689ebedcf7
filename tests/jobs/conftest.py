from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.songs import Run

from kie_cover_async import CoverClient, ExponentialSchedule, RateLimiter, RetryPolicy
from kie_cover_async.archive import CoverArchive
from kie_cover_async.emulator import CoverEmulator

KEY = "sk-0f1e2d3c4b5a6978"


Begin = Callable[..., Any]


@pytest.fixture
async def emulator() -> AsyncIterator[CoverEmulator]:
    async with CoverEmulator(generation_time=0.05) as emulator:
        yield emulator


@pytest.fixture
async def begin(emulator: CoverEmulator, tmp_path: Path) -> AsyncIterator[Begin]:
    """A function that opens a client and an archive, as a new process would."""
    async with AsyncExitStack() as stack:

        async def begin(**settings: Any) -> Run:
            settings = {
                "base_url": emulator.url,
                "retry": RetryPolicy(initial_delay=0.01, max_delay=0.02),
                "schedule": ExponentialSchedule(initial_delay=0.02, max_delay=0.05),
                "rate_limiter": RateLimiter.unlimited(),
                "submit_rate_limiter": RateLimiter.unlimited(),
                **settings,
            }
            client = await stack.enter_async_context(CoverClient(KEY, **settings))
            archive = await stack.enter_async_context(CoverArchive(tmp_path / "covers"))
            return Run(client, archive)

        yield begin


@pytest.fixture
async def run(begin: Begin) -> Run:
    return await begin()
