import asyncio
import resource
import signal
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from hypothesis import settings

from kie_cover_async.api import ROUTES

pytest_plugins = [
    "_kie_cover_async_pytest",
    "pytester",
    "support.leak_check",
    "support.virtual_time",
]

# Two busy cores make a deadline per example a matter of luck, and a red run has to be repeatable.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
# For the session of this name in noxfile.py.
settings.register_profile("thorough", deadline=None, max_examples=3000, database=None)
settings.load_profile("repeatable")

# A run in the background ignores SIGINT, and all processes that it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs the test once for each route, which every client without one of its own takes."""
    monkeypatch.setenv("KIE_ROUTE", request.param)
    return request.param


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Return a function that waits until a condition is true, by polling it."""

    async def eventually(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.005)

    return eventually


@pytest.fixture
def open_files() -> Callable[[int], AbstractContextManager[None]]:
    """A block in which this process may open no file beyond so many; open ones stay open."""

    @contextmanager
    def open_files(limit: int) -> Iterator[None]:
        before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))

    return open_files


@pytest.fixture
def bounded() -> Iterator[None]:
    """Measures the test, peer and all: whatever is sent, few MiB of it are held."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 << 20
