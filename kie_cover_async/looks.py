"""Looks shared between waits: joined while in flight, heard by every wait of the id.

A callback that an inbox hears of makes the waits of its id look.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime
from functools import partial
from math import inf
from types import TracebackType
from typing import Self

from attrs import define

from .errors import KieCoverError
from .inbox import Inbox
from .models import CoverDetails


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

# Seconds: anybody who knows a callback URL may post to it again and again.
_CALLED_LOOKS_APART = 1.0


def _nothing() -> None:
    """Nobody asks when this look leaves."""


class Ear:
    """Where one wait hears of its id: from its own looks, everybody else's, and callbacks.

    A callback makes the wait look, and that look has to leave after it: one in flight may have
    been answered before. Whoever's look it is, it serves all the waits of the id.

    `flow` is whose turn its own looks take, as in `RequestBudget.acquire`.
    """

    __slots__ = (
        "_alarm",
        "_asleep",
        "_flow",
        "_looks",
        "_not_before",
        "_unheard",
        "_unsubscribe",
        "_until",
        "_wanted",
        "task_id",
        "was_called",
    )

    def __init__(self, looks: "SharedLooks", task_id: str, flow: Hashable = None) -> None:
        self._looks = looks
        self._flow = flow
        self.task_id: str = task_id
        self._unheard: Heard | None = None
        self._asleep: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._until = self._wanted = inf  # when the wait wants to look, and when a callback does
        self._not_before = -inf
        self._unsubscribe: Callable[[], object] = _nothing
        self.was_called: bool = False

    @property
    def rest(self) -> float:
        """How many seconds to leave between looks, since a callback is to come; 0 if none is."""
        inbox = self._looks.inbox
        return 0.0 if inbox is None or self.was_called else inbox.safety_interval

    def __enter__(self) -> Self:
        if self._looks.inbox is not None:
            self._unsubscribe = self._looks.inbox.subscribe(self.task_id, self.call)
        self._looks.ears.setdefault(self.task_id, []).append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._unsubscribe()
        ears = self._looks.ears[self.task_id]
        ears.remove(self)
        if not ears:
            del self._looks.ears[self.task_id]

    def hear(self, heard: Heard) -> None:
        """Take the latest news; it wakes a sleeping wait."""
        self._unheard = heard
        if self._asleep is not None:
            _wake(self._asleep)

    def call(self) -> None:
        """Take a callback; it makes the wait look, though not more than once in a second."""
        self.was_called = True
        now = asyncio.get_running_loop().time()
        self._wanted = min(self._wanted, max(now, self._not_before))
        self._set_alarm()

    def look_leaves(self) -> None:
        """A look leaves that will see what a callback told of, if there was one."""
        if self._wanted < inf:
            self._wanted = inf
            self._not_before = asyncio.get_running_loop().time() + _CALLED_LOOKS_APART
            self._set_alarm()

    async def listen_until(self, when: float) -> Heard | None:
        """The next thing heard, or `None` at `when` (`loop.time()`) or when a callback came."""
        if self._unheard is None:
            await self._sleep_until(when)
        heard, self._unheard = self._unheard, None
        return heard

    async def look(self, on_sent: OnSent = _nothing) -> Heard:
        """Look now, or join the look in flight; what comes of it, as value or error."""
        heard = await self._looks.look(self.task_id, on_sent, self._flow)
        # This ear heard it, too, and whatever came from elsewhere meanwhile is older.
        self._unheard = None
        return heard

    async def _sleep_until(self, when: float) -> None:
        self._asleep = asyncio.get_running_loop().create_future()
        self._until = when
        self._set_alarm()
        try:
            await self._asleep
        finally:
            self._asleep = None
            self._set_alarm()

    def _set_alarm(self) -> None:
        """Be woken at the right time, if asleep."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._asleep is not None:
            when, loop = min(self._until, self._wanted), self._asleep.get_loop()
            self._alarm = loop.call_at(when, _wake, self._asleep)


def _wake(asleep: asyncio.Future[None]) -> None:
    if not asleep.done():
        asleep.set_result(None)


class _Flight:
    """A look in flight: the future of what it brings, and who wants to know that it has left."""

    __slots__ = ("_ended", "_on_sent", "has_left")

    def __init__(self, on_sent: OnSent) -> None:
        self.has_left = False
        self._on_sent = [on_sent]
        self._ended: asyncio.Future[Heard | None] | None = None  # most looks are joined by nobody

    def leave(self) -> None:
        self.has_left = True
        for on_sent in self._on_sent:
            on_sent()

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
        self.ears: dict[str, list[Ear]] = {}

    async def look(self, task_id: str, on_sent: OnSent = _nothing, flow: Hashable = None) -> Heard:
        """What a look brought: a sighting, or an error of one's own, returned and not raised.

        `on_sent` is called once, when the first request that serves this look has left.
        """
        while (flight := self._flights.get(task_id)) is not None:
            if (heard := await flight.join(on_sent)) is not None:
                return _own(heard)
            if flight.has_left:
                on_sent = _nothing
        return await self._lead(task_id, on_sent, flow)

    async def _lead(self, task_id: str, on_sent: OnSent, flow: Hashable) -> Heard:
        flight = self._flights[task_id] = _Flight(on_sent)
        leave = flight.leave if self.inbox is None else partial(self._leave, task_id, flight)
        heard: Heard | None = None
        try:
            heard = await self._look(task_id, leave, flow)
        except KieCoverError as error:
            heard = error
        finally:
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
