"""What one wait receives about its id: outcomes of polls, and callbacks."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Self

from kie_cover_async.fair_queue import WAITS
from kie_cover_async.inbox import Inbox

from .coalescer import PollCoalescer, PollOutcome

# Seconds: a client that knows a callback URL can post to it again and again.
_CALLBACK_POLL_INTERVAL = 1.0


class TaskWatch:
    """One wait's view of its id: its own polls, those of all other callers, and callbacks.

    A callback makes the wait poll, and that poll has to be sent after it: one in flight may have
    been answered before. Whichever caller sends it, it serves all the waits of the id.

    The outcome of the wait's own poll comes twice: `PollCoalescer.poll` returns it, and
    `on_outcome` receives it as that of any other caller's.
    """

    def __init__(self, coalescer: PollCoalescer, inbox: Inbox | None, task_id: str) -> None:
        self._coalescer = coalescer
        self._inbox = inbox
        self.task_id: str = task_id
        self.unread: PollOutcome | None = None
        """The latest outcome that `next_outcome` has not returned."""
        self.sent_at: float = -inf
        """The `loop.time()` at which the poll of the latest outcome was sent."""
        self.on_first_sent: Callable[[], object] | None = None
        """Called once: when a poll of the id is sent, or on entering if one is in flight."""
        self._last_sent_at = -inf
        self.expects_callback: bool = inbox is not None
        """Whether a callback may still come: the client has an inbox, which received none."""
        self.min_interval: float = 0.0 if inbox is None else inbox.fallback_poll_interval
        """Seconds to leave between polls while a callback is expected; 0 if none is."""
        self._sleeper: asyncio.Future[None] | None = None
        self._callback_poll_at = inf
        self._not_before = -inf
        self._is_callback_served = False  # by a poll that was sent after it
        self._unsubscribe: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        if self._inbox is not None:
            self._unsubscribe = self._inbox.subscribe(self.task_id, self.on_callback)
        self._coalescer.watchers.setdefault(self.task_id, []).append(self)
        if self._coalescer.is_in_flight(self.task_id):
            self._note_first_sent()
        return self

    def __exit__(self, *error: object) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        watchers = self._coalescer.watchers[self.task_id]
        watchers.remove(self)
        if not watchers:
            del self._coalescer.watchers[self.task_id]

    async def next_outcome(self, next_poll_at: float, urgent_at: float = inf) -> PollOutcome:
        """Return the next outcome: of another caller's poll, or of a poll at `next_poll_at`.

        A callback brings that poll forward. It queues with those of all waits, by when it was due,
        and before them from `urgent_at` on. Times are `loop.time()`.
        """
        loop = asyncio.get_running_loop()
        while self.unread is None and loop.time() < min(next_poll_at, self._callback_poll_at):
            self._sleeper = loop.create_future()
            alarm = loop.call_at(min(next_poll_at, self._callback_poll_at), self._wake)
            try:
                await self._sleeper
            finally:
                alarm.cancel()
                self._sleeper = None
        outcome, self.unread = self.unread, None
        if outcome is None:
            due = min(next_poll_at, loop.time())
            outcome = await self._coalescer.poll(self.task_id, WAITS, due=due, urgent_at=urgent_at)
            # An outcome that came from elsewhere meanwhile is older, or this very one.
            self.unread = None
        return outcome

    def on_callback(self) -> None:
        """Poll because of a callback, at most once a second."""
        self.expects_callback, self.min_interval = False, 0.0
        self._poll_for_callback()

    def on_sent(self) -> None:
        """Note that a poll is sent, which will see what a callback announced."""
        self._last_sent_at = asyncio.get_running_loop().time()
        self._note_first_sent()
        if self._callback_poll_at < inf:
            self._callback_poll_at, self._is_callback_served = inf, True
            self._not_before = self._last_sent_at + _CALLBACK_POLL_INTERVAL

    def on_outcome(self, outcome: PollOutcome) -> None:
        """Take the latest outcome, and wake the wait if it sleeps."""
        self.unread, self.sent_at = outcome, self._last_sent_at
        self._is_callback_served = False
        self._wake()

    def on_lost(self) -> None:
        """Poll again if the lost poll would have seen what a callback announced."""
        if self._is_callback_served:
            self._is_callback_served = False
            self._poll_for_callback()

    def _note_first_sent(self) -> None:
        if self.on_first_sent is not None:
            self.on_first_sent()
            self.on_first_sent = None

    def _poll_for_callback(self) -> None:
        now = asyncio.get_running_loop().time()
        self._callback_poll_at = min(self._callback_poll_at, max(now, self._not_before))
        self._wake()

    def _wake(self) -> None:
        """Let the wait, if it sleeps, see what has come and how long it has to sleep."""
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
