"""Blocks of a task that can be ended from outside, at a deadline or when a client closes.

`asyncio.timeout` would need a timer for each request, and throws away an answer that has arrived:
in one pass the event loop reads its sockets and then runs the timers that are due; the tasks that
waited for the sockets run in the next pass. After the loop was blocked or the process
was stopped, a plain timer therefore cancels a task whose answer was read in that very pass, or is
still in the socket. The deadlines here let the loop read first.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, Self

# Seconds. To read what has arrived takes much less, even if thousands of tasks have to do it.
_MAX_GRACE = 1.0


class ScopeOwner(Protocol):
    """Keeps the scopes that it may end."""

    def enter(self, scope: "CancelScope", /) -> object:
        """Note a scope that was entered."""

    def leave(self, scope: "CancelScope", /) -> object:
        """Forget a scope that was left."""


class CancelScope:
    """A block of the current task that `end` cancels; it then raises `error()`.

    Args:
        owner: May end the block.
        error: Makes the error; `None` lets the task go on after the block.
    """

    __slots__ = ("_cancelling", "_error", "_is_left", "_owner", "is_ended", "task")

    task: asyncio.Task[Any]

    def __init__(
        self,
        owner: ScopeOwner | None = None,
        error: Callable[[], Exception] | None = TimeoutError,
    ) -> None:
        self._owner = owner
        self._error = error
        self._is_left = False
        self.is_ended: bool = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call has to be awaited inside a task")
        self.task = task
        self._cancelling = task.cancelling()
        if self._owner is not None:
            self._owner.enter(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> bool | None:
        self._is_left = True
        if self._owner is not None:
            self._owner.leave(self)
        # A cancellation by others, at the same time as ours, must not be taken back.
        if (
            not self.is_ended
            or self.task.uncancel() > self._cancelling
            or kind is not asyncio.CancelledError
        ):
            return None
        if self._error is None:
            return True
        raise self._error() from None

    def end(self) -> None:
        """Cancel the block; do nothing a second time, or after the block."""
        if self.is_ended or self._is_left:
            return
        if asyncio.current_task() is self.task:
            # It is running, and may leave the block before it awaits anything.
            self.task.get_loop().call_soon(self.end)
            return
        self.is_ended = True
        self.task.cancel()


class Deadline:
    """A timer that calls `end` when its time is up and the loop has read what had arrived by then.

    The loop gets as many seconds for that as the timer was late, up to one. If the timer is
    punctual, it gets two passes, in which the time stands still.

    Args:
        when: The time, in seconds of `loop.time()`.
        end: Called unless the deadline is cancelled before.
    """

    __slots__ = ("_end", "_handle", "_loop", "late", "when")

    def __init__(self, when: float, end: Callable[[], object]) -> None:
        self.when: float = when
        self.late: float = 0.0
        """By how many seconds the timer fired too late."""
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle = self._loop.call_at(when, self._let_read)

    def cancel(self) -> None:
        """Do not call `end`, unless it was called already."""
        self._handle.cancel()

    def _let_read(self) -> None:
        self.late = max(0.0, self._loop.time() - self.when)
        self._handle = self._loop.call_later(min(self.late, _MAX_GRACE), self._let_tasks_run)

    def _let_tasks_run(self) -> None:
        # A pass reads sockets before it runs timers, so the tasks that it wakes run before this.
        self._handle = self._loop.call_soon(self._end)


class Timeout(CancelScope):
    """A block that ends at a `Deadline` without an error, as in trio's `move_on_at`.

    Args:
        when: The time, in seconds of `loop.time()`; `None` until `reschedule` sets one.
    """

    __slots__ = ("_deadline", "_when")

    def __init__(self, when: float | None = None) -> None:
        super().__init__(error=None)
        self._when = when
        self._deadline: Deadline | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        self.reschedule(self._when)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> bool:
        if self._deadline is not None:
            self._deadline.cancel()
        return bool(super().__exit__(kind, *error))

    @property
    def late(self) -> float:
        """By how many seconds the timer fired too late; 0 if it did not fire."""
        return 0.0 if self._deadline is None else self._deadline.late

    def reschedule(self, when: float | None) -> None:
        """Set another time, or none; do nothing if the time was up."""
        if not self.is_ended:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = None if when is None else Deadline(when, self.end)


class SharedTimeout:
    """The owner of scopes that all get the same number of seconds, with one timer for all."""

    def __init__(self, seconds: float) -> None:
        self.seconds: float = seconds
        self._ends: dict[CancelScope, float] = {}
        # Called for every request, so it is the dict's own method.
        self.leave: Callable[[CancelScope], object] = self._ends.pop
        self._timer: Deadline | None = None

    def enter(self, scope: CancelScope) -> None:
        """Let the block's time count from now."""
        self._ends[scope] = end = scope.task.get_loop().time() + self.seconds
        if self._timer is None:
            self._timer = Deadline(end, self._end_due)

    def cancel(self) -> None:
        """Drop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _end_due(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for scope, end in self._ends.items():
            if end > now:
                self._timer = Deadline(end, self._end_due)
                return
            scope.end()
