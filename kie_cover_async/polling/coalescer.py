"""Polls of the same id, joined while they are in flight."""

import asyncio
from collections.abc import Hashable
from functools import partial
from math import inf
from typing import Protocol

from attrs import define, field

from kie_cover_async.api import Request, Route
from kie_cover_async.errors import KieCoverError
from kie_cover_async.fair_queue import QueueEntry, QueueEntryWithdrawnError
from kie_cover_async.models import CoverDetails
from kie_cover_async.transport import Answer, Transport

PollOutcome = Answer[CoverDetails] | KieCoverError


class Watcher(Protocol):
    """Notified of every poll of an id, whichever caller made it."""

    def on_sent(self) -> None:
        """Note that a poll is sent."""

    def on_outcome(self, outcome: PollOutcome) -> None:
        """Receive the outcome of a poll."""

    def on_lost(self) -> None:
        """Note that a poll ended without an outcome: its caller was cancelled, or failed."""


@define(eq=False, repr=False)
class _OpenPoll(QueueEntry):
    """A poll from the moment it queues until its outcome is known.

    One that is cancelled has a `replacement`: another poll of the same id that was sent while this
    one still queued.
    """

    is_sent: bool = False
    done: asyncio.Future[PollOutcome | None] | None = None  # most polls are never joined
    replacement: "_OpenPoll" = field(init=False)

    def serves(self, flow: Hashable) -> bool:
        """Return whether joining is at least as quick as another poll.

        A queued poll of the waits, or of a bulk call, may have ten thousand others of its flow
        before it; a single call has none.
        """
        return self.is_sent or self.flow is None or self.flow == flow

    async def join(self) -> PollOutcome | None:
        """Wait for the outcome; `None` if the leading caller was cancelled, or failed."""
        if self.done is None:
            self.done = asyncio.get_running_loop().create_future()
        # All callers that joined share the future: cancelling one of them must not cancel it.
        return await asyncio.shield(self.done)


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
        self._open_polls: dict[str, list[_OpenPoll]] = {}
        self.watchers: dict[str, list[Watcher]] = {}

    async def poll(
        self,
        task_id: str,
        flow: Hashable = None,
        *,
        due: float = 0.0,
        urgent_at: float = inf,
        attempt: int = 1,
    ) -> PollOutcome:
        """Return the outcome of a poll; errors are returned and not raised.

        Polls of the same `flow` share its turns with other flows; one without a flow is alone.
        `due` and `urgent_at` are those of a `QueueEntry`.
        """
        while True:
            outcome: PollOutcome | None = None
            poll: _OpenPoll | None = None
            for each in self._open_polls.get(task_id, ()):
                each.make_urgent(urgent_at)
                if poll is None and each.serves(flow):
                    poll = each
            if poll is not None:
                outcome = await poll.join()
            else:
                poll = _OpenPoll(flow, due, urgent_at)
                self._open_polls.setdefault(task_id, []).append(poll)
                before_sending = partial(self._serve_others, task_id, poll)
                try:
                    outcome = await self._transport.send(
                        Request(self._route.poll, task_id), before_sending, poll, attempt
                    )
                except QueueEntryWithdrawnError:
                    outcome = await poll.replacement.join()
                finally:
                    self._finish(task_id, poll, outcome)
            if outcome is not None:
                # Errors are raised, and collect a traceback: every caller has its own copy.
                return outcome if isinstance(outcome, Answer) else outcome.copy()
            # That poll was lost. The next one must not queue behind all others again.
            due = -inf

    def is_in_flight(self, task_id: str) -> bool:
        """Return whether a poll of the id was sent, and its outcome is not known yet."""
        return any(poll.is_sent for poll in self._open_polls.get(task_id, ()))

    def _serve_others(self, task_id: str, poll: _OpenPoll) -> None:
        """Let the poll serve all others of its id, and notify those that watch the id."""
        poll.is_sent = True
        for other in self._open_polls[task_id]:
            if not other.is_sent:
                other.replacement, other.is_sent = poll, True
                other.withdraw()
        for watcher in self.watchers.get(task_id, ()):
            watcher.on_sent()

    def _finish(self, task_id: str, poll: _OpenPoll, outcome: PollOutcome | None) -> None:
        polls = self._open_polls[task_id]
        polls.remove(poll)
        if not polls:
            del self._open_polls[task_id]
        if poll.done is not None:
            poll.done.set_result(outcome)
        if not poll.is_withdrawn:
            for watcher in self.watchers.get(task_id, ()):
                if outcome is None:
                    watcher.on_lost()
                else:
                    watcher.on_outcome(outcome if isinstance(outcome, Answer) else outcome.copy())
