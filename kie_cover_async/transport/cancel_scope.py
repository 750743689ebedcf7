"""Parts of a task that can be ended from outside without ending the task.

What `asyncio.timeout` does, with its books of cancellation, but without a timer for each: hundreds
of requests in flight share one, and a call that ends when its client is closed needs none at all.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from kie_cover_async.deadline import Deadline


class Keeper(Protocol):
    """Who ends scopes, and so has to know which there are."""

    def begin(self, scope: "CancelScope") -> None:
        """A scope is entered."""

    def leave(self, scope: "CancelScope") -> None:
        """A scope is left, in whatever way."""


class CancelScope:
    """A block of the current task, which raises `ended_by()` when its keeper ends it."""

    __slots__ = ("_cancelling", "_ended", "_keeper", "_left", "ended_by", "task")

    ended_by: Callable[[], Exception]
    task: asyncio.Task[Any]

    def __init__(self, ended_by: Callable[[], Exception], keeper: Keeper) -> None:
        self.ended_by = ended_by
        self._keeper = keeper
        self._ended = self._left = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call has to be awaited inside a task")
        self.task = task
        self._cancelling = task.cancelling()
        self._keeper.begin(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left = True
        self._keeper.leave(self)
        if not self._ended:
            return
        # Somebody else's cancellation beside ours is not to be taken back.
        alone = self.task.uncancel() <= self._cancelling
        if alone and kind is asyncio.CancelledError:
            raise self.ended_by() from None

    def end(self) -> None:
        """Cancel what the block awaits; does nothing a second time, or after the block."""
        if self._ended or self._left:
            return
        if asyncio.current_task() is self.task:
            # It is running, and may leave the block before it awaits anything.
            self.task.get_loop().call_soon(self.end)
            return
        self._ended = True
        self.task.cancel()


class SharedTimeout:
    """Scopes that all get the same time, and one timer for the first of them to end."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[CancelScope, float] = {}
        self._timer: Deadline | None = None

    def scope(self, ended_by: Callable[[], Exception] = TimeoutError) -> CancelScope:
        """A block that raises `ended_by()` when its time is up."""
        return CancelScope(ended_by, self)

    def begin(self, scope: CancelScope) -> None:
        """Its time counts from now."""
        self._ends[scope] = end = scope.task.get_loop().time() + self._seconds
        if self._timer is None:
            self._timer = Deadline(end, self._serve)

    def leave(self, scope: CancelScope) -> None:
        """Its time matters no more."""
        del self._ends[scope]

    def cancel(self) -> None:
        """Drop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _serve(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for scope, end in self._ends.items():
            if end > now:
                self._timer = Deadline(end, self._serve)
                return
            scope.end()
