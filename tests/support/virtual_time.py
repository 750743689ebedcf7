"""Time that a test does not wait for.

A test or a module marked `virtual_time` runs on a loop whose clock starts at 0, stands still while
there is anything to do, and then jumps to the very moment of the next timer. Where nothing is
scheduled at all, so that the test could only hang, it fails. There are no sockets in virtual time,
and no threads: what comes from outside does not wait for a clock that jumps.
"""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any

import pytest


def now() -> float:
    """Seconds on the running loop's clock."""
    return asyncio.get_running_loop().time()


class Deadlock(Exception):
    """Every task waits, and no timer is set that could wake one."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_TimersOnly(self))

    def time(self) -> float:
        return self._now

    def jump(self) -> None:
        # The timer's own moment: adding up the waits before it would add up rounding, too.
        self._now = self._scheduled[0].when()

    def run_in_executor(self, *_: Any) -> asyncio.Future[Any]:
        raise RuntimeError("a thread was started in virtual time")


class _TimersOnly(selectors.DefaultSelector):
    """Stands where the loop would wait for sockets or for the next timer, and waits for neither."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def register(self, *args: Any) -> selectors.SelectorKey:
        if self.get_map():  # the first is the loop's own, by which signals wake it
            raise RuntimeError("a socket was opened in virtual time")
        return super().register(*args)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            waiting = [repr(task) for task in asyncio.all_tasks(self._loop)]
            raise Deadlock("\n".join(["no timer is set, and these wait:", *waiting]))
        if timeout > 0:
            self._loop.jump()
        return super().select(0)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "virtual_time: the clock jumps from timer to timer.")


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    virtual = item.get_closest_marker("virtual_time") is not None
    return {"loop": VirtualTimeLoop if virtual else asyncio.new_event_loop}
