import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kie_cover_async import CoverClient, CoverDetails, RateLimiter, RetryPolicy
from kie_cover_async.archive import CoverArchive
from kie_cover_async.emulator import CoverEmulator, CoverScript

KEY = "sk-0f1e2d3c4b5a6978"

Open = Callable[..., Awaitable[CoverArchive]]
Cover = Callable[..., Awaitable[CoverDetails]]


@pytest.fixture
async def emulator() -> AsyncIterator[CoverEmulator]:
    async with CoverEmulator() as emulator:
        yield emulator


@pytest.fixture
async def connect(emulator: CoverEmulator) -> AsyncIterator[Callable[[], CoverClient]]:
    """A function that creates clients of the emulator, which are closed at the end."""
    async with AsyncExitStack() as stack:

        def connect() -> CoverClient:
            client = CoverClient(
                KEY,
                base_url=emulator.url,
                retry=RetryPolicy(initial_delay=0.01, max_delay=0.02),
                rate_limiter=RateLimiter.unlimited(),
            )
            stack.push_async_callback(client.aclose)
            return client

        yield connect


@pytest.fixture
async def client(connect: Callable[[], CoverClient]) -> CoverClient:
    return connect()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """A function that opens archives, by default on one folder, which are closed at the end."""
    async with AsyncExitStack() as stack:

        async def opened(folder: Path = tmp_path / "covers", **settings: Any) -> CoverArchive:
            return await stack.enter_async_context(CoverArchive(folder, **settings))

        yield opened


@pytest.fixture
async def archive(opened: Open) -> CoverArchive:
    return await opened()


@pytest.fixture
async def cover(emulator: CoverEmulator, client: CoverClient) -> Cover:
    """A function that creates a finished cover; its requests are not counted."""

    async def cover(task_id: str | None = None, **script: Any) -> CoverDetails:
        job = emulator.add_job(CoverScript(statuses=["success"], **script), task_id=task_id)
        details = await client.get_cover_details(job)
        emulator.requests.clear()
        return details

    return cover


@pytest.fixture
def small_disk() -> Callable[[], AbstractContextManager[None]]:
    """A context manager inside which no file grows beyond 100 kB."""

    @contextmanager
    def small_disk() -> Iterator[None]:
        limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))

    return small_disk


@pytest.fixture
def parts(tmp_path: Path) -> Callable[[], list[Path]]:
    """A function that returns the part files in the folder."""
    return lambda: [*(tmp_path / "covers").glob(".*.part")]
