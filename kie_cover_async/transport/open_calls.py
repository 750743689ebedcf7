"""The calls that a client has under way, and their end when it closes."""

import asyncio
from collections.abc import Callable
from functools import partial

from kie_cover_async.cancel_scope import CancelScope
from kie_cover_async.errors import ClientClosedError


class OpenCalls:
    """End the running calls on closing, and refuse a second event loop."""

    def __init__(self) -> None:
        self.closed: bool = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scopes: set[CancelScope] = set()
        # Called for every call, so it is the set's own method.
        self.enter: Callable[[CancelScope], object] = self._scopes.add
        self._left = asyncio.Event()

    def scope(self, task_id: str | None = None) -> CancelScope:
        """Return a block around a public call: closing ends it with `ClientClosedError`.

        The error has the id: it may be all that is left of what was paid for.

        Raises `ClientClosedError` if the client is closed, `RuntimeError` on a second event loop.
        """
        if self.closed:
            raise ClientClosedError(task_id=task_id)
        self.check_loop()
        return CancelScope(self, partial(ClientClosedError, task_id=task_id))

    def check_loop(self) -> None:
        """Raise `RuntimeError` if the running loop is another than at first."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise RuntimeError(
                    "this CoverClient belongs to another event loop; make one for each"
                )
            self._loop = loop

    def leave(self, scope: CancelScope) -> None:
        """Forget a call that is over; `aclose` may be waiting for that."""
        self._scopes.discard(scope)
        if self.closed:
            self._left.set()

    def close(self) -> None:
        """Let no call begin any more, and end all that run but those of this very task."""
        if not self.closed:
            self.check_loop()
        self.closed = True
        for scope in self._scopes:
            if scope.task is not asyncio.current_task():
                scope.end()

    async def wait_for_others(self) -> None:
        """Wait until no other task is in a call."""
        this_task = asyncio.current_task()
        while any(scope.task is not this_task for scope in self._scopes):
            self._left.clear()
            await self._left.wait()

    def end_own_calls(self) -> None:
        """End the calls in which closing itself runs: a client closed by an `on_update`.

        They are cancelled at their next await, so this comes last.
        """
        for scope in self._scopes:
            scope.end()
