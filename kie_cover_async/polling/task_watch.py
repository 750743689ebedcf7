"""What one wait receives about its id: outcomes of polls, and callbacks."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Self

from kie_cover_async.fair_queue import WAITS
from kie_cover_async.inbox import Inbox

from .coalescer import OnSent, PollCoalescer, PollOutcome

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
        self._last_sent_at = -inf
        self.had_callback: bool = False
        self._sleeper: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._next_poll_at = self._callback_poll_at = inf
        self._not_before = -inf
        self._is_callback_served = False  # by a poll that was sent after it
        self._unsubscribe: Callable[[], object] | None = None

    @property
    def expects_callback(self) -> bool:
        """Whether a callback may still come: the client has an inbox, which received none."""
        return self._inbox is not None and not self.had_callback

    @property
    def min_interval(self) -> float:
        """Seconds to leave between polls while a callback is expected; 0 if none is."""
        if self._inbox is None or self.had_callback:
            return 0.0
        return self._inbox.fallback_poll_interval

    def __enter__(self) -> Self:
        if self._inbox is not None:
            self._unsubscribe = self._inbox.subscribe(self.task_id, self.on_callback)
        self._coalescer.watchers.setdefault(self.task_id, []).append(self)
        return self

    def __exit__(self, *error: object) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        watchers = self._coalescer.watchers[self.task_id]
        watchers.remove(self)
        if not watchers:
            del self._coalescer.watchers[self.task_id]

    async def next_outcome(
        self, next_poll_at: float, urgent_at: float = inf, on_sent: OnSent | None = None
    ) -> PollOutcome:
        """Return the next outcome: of another caller's poll, or of a poll at `next_poll_at`.

        A callback brings that poll forward. It queues with those of all waits, by when it was due,
        and before them from `urgent_at` on. Times are `loop.time()`.
        """
        loop = asyncio.get_running_loop()
        if self.unread is None and loop.time() < min(next_poll_at, self._callback_poll_at):
            self._sleeper = loop.create_future()
            self._next_poll_at = next_poll_at
            self._set_alarm()
            try:
                await self._sleeper
            finally:
                self._sleeper = None
                self._set_alarm()
        outcome, self.unread = self.unread, None
        if outcome is None:
            due = min(next_poll_at, loop.time())
            outcome = await self._coalescer.poll(
                self.task_id, WAITS, on_sent=on_sent, due=due, urgent_at=urgent_at
            )
            # An outcome that came from elsewhere meanwhile is older, or this very one.
            self.unread = None
        return outcome

    def on_callback(self) -> None:
        """Poll because of a callback, at most once a second."""
        self.had_callback = True
        self._poll_for_callback()

    def on_sent(self) -> None:
        """Note that a poll is sent, which will see what a callback announced."""
        self._last_sent_at = asyncio.get_running_loop().time()
        if self._callback_poll_at < inf:
            self._callback_poll_at, self._is_callback_served = inf, True
            self._not_before = self._last_sent_at + _CALLBACK_POLL_INTERVAL
            self._set_alarm()

    def on_outcome(self, outcome: PollOutcome) -> None:
        """Take the latest outcome, and wake the wait if it sleeps."""
        self.unread, self.sent_at = outcome, self._last_sent_at
        self._is_callback_served = False
        if self._sleeper is not None:
            _wake(self._sleeper)

    def on_lost(self) -> None:
        """Poll again if the lost poll would have seen what a callback announced."""
        if self._is_callback_served:
            self._is_callback_served = False
            self._poll_for_callback()

    def _poll_for_callback(self) -> None:
        now = asyncio.get_running_loop().time()
        self._callback_poll_at = min(self._callback_poll_at, max(now, self._not_before))
        self._set_alarm()

    def _set_alarm(self) -> None:
        """Wake the wait at the right time, if it sleeps."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._sleeper is not None:
            when, loop = min(self._next_poll_at, self._callback_poll_at), self._sleeper.get_loop()
            self._alarm = loop.call_at(when, _wake, self._sleeper)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
