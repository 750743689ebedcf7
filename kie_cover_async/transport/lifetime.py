"""One event loop, and an end: what a client's calls run in."""

import asyncio

from kie_cover_async.errors import ClientClosedError

from .cancel_scope import CancelScope


class Lifetime:
    """Knows the calls that are running, ends them on closing, and refuses a second event loop."""

    def __init__(self) -> None:
        self.closed: bool = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: set[CancelScope] = set()
        self._left = asyncio.Event()

    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; raises `RuntimeError` where that is another than at first."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("this CoverClient belongs to another event loop; make one for each")
        return loop

    def call(self, task_id: str | None = None) -> CancelScope:
        """A block around every public call: closing ends it with `ClientClosedError`.

        The error has the id: it may be all that is left of what was paid for.
        """
        if self.closed:
            raise ClientClosedError(task_id=task_id)
        self.loop()
        return CancelScope(lambda: ClientClosedError(task_id=task_id), self)

    def begin(self, scope: CancelScope) -> None:
        """A call to be ended on closing."""
        self._calls.add(scope)

    def leave(self, scope: CancelScope) -> None:
        """A call that is over; whoever closes may be waiting for that."""
        self._calls.discard(scope)
        if self.closed:
            self._left.set()

    def close(self) -> None:
        """Let no call begin any more, and end all that run but those of this very task."""
        if not self.closed:
            self.loop()
        self.closed = True
        for call in self._calls:
            if call.task is not asyncio.current_task():
                call.end()

    async def others_gone(self) -> None:
        """Wait until no other task is in a call."""
        this_task = asyncio.current_task()
        while any(call.task is not this_task for call in self._calls):
            self._left.clear()
            await self._left.wait()

    def end_own_calls(self) -> None:
        """End the calls in which closing itself runs: a client closed by an `on_update`.

        They are cancelled at their next await, so this comes last.
        """
        for call in self._calls:
            call.end()
