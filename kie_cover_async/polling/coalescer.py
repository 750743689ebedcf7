"""Polls of the same id, joined while they are in flight."""

import asyncio
from collections.abc import Callable, Hashable
from math import inf
from typing import Protocol

from kie_cover_async.api import Route
from kie_cover_async.errors import KieCoverError
from kie_cover_async.fair_queue import QueueEntry, QueueEntryCancelledError
from kie_cover_async.transport import Transport

from .results import PollOutcome, PollResult

OnSent = Callable[[], object]


class Watcher(Protocol):
    """What is told of every poll of an id, whichever caller made it."""

    def on_sent(self) -> None:
        """A poll is sent."""

    def on_result(self, outcome: PollOutcome) -> None:
        """A poll has an outcome."""

    def on_lost(self) -> None:
        """A poll that was sent was cancelled: its outcome is not known."""


class _InFlightPoll(QueueEntry):
    """A poll from the moment it queues until its outcome is known.

    One that is cancelled has a `replacement`: another poll of the same id that was sent while this
    one still queued.
    """

    __slots__ = ("_coalescer", "_done", "_on_sent", "is_sent", "replacement", "task_id")

    replacement: "_InFlightPoll"

    def __init__(
        self,
        coalescer: "PollCoalescer",
        task_id: str,
        flow: Hashable,
        *,
        on_sent: OnSent | None,
        due: float,
        urgent_at: float,
    ) -> None:
        super().__init__(flow, due=due, urgent_at=urgent_at)
        self._coalescer = coalescer
        self.task_id: str = task_id
        self.is_sent: bool = False
        self._on_sent: list[OnSent] = [] if on_sent is None else [on_sent]
        self._done: asyncio.Future[PollOutcome | None] | None = None  # most are joined by no one

    def serves(self, flow: Hashable) -> bool:
        """Return whether joining is at least as quick as another poll.

        A queued poll of the waits, or of a bulk call, may have ten thousand others of its flow
        before it; a single call has none.
        """
        return self.is_sent or self.flow is None or self.flow == flow

    def sending(self) -> None:
        """Note that the poll is sent: it serves every poll of the same id that still queues."""
        self._coalescer.on_sending(self)
        self.mark_sent()

    def mark_sent(self) -> None:
        self.is_sent = True
        for on_sent in self._on_sent:
            on_sent()

    def replace_with(self, other: "_InFlightPoll") -> None:
        """Stop queueing: the other poll's outcome is this one's, too."""
        self.replacement = other
        self.cancel()
        self.mark_sent()

    async def join(self, on_sent: OnSent | None) -> PollOutcome | None:
        """Wait for the outcome; `None` if the caller that leads was cancelled."""
        if on_sent is not None:
            self._on_sent.append(on_sent)
            if self.is_sent:
                on_sent()
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        try:
            # All who joined share the future: cancelling one of them must not cancel it.
            return await asyncio.shield(self._done)
        finally:
            # Don't call back a caller that was cancelled.
            if on_sent is not None:
                self._on_sent.remove(on_sent)

    def finish(self, outcome: PollOutcome | None) -> None:
        if self._done is not None:
            self._done.set_result(outcome)


class PollCoalescer:
    """Polls of ids with at most one request in flight for each (what Go calls singleflight).

    The first caller makes the request, in its own task; others wait for it. If that task is
    cancelled, the first of the others makes another request, so no caller depends on the life of
    another, and there are no tasks of our own.

    Polls of one id may queue in several flows. When one of them is sent, the others stop queueing
    and share its outcome.
    """

    def __init__(self, transport: Transport, route: Route) -> None:
        self._transport = transport
        self._route = route
        self._in_flight: dict[str, list[_InFlightPoll]] = {}
        self.watchers: dict[str, list[Watcher]] = {}

    async def poll(
        self,
        task_id: str,
        flow: Hashable = None,
        *,
        on_sent: OnSent | None = None,
        due: float = 0.0,
        urgent_at: float = inf,
        attempt: int = 1,
    ) -> PollOutcome:
        """Return what a poll comes to; errors are returned and not raised.

        `on_sent` is called once, when the first request that serves this call is sent. `flow`,
        `due` and `urgent_at` are those of a `QueueEntry`.
        """
        while True:
            outcome: PollOutcome | None = None
            poll = self._find(task_id, flow, urgent_at)
            if poll is not None:
                outcome = await poll.join(on_sent)
            else:
                poll = _InFlightPoll(
                    self, task_id, flow, on_sent=on_sent, due=due, urgent_at=urgent_at
                )
                self._in_flight.setdefault(task_id, []).append(poll)
                try:
                    request = self._route.poll(task_id)
                    details, response = await self._transport.send(
                        request, poll.sending, poll, attempt
                    )
                    now = asyncio.get_running_loop().time()
                    outcome = PollResult(details, response.served_at, now)
                except KieCoverError as error:
                    outcome = error
                except QueueEntryCancelledError:
                    outcome = await poll.replacement.join(None)
                finally:
                    self._finish(poll, outcome)
            if outcome is not None:
                return _own(outcome)
            if poll.is_sent:
                on_sent = None
            # That poll was lost; another one must not queue behind all others again.
            due = -inf

    def on_sending(self, poll: _InFlightPoll) -> None:
        """Let the poll serve all others of its id, and tell those that watch the id."""
        polls = self._in_flight[poll.task_id]
        if len(polls) > 1:
            for other in polls:
                if other is not poll and not other.is_sent:
                    other.replace_with(poll)
        if self.watchers:
            for watcher in self.watchers.get(poll.task_id, ()):
                watcher.on_sent()

    def _find(self, task_id: str, flow: Hashable, urgent_at: float) -> _InFlightPoll | None:
        found = None
        for poll in self._in_flight.get(task_id, ()):
            poll.prioritize(urgent_at)
            if found is None and poll.serves(flow):
                found = poll
        return found

    def _finish(self, poll: _InFlightPoll, outcome: PollOutcome | None) -> None:
        polls = self._in_flight[poll.task_id]
        polls.remove(poll)
        if not polls:
            del self._in_flight[poll.task_id]
        poll.finish(outcome)
        if self.watchers and not poll.is_cancelled:
            for watcher in self.watchers.get(poll.task_id, ()):
                if outcome is None:
                    watcher.on_lost()
                else:
                    watcher.on_result(_own(outcome))


def _own(outcome: PollOutcome) -> PollOutcome:
    # Errors are raised, and collect a traceback: every caller has its own copy.
    return outcome.copy() if isinstance(outcome, KieCoverError) else outcome
