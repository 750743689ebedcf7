"""Virtual time, for tests without sockets and threads.

A test or a module marked `virtual_time` runs on an `InstantTimeLoop` whose clock starts at 0. If no
timer is set, so that the test could only hang, it fails. Sockets and threads are errors: external
events do not wait for a clock that jumps.
"""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kie_cover_async.testing import InstantTimeLoop, JumpingClock


def now() -> float:
    """Return the time of the running loop, in seconds."""
    return asyncio.get_running_loop().time()


class Deadlock(Exception):
    """Every task waits, and no timer is set that could wake one."""


class _TimersOnly(JumpingClock):
    """A clock that allows neither sockets nor waiting without a timer."""

    def __init__(self, loop: InstantTimeLoop) -> None:
        super().__init__(loop)
        self.now = self.started = self._checked = 0.0

    def register(self, *args: Any) -> selectors.SelectorKey:
        if self.get_map():  # the first file is the loop's own, by which signals wake it
            raise RuntimeError("a socket was opened in virtual time")
        return super().register(*args)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            waiting = [repr(task) for task in asyncio.all_tasks(self._loop)]
            raise Deadlock("\n".join(["no timer is set, and these wait:", *waiting]))
        return super().select(timeout)


class VirtualTimeLoop(InstantTimeLoop):
    _clock_type = _TimersOnly

    def advance(self, seconds: float) -> None:
        """Move the clock as if the running callback took this long."""
        self._clock.now += seconds

    def run_in_executor(self, *_: Any) -> asyncio.Future[Any]:
        raise RuntimeError("a thread was started in virtual time")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "virtual_time: the clock jumps from timer to timer.")


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    virtual = item.get_closest_marker("virtual_time") is not None
    return {"loop": VirtualTimeLoop if virtual else asyncio.new_event_loop}
