"""Looks at ids, joined while they are in flight."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime
from functools import partial
from typing import Protocol

from attrs import define

from kie_cover_async.errors import KieCoverError
from kie_cover_async.inbox import Inbox
from kie_cover_async.models import CoverDetails


@define(eq=False)
class Sighting:
    """A record as it was seen: `served_at` by the server's clock, `heard_at` by `loop.time()`."""

    details: CoverDetails
    served_at: datetime | None
    heard_at: float


Heard = Sighting | KieCoverError

OnSent = Callable[[], object]

# Makes one request, in the turns of a flow; calls its second argument when the budget lets it go.
Look = Callable[[str, OnSent, Hashable], Awaitable[Sighting]]


class Listener(Protocol):
    """Who hears of every look at an id, whoever makes it."""

    def hear(self, heard: Heard) -> None:
        """What a look brought."""

    def look_leaves(self) -> None:
        """That a look has left."""


def nothing() -> None:
    """Nobody asks when this look leaves."""


class _Flight:
    """A look in flight: the future of what it brings, and who wants to know that it has left."""

    __slots__ = ("_ended", "_flow", "_on_sent", "has_left")

    def __init__(self, on_sent: OnSent, flow: Hashable) -> None:
        self.has_left = False
        self._flow = flow
        self._on_sent = [on_sent]
        self._ended: asyncio.Future[Heard | None] | None = None  # most looks are joined by nobody

    def leave(self) -> None:
        self.has_left = True
        for on_sent in self._on_sent:
            on_sent()

    def serves(self, flow: Hashable) -> bool:
        """Whether to wait for it is no worse than to make a look of one's own.

        One of a bulk call may have ten thousand others before it; a single call has not.
        """
        return self.has_left or self._flow is None or flow is not None

    async def join(self, on_sent: OnSent) -> Heard | None:
        """What it brought; `None` where whoever made it was cancelled, or failed by a bug."""
        self._on_sent.append(on_sent)
        if self.has_left:
            on_sent()
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        try:
            # The future is everybody's: cancelling one who waits for it must not cancel it.
            return await asyncio.shield(self._ended)
        finally:
            # Who is gone is not to be called: what it would do may be possible no more.
            self._on_sent.remove(on_sent)

    def end(self, heard: Heard | None) -> None:
        if self._ended is not None:
            self._ended.set_result(heard)


class SharedLooks:
    """Looks at ids, at most one request in flight for each.

    Whoever comes first makes the request, in its own task; the others wait for it. If that task is
    cancelled, the first of the others makes the request anew, so nobody depends on anybody's life
    and there are no tasks of our own to be left behind.
    """

    def __init__(self, look: Look, inbox: Inbox | None = None) -> None:
        self._look = look
        self.inbox = inbox
        self._flights: dict[str, _Flight] = {}
        self.ears: dict[str, list[Listener]] = {}

    async def look(self, task_id: str, on_sent: OnSent = nothing, flow: Hashable = None) -> Heard:
        """What a look brought: a sighting, or an error of one's own, returned and not raised.

        `on_sent` is called once, when the first request that serves this look has left.
        """
        while (flight := self._flights.get(task_id)) is not None and flight.serves(flow):
            if (heard := await flight.join(on_sent)) is not None:
                return _own(heard)
            if flight.has_left:
                on_sent = nothing
        return await self._lead(task_id, on_sent, flow)

    async def _lead(self, task_id: str, on_sent: OnSent, flow: Hashable) -> Heard:
        flight = self._flights[task_id] = _Flight(on_sent, flow)
        leave = flight.leave if self.inbox is None else partial(self._leave, task_id, flight)
        heard: Heard | None = None
        try:
            heard = await self._look(task_id, leave, flow)
        except KieCoverError as error:
            heard = error
        finally:
            # A single call may have overtaken it, and is in its place.
            if self._flights.get(task_id) is flight:
                del self._flights[task_id]
            flight.end(heard)
        for ear in self.ears.get(task_id, ()):
            ear.hear(_own(heard))
        return heard

    def _leave(self, task_id: str, flight: _Flight) -> None:
        for ear in self.ears.get(task_id, ()):
            ear.look_leaves()
        flight.leave()


def _own(heard: Heard) -> Heard:
    """Errors are raised, and gather a traceback: each listener has one of its own."""
    return heard.copy() if isinstance(heard, KieCoverError) else heard
