"""One event loop, and an end: what a client's calls run in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kie_cover_async.errors import ClientClosedError


class Lifetime:
    """Knows the calls that are running, ends them on closing, and refuses a second event loop."""

    def __init__(self) -> None:
        self.closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[asyncio.Timeout, asyncio.Task[Any] | None] = {}
        self._left = asyncio.Event()

    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; raises `RuntimeError` where that is another than at first."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("this CoverClient belongs to another event loop; make one for each")
        return loop

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Around every public call: closing ends what is inside with `ClientClosedError`."""
        if self.closed:
            raise ClientClosedError
        self.loop()
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._calls[scope] = asyncio.current_task()
                yield
        except TimeoutError:
            if not scope.expired():
                raise
        finally:
            self._calls.pop(scope, None)
            self._left.set()
        if scope.expired():
            raise ClientClosedError

    def close(self) -> None:
        """Let no call begin any more, and end all that run but those of this very task."""
        if not self.closed:
            self.loop()
        self.closed = True
        for scope, task in self._calls.items():
            if task is not asyncio.current_task():
                self._end(scope)

    async def others_gone(self) -> None:
        """Wait until no other task is in a call."""
        this_task = asyncio.current_task()
        while any(task is not this_task for task in self._calls.values()):
            self._left.clear()
            await self._left.wait()

    def end_own_calls(self) -> None:
        """End the calls in which closing itself runs: a client closed by an `on_update`.

        They are cancelled at their next await, so this comes last.
        """
        for scope in self._calls:
            self._end(scope)

    def _end(self, scope: asyncio.Timeout) -> None:
        # Closing may be asked for twice, and a call that is ending must not be ended again.
        if scope.when() is None:
            scope.reschedule(self.loop().time())
