"""Looks at ids, joined while they are in flight."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime
from functools import partial
from math import inf
from typing import Protocol

from attrs import define

from kie_cover_async.errors import KieCoverError
from kie_cover_async.inbox import Inbox
from kie_cover_async.models import CoverDetails
from kie_cover_async.turns import Ticket, WithdrawnError


@define(eq=False)
class Sighting:
    """A record as it was seen: `served_at` by the server's clock, `heard_at` by `loop.time()`."""

    details: CoverDetails
    served_at: datetime | None
    heard_at: float


Heard = Sighting | KieCoverError

OnSent = Callable[[], object]

# Makes one request, which queues with this ticket; calls its second argument when it leaves.
Look = Callable[[str, OnSent, Ticket], Awaitable[Sighting]]


class Listener(Protocol):
    """Who hears of every look at an id, whoever makes it."""

    def hear(self, heard: Heard) -> None:
        """What a look brought."""

    def look_leaves(self) -> None:
        """That a look has left."""

    def look_is_lost(self) -> None:
        """That a look was cancelled, and nobody hears what it brings."""


def nothing() -> None:
    """Nobody asks when this look leaves."""


class _Flight:
    """A look on its way: who wants to know that it has left, and the future of what it brings."""

    __slots__ = ("_ended", "_on_sent", "has_left", "instead", "ticket")

    def __init__(self, on_sent: OnSent, ticket: Ticket) -> None:
        self.has_left = False
        self.ticket = ticket
        self.instead: asyncio.Future[Heard | None] | None = None
        self._on_sent = [on_sent]
        self._ended: asyncio.Future[Heard | None] | None = None  # most looks are joined by nobody

    def leave(self) -> None:
        self.has_left = True
        for on_sent in self._on_sent:
            on_sent()

    def serves(self, flow: Hashable) -> bool:
        """Whether to wait for it is no worse than to make a look of one's own.

        A queued one of the waits, or of a bulk call, may have ten thousand others of its flow
        before it, which no other call is to queue behind; a single call has none.
        """
        return self.has_left or self.ticket.flow is None or self.ticket.flow == flow

    def give_way_to(self, other: "_Flight") -> None:
        """Another look at the same id has left, and brings what this one would."""
        self.instead = other.brings()
        self.ticket.withdraw()
        self.leave()

    async def join(self, on_sent: OnSent) -> Heard | None:
        """What it brought; `None` where whoever made it was cancelled, or failed by a bug."""
        self._on_sent.append(on_sent)
        if self.has_left:
            on_sent()
        try:
            # The future is everybody's: cancelling one who waits for it must not cancel it.
            return await asyncio.shield(self.brings())
        finally:
            # Who is gone is not to be called: what it would do may be possible no more.
            self._on_sent.remove(on_sent)

    async def other(self) -> Heard | None:
        """What the look brought that this one gave way to."""
        return None if self.instead is None else await asyncio.shield(self.instead)

    def end(self, heard: Heard | None) -> None:
        if self._ended is not None:
            self._ended.set_result(heard)

    def brings(self) -> asyncio.Future[Heard | None]:
        """What comes of it, when it does."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        return self._ended


class SharedLooks:
    """Looks at ids, at most one request in flight for each.

    Whoever comes first makes the request, in its own task; the others wait for it. If that task is
    cancelled, the first of the others makes the request anew, so nobody depends on anybody's life
    and there are no tasks of our own to be left behind.

    Requests at one id may queue in several flows. When one of them leaves, the others queue no
    longer, and share what it brings.
    """

    def __init__(self, look: Look, inbox: Inbox | None = None) -> None:
        self._look = look
        self.inbox = inbox
        self._flights: dict[str, list[_Flight]] = {}
        self.ears: dict[str, list[Listener]] = {}

    async def look(
        self,
        task_id: str,
        on_sent: OnSent = nothing,
        flow: Hashable = None,
        *,
        due: float = 0.0,
    ) -> Heard:
        """What a look brought: a sighting, or an error of one's own, returned and not raised.

        `on_sent` is called once, when the first request that serves this look has left. Those of
        one flow queue in the order in which they are `due`.
        """
        heard = None
        while heard is None:
            flight = self._serving(task_id, flow)
            if flight is None:
                flight = _Flight(on_sent, Ticket(flow, due=due))
                heard = await self._lead(task_id, flight)
            else:
                heard = await flight.join(on_sent)
            if flight.has_left:
                on_sent = nothing
            # If that look was lost, another one must not queue behind all others again.
            due = -inf
        return _own(heard)

    def hurry(self, task_id: str) -> None:
        """Let the looks at this id that are queued go before others of their flow."""
        for flight in self._flights.get(task_id, ()):
            flight.ticket.hurry()

    def _serving(self, task_id: str, flow: Hashable) -> _Flight | None:
        for flight in self._flights.get(task_id, ()):
            if flight.serves(flow):
                return flight
        return None

    async def _lead(self, task_id: str, flight: _Flight) -> Heard | None:
        heard: Heard | None = None
        self._flights.setdefault(task_id, []).append(flight)
        try:
            heard = await self._look(task_id, partial(self._leave, task_id, flight), flight.ticket)
        except KieCoverError as error:
            heard = error
        except WithdrawnError:
            heard = await flight.other()
        finally:
            self._end(task_id, flight, heard)
        return heard

    def _end(self, task_id: str, flight: _Flight, heard: Heard | None) -> None:
        flights = self._flights[task_id]
        flights.remove(flight)
        if not flights:
            del self._flights[task_id]
        flight.end(heard)
        if flight.instead is None:
            self._tell(task_id, heard)

    def _leave(self, task_id: str, flight: _Flight) -> None:
        for other in self._flights[task_id]:
            if not (other is flight or other.has_left):
                other.give_way_to(flight)
        for ear in self.ears.get(task_id, ()):
            ear.look_leaves()
        flight.leave()

    def _tell(self, task_id: str, heard: Heard | None) -> None:
        for ear in self.ears.get(task_id, ()):
            if heard is None:
                ear.look_is_lost()
            else:
                ear.hear(_own(heard))


def _own(heard: Heard) -> Heard:
    """Errors are raised, and gather a traceback: each listener has one of its own."""
    return heard.copy() if isinstance(heard, KieCoverError) else heard
