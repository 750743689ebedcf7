"""Deadlines that throw away nothing that has already arrived.

In one pass the event loop takes what its sockets hold, then runs the timers that are due; the tasks
that waited for the sockets run in the next pass. After the loop was blocked or the process was
stopped, a plain timer therefore cancels a task whose answer was read in that very pass, or is still
in the socket.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

# Seconds. To read what has arrived takes much less, even if thousands of tasks have to do it.
_MAX_GRACE = 1.0


class Deadline:
    """A timer that calls `end` when its time is up and the loop has read what had arrived by then.

    The loop gets as many seconds for that as the timer was late, up to one. If the timer is
    punctual, it gets two passes, in which the time stands still.

    Args:
        when: The time, in seconds of `loop.time()`.
        end: What to call, unless the deadline is cancelled before.
    """

    __slots__ = ("_end", "_handle", "_loop", "late", "when")

    def __init__(self, when: float, end: Callable[[], object]) -> None:
        self.when: float = when
        self.late: float = 0.0  # seconds, when the timer has fired
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle = self._loop.call_at(when, self._let_read)

    def cancel(self) -> None:
        """Call nothing, if that was not done yet."""
        self._handle.cancel()

    def _let_read(self) -> None:
        self.late = max(0.0, self._loop.time() - self.when)
        self._handle = self._loop.call_later(min(self.late, _MAX_GRACE), self._let_tasks_run)

    def _let_tasks_run(self) -> None:
        # A pass takes sockets before timers, so the tasks that they have woken run before this.
        self._handle = self._loop.call_soon(self._end)


class Timeout:
    """`asyncio.timeout_at`, with a `Deadline` as its timer.

    Args:
        when: The time, in seconds of `loop.time()`; `None` until `reschedule` sets one.
    """

    __slots__ = ("_deadline", "_scope", "_when")

    def __init__(self, when: float | None) -> None:
        self._when = when
        self._deadline: Deadline | None = None
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self.reschedule(self._when)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        await self._scope.__aexit__(kind, error, traceback)

    @property
    def late(self) -> float:
        """How many seconds after its time the timer fired; 0 if it did not."""
        return 0.0 if self._deadline is None else self._deadline.late

    def expired(self) -> bool:
        """Return whether the time was up before the block was left."""
        return self._scope.expired()

    def reschedule(self, when: float | None) -> None:
        """Set another time, or none, unless the time was up."""
        self._scope.reschedule(None)  # it may be about to end
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if when is None else Deadline(when, self._expire)

    def _expire(self) -> None:
        self._scope.reschedule(asyncio.get_running_loop().time())
