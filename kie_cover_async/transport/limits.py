"""The limits that every request passes, and the calls that end when the client closes."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from math import inf
from typing import NamedTuple

from kie_cover_async.cancel_scope import CancelScope
from kie_cover_async.errors import ClientClosedError
from kie_cover_async.rate_limiter import ConcurrencyLimiter, RateLimiter

# The `loop.time()` after which the slot of this context's submit is old: if a stall made many
# requests late, they would now be sent in a burst.
SLOT_EXPIRES_AT: ContextVar[float] = ContextVar("SLOT_EXPIRES_AT", default=inf)
# Seconds, if the interval between two slots is shorter.
MIN_SLOT_AGE = 0.5


class Throttle(NamedTuple):
    """The limits of one kind of request, polls or submits; a request takes a place, then a slot.

    In a shared pool of places a hundred queued submits would delay every poll by a minute. A slot
    that was taken before a place would be out of date by the time a place is free, so a stall would
    end in a burst.
    """

    places: ConcurrencyLimiter
    limiter: RateLimiter


def share_places(
    connections: int, polls: int, submits: int
) -> tuple[ConcurrencyLimiter, ConcurrencyLimiter]:
    """Return the places for polls and for submits, at most as many as there are connections.

    If there are too few for both, a fifth is for submits; a single one serves either.
    """
    if connections == 1:
        place = ConcurrencyLimiter(1)
        return place, place
    if polls + submits > connections:
        submits = min(submits, max(connections // 5, 1))
        polls = min(polls, connections - submits)
    return ConcurrencyLimiter(polls), ConcurrencyLimiter(submits)


class OpenCalls:
    """End the running calls on closing, and refuse a second event loop."""

    def __init__(self) -> None:
        self.closed: bool = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scopes: set[CancelScope] = set()
        # Called for every call, so they are the set's own methods.
        self.enter: Callable[[CancelScope], object] = self._scopes.add
        self.leave: Callable[[CancelScope], object] = self._scopes.discard
        self._left = asyncio.Event()

    def scope(self, task_id: str | None = None) -> CancelScope:
        """Return a block around a public call: closing ends it with `ClientClosedError`.

        The error has the id: it may be all that is left of what was paid for.

        Raises:
            ClientClosedError: The client is closed.
            RuntimeError: The client belongs to another event loop.
        """
        if self.closed:
            raise ClientClosedError(task_id=task_id)
        if self._loop is not asyncio.get_running_loop():
            self._bind_loop()
        return CancelScope(self, partial(ClientClosedError, task_id=task_id))

    def close(self) -> None:
        """Refuse new calls, and end all running ones except those of this task."""
        if not self.closed:
            self._bind_loop()
        self.closed, self.leave = True, self._leave_closed
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

    def _bind_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise RuntimeError("this CoverClient belongs to another event loop; make one for each")
        self._loop = loop

    def _leave_closed(self, scope: CancelScope) -> None:
        self._scopes.discard(scope)
        self._left.set()
