"""Where one wait hears of its id: from looks, and from callbacks."""

import asyncio
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Self

from kie_cover_async.turns import WAITS

from .shared import Heard, OnSent, SharedLooks, nothing

# Seconds: anybody who knows a callback URL may post to it again and again.
_CALLED_LOOKS_APART = 1.0


class Ear:
    """Where one wait hears of its id: from its own looks, everybody else's, and callbacks.

    A callback makes the wait look, and that look has to leave after it: one in flight may have
    been answered before. Whoever's look it is, it serves all the waits of the id.
    """

    __slots__ = (
        "_alarm",
        "_asleep",
        "_looks",
        "_not_before",
        "_served",
        "_unheard",
        "_unsubscribe",
        "_until",
        "_wanted",
        "asked_at",
        "task_id",
        "was_called",
    )

    def __init__(self, looks: SharedLooks, task_id: str) -> None:
        self._looks = looks
        self.task_id: str = task_id
        self._unheard: Heard | None = None
        self._asleep: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._until = self._wanted = inf  # when the wait wants to look, and when a callback does
        self._not_before = -inf
        self.asked_at: float = -inf
        """The `loop.time()` at which the latest look at the id left."""
        self._served = False  # a look is on its way that left after a callback
        self._unsubscribe: Callable[[], object] = nothing
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

    @property
    def news(self) -> Heard | None:
        """What was heard and not listened to yet."""
        return self._unheard

    def hear(self, heard: Heard) -> None:
        """Take the latest news; it wakes a sleeping wait."""
        self._unheard, self._served = heard, False
        if self._asleep is not None:
            _wake(self._asleep)

    def call(self) -> None:
        """Take a callback; it makes the wait look, though not more than once in a second."""
        self.was_called = True
        self._want_a_look()

    def look_leaves(self) -> None:
        """A look leaves that will see what a callback told of, if there was one."""
        self.asked_at = asyncio.get_running_loop().time()
        if self._wanted < inf:
            self._wanted, self._served = inf, True
            self._not_before = self.asked_at + _CALLED_LOOKS_APART
            self._set_alarm()

    def look_is_lost(self) -> None:
        """It was cancelled, and nobody has seen what the callback told of."""
        if self._served:
            self._served = False
            self._want_a_look()

    async def listen_until(self, when: float) -> Heard | None:
        """The next thing heard, or `None` at `when` (`loop.time()`) or when a callback came."""
        if self._unheard is None:
            await self._sleep_until(when)
        heard, self._unheard = self._unheard, None
        return heard

    async def look(self, on_sent: OnSent = nothing, *, hurry_at: float = inf) -> Heard:
        """Look now, or join the look in flight; what comes of it, as value or error.

        It queues with those of all waits, by when the wait wanted it. If it is queued still at
        `hurry_at` (`loop.time()`), it goes before them.
        """
        loop, hurry = asyncio.get_running_loop(), None
        due = min(self._until, loop.time())
        if hurry_at < inf:
            hurry = loop.call_at(hurry_at, self._looks.hurry, self.task_id)
        try:
            heard = await self._looks.look(self.task_id, on_sent, WAITS, due=due)
        finally:
            if hurry is not None:
                hurry.cancel()
        # This ear heard it, too, and whatever came from elsewhere meanwhile is older.
        self._unheard = None
        return heard

    def _want_a_look(self) -> None:
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
