"""Polls of ids, joined while they are in flight."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime
from functools import partial
from math import inf
from typing import Protocol

from attrs import define

from kie_cover_async.errors import KieCoverError
from kie_cover_async.fair_queue import QueueEntry, QueueEntryCancelledError
from kie_cover_async.inbox import Inbox
from kie_cover_async.models import CoverDetails


@define(eq=False)
class PollResult:
    """A record as it was seen: `served_at` by the server's clock, `received_at` by
    `loop.time()`.
    """

    details: CoverDetails
    served_at: datetime | None
    received_at: float


PollOutcome = PollResult | KieCoverError

OnSent = Callable[[], object]

# Makes one request, which queues with this queue entry; calls its second argument when it leaves.
SendPoll = Callable[[str, OnSent, QueueEntry], Awaitable[PollResult]]


class Listener(Protocol):
    """Who hears of every poll of an id, whoever makes it."""

    def on_result(self, result: PollOutcome) -> None:
        """What a poll brought."""

    def on_poll_sent(self) -> None:
        """That a poll has left."""

    def on_poll_lost(self) -> None:
        """That a poll was cancelled, and nobody hears what it brings."""


def nothing() -> None:
    """Nobody asks when this poll leaves."""


class _InFlightPoll:
    """A poll on its way: who wants to know that it has left, and the future of what it brings."""

    __slots__ = ("_ended", "_on_sent", "entry", "has_left", "instead")

    def __init__(self, on_sent: OnSent, entry: QueueEntry) -> None:
        self.has_left = False
        self.entry = entry
        self.instead: asyncio.Future[PollOutcome | None] | None = None
        self._on_sent = [on_sent]
        # most polls are joined by nobody
        self._ended: asyncio.Future[PollOutcome | None] | None = None

    def leave(self) -> None:
        self.has_left = True
        for on_sent in self._on_sent:
            on_sent()

    def serves(self, flow: Hashable) -> bool:
        """Whether to wait for it is no worse than to make a poll of one's own.

        A queued one of the waits, or of a bulk call, may have ten thousand others of its flow
        before it, which no other call is to queue behind; a single call has none.
        """
        return self.has_left or self.entry.flow is None or self.entry.flow == flow

    def give_way_to(self, other: "_InFlightPoll") -> None:
        """Another poll of the same id has left, and brings what this one would."""
        self.instead = other.brings()
        self.entry.cancel()
        self.leave()

    async def join(self, on_sent: OnSent) -> PollOutcome | None:
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

    async def other(self) -> PollOutcome | None:
        """What the poll brought that this one gave way to."""
        return None if self.instead is None else await asyncio.shield(self.instead)

    def end(self, result: PollOutcome | None) -> None:
        if self._ended is not None:
            self._ended.set_result(result)

    def brings(self) -> asyncio.Future[PollOutcome | None]:
        """What comes of it, when it does."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        return self._ended


class PollCoalescer:
    """Polls of ids, at most one request in flight for each.

    Whoever comes first makes the request, in its own task; the others wait for it. If that task is
    cancelled, the first of the others makes the request anew, so nobody depends on anybody's life
    and there are no tasks of our own to be left behind.

    Requests at one id may queue in several flows. When one of them leaves, the others queue no
    longer, and share what it brings.
    """

    def __init__(self, poll: SendPoll, inbox: Inbox | None = None) -> None:
        self._poll = poll
        self.inbox = inbox
        self._in_flight: dict[str, list[_InFlightPoll]] = {}
        self.watches: dict[str, list[Listener]] = {}

    async def poll(
        self,
        task_id: str,
        on_sent: OnSent = nothing,
        flow: Hashable = None,
        *,
        due: float = 0.0,
    ) -> PollOutcome:
        """What a poll brought: a poll result, or an error of one's own, returned and not raised.

        `on_sent` is called once, when the first request that serves this poll has left. Those of
        one flow queue in the order in which they are `due`.
        """
        result = None
        while result is None:
            poll = self._serving(task_id, flow)
            if poll is None:
                poll = _InFlightPoll(on_sent, QueueEntry(flow, due=due))
                result = await self._lead(task_id, poll)
            else:
                result = await poll.join(on_sent)
            if poll.has_left:
                on_sent = nothing
            # If that poll was lost, another one must not queue behind all others again.
            due = -inf
        return _own(result)

    def prioritize(self, task_id: str) -> None:
        """Let the polls of this id that are queued go before others of their flow."""
        for poll in self._in_flight.get(task_id, ()):
            poll.entry.prioritize()

    def _serving(self, task_id: str, flow: Hashable) -> _InFlightPoll | None:
        for poll in self._in_flight.get(task_id, ()):
            if poll.serves(flow):
                return poll
        return None

    async def _lead(self, task_id: str, poll: _InFlightPoll) -> PollOutcome | None:
        result: PollOutcome | None = None
        self._in_flight.setdefault(task_id, []).append(poll)
        try:
            result = await self._poll(task_id, partial(self._leave, task_id, poll), poll.entry)
        except KieCoverError as error:
            result = error
        except QueueEntryCancelledError:
            result = await poll.other()
        finally:
            self._end(task_id, poll, result)
        return result

    def _end(self, task_id: str, poll: _InFlightPoll, result: PollOutcome | None) -> None:
        polls = self._in_flight[task_id]
        polls.remove(poll)
        if not polls:
            del self._in_flight[task_id]
        poll.end(result)
        if poll.instead is None:
            self._tell(task_id, result)

    def _leave(self, task_id: str, poll: _InFlightPoll) -> None:
        for other in self._in_flight[task_id]:
            if not (other is poll or other.has_left):
                other.give_way_to(poll)
        for watch in self.watches.get(task_id, ()):
            watch.on_poll_sent()
        poll.leave()

    def _tell(self, task_id: str, result: PollOutcome | None) -> None:
        for watch in self.watches.get(task_id, ()):
            if result is None:
                watch.on_poll_lost()
            else:
                watch.on_result(_own(result))


def _own(result: PollOutcome) -> PollOutcome:
    """Errors are raised, and gather a traceback: each listener has one of its own."""
    return result.copy() if isinstance(result, KieCoverError) else result
