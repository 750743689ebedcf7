"""Where one wait hears of its id: from polls, and from callbacks."""

import asyncio
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Self

from kie_cover_async.fair_queue import WAITS

from .coalescer import OnSent, PollCoalescer, PollOutcome, nothing

# Seconds: anybody who knows a callback URL may post to it again and again.
_CALLBACK_POLLS_APART = 1.0


class TaskWatch:
    """Where one wait hears of its id: from its own polls, everybody else's, and callbacks.

    A callback makes the wait poll, and that poll has to leave after it: one in flight may have
    been answered before. Whoever's poll it is, it serves all the waits of the id.
    """

    __slots__ = (
        "_alarm",
        "_asleep",
        "_coalescer",
        "_not_before",
        "_served",
        "_unread",
        "_unsubscribe",
        "_until",
        "_wanted",
        "asked_at",
        "task_id",
        "was_called_back",
    )

    def __init__(self, coalescer: PollCoalescer, task_id: str) -> None:
        self._coalescer = coalescer
        self.task_id: str = task_id
        self._unread: PollOutcome | None = None
        self._asleep: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._until = self._wanted = inf  # when the wait wants to poll, and when a callback does
        self._not_before = -inf
        self.asked_at: float = -inf
        """The `loop.time()` at which the latest poll of the id left."""
        self._served = False  # a poll is on its way that left after a callback
        self._unsubscribe: Callable[[], object] = nothing
        self.was_called_back: bool = False

    @property
    def min_interval(self) -> float:
        """How many seconds to leave between polls, since a callback is to come; 0 if none is."""
        inbox = self._coalescer.inbox
        return 0.0 if inbox is None or self.was_called_back else inbox.fallback_poll_interval

    def __enter__(self) -> Self:
        if self._coalescer.inbox is not None:
            self._unsubscribe = self._coalescer.inbox.subscribe(self.task_id, self.on_callback)
        self._coalescer.watches.setdefault(self.task_id, []).append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._unsubscribe()
        watches = self._coalescer.watches[self.task_id]
        watches.remove(self)
        if not watches:
            del self._coalescer.watches[self.task_id]

    @property
    def news(self) -> PollOutcome | None:
        """What was heard and not listened to yet."""
        return self._unread

    def on_result(self, result: PollOutcome) -> None:
        """Take the latest news; it wakes a sleeping wait."""
        self._unread, self._served = result, False
        if self._asleep is not None:
            _wake(self._asleep)

    def on_callback(self) -> None:
        """Take a callback; it makes the wait poll, though not more than once in a second."""
        self.was_called_back = True
        self._request_poll()

    def on_poll_sent(self) -> None:
        """A poll leaves that will see what a callback told of, if there was one."""
        self.asked_at = asyncio.get_running_loop().time()
        if self._wanted < inf:
            self._wanted, self._served = inf, True
            self._not_before = self.asked_at + _CALLBACK_POLLS_APART
            self._set_alarm()

    def on_poll_lost(self) -> None:
        """It was cancelled, and nobody has seen what the callback told of."""
        if self._served:
            self._served = False
            self._request_poll()

    async def listen_until(self, when: float) -> PollOutcome | None:
        """The next thing heard, or `None` at `when` (`loop.time()`) or when a callback came."""
        if self._unread is None:
            await self._sleep_until(when)
        result, self._unread = self._unread, None
        return result

    async def poll(self, on_sent: OnSent = nothing, *, prioritize_at: float = inf) -> PollOutcome:
        """Poll now, or join the poll in flight; what comes of it, as value or error.

        It queues with those of all waits, by when the wait wanted it. If it is queued still at
        `prioritize_at` (`loop.time()`), it goes before them.
        """
        loop, timer = asyncio.get_running_loop(), None
        due = min(self._until, loop.time())
        if prioritize_at < inf:
            timer = loop.call_at(prioritize_at, self._coalescer.prioritize, self.task_id)
        try:
            result = await self._coalescer.poll(self.task_id, on_sent, WAITS, due=due)
        finally:
            if timer is not None:
                timer.cancel()
        # This watch received it, too, and whatever came from elsewhere meanwhile is older.
        self._unread = None
        return result

    def _request_poll(self) -> None:
        now = asyncio.get_running_loop().time()
        self._wanted = min(self._wanted, max(now, self._not_before))
        self._set_alarm()

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
