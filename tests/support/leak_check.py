"""Fails every test that leaves something behind, and names what it left.

After an async test, in its own loop: tasks that are not done, sockets that are open, errors that
were not retrieved and sessions that were not closed. After any other test: open sockets.
"""

import asyncio
import gc
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

_finished = count(1)


def open_sockets() -> set[tuple[int, int]]:
    """The descriptors of all sockets of this process, each with its inode: numbers are reused."""
    found = set()
    for descriptor in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        with suppress(OSError):  # the listing itself had a descriptor, now closed
            status = os.fstat(descriptor)
            if stat.S_ISSOCK(status.st_mode):
                found.add((descriptor, status.st_ino))
    return found


def describe(descriptor: int) -> str:
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return repr(copy).replace(f"fd={copy.fileno()}", f"fd={descriptor}")


@contextmanager
def nothing_left() -> Iterator[list[str]]:
    """Assert that nothing is left; the block may add findings to the list."""
    before = open_sockets()
    left: list[str] = []
    yield left
    left += [describe(descriptor) for descriptor, _ in sorted(open_sockets() - before)]
    if left:
        pytest.fail("\n".join(["left behind:", *left]), pytrace=False)


@pytest.fixture
async def _nothing_left_in_the_loop() -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    with nothing_left() as left:

        def on_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            left.append(", ".join(f"{name}: {value}" for name, value in context.items()))

        loop.set_exception_handler(on_error)
        yield
        gc.collect()
        left += [repr(task) for task in asyncio.all_tasks() - {asyncio.current_task()}]


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    if pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("_nothing_left_in_the_loop")
        yield
    else:
        with nothing_left():
            yield


def ignore_existing_objects() -> None:
    """Exclude what is alive now from later collections, which therefore stay short."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    ignore_existing_objects()


def pytest_runtest_logfinish() -> None:
    # pytest and the libraries keep more objects with each test.
    if next(_finished) % 20 == 0:
        ignore_existing_objects()
