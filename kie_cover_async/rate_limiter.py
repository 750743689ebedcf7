"""How often we may call: a rate limiter, shared by all who use it."""

import asyncio
from collections.abc import Hashable
from math import inf
from typing import Self

from .fair_queue import FairQueue, QueueEntry, QueueEntryCancelledError
from .validation import validate_number

# The vendor's ceiling for status requests: ten a second for each key.
DEFAULT_NUMBER, DEFAULT_PER = 10, 1.0


class ConcurrencyLimiter:
    """At most `limit` at once; a place that comes free goes to the flow whose turn it is."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._queue = FairQueue(lambda: None)  # who is first is asked when a place comes free

    async def acquire(self, flow: Hashable = None) -> None:
        """Wait for a place; `flow` as in `RateLimiter.acquire`."""
        entry = QueueEntry.of(flow)
        entry.check_wanted()
        if self._free:
            self._free -= 1
            return
        self._queue.join(entry)
        try:
            await entry.called()
        except (asyncio.CancelledError, QueueEntryCancelledError):
            # Given a place and cancelled in the same moment: the place goes to the next one.
            if entry.queue is None:
                self.release()
            self._queue.leave(entry)
            raise

    def release(self) -> None:
        """Give the place to the next one."""
        if self._queue:
            entry = self._queue.first
            self._queue.serve(entry)
            entry.call()
        else:
            self._free += 1


class RateLimiter:
    """`number` requests in `per` seconds, evenly: the first at once, then one every `per / number`.

    Slots that a stalled loop missed are made up, up to a tenth of the number, so in no window of
    `per` seconds do more than the number and that tenth leave. Ten at once and ten more a second
    later were measured to arrive as up to 19 in one window; spread evenly they stay apart.

    It is fair between flows, which take turns: a call is a flow of its own, a `check_covers` is one
    flow however many ids it has, and the polls of all waits together are one. `pause` stops
    everybody. One rate limiter may be shared by several clients of one event loop; on a second loop
    it raises `RuntimeError`.
    """

    def __init__(self, number_: float = DEFAULT_NUMBER, /, *, per: float = DEFAULT_PER) -> None:
        if number_ != inf:
            validate_number("number", number_, at_least=1, whole=True)
        validate_number("per", per, above=0)
        self._number, self._per = number_, per
        self._interval = per / number_
        self._slack = 0.0 if number_ == inf else number_ // 10 * self._interval
        self._next = self._paused_until = -inf
        self._refusals = 0
        self._queue = FairQueue(self._arm)
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def unlimited(cls) -> Self:
        """A rate limiter that never runs out; a refusal by the server pauses it all the same."""
        return cls(inf)

    def __repr__(self) -> str:
        if self._number == inf:
            return "RateLimiter.unlimited()"
        return f"RateLimiter({self._number}, per={self._per:g})"

    @property
    def queued(self) -> int:
        """How many requests are queued."""
        return len(self._queue)

    @property
    def pressure(self) -> float:
        """1 while the rate limiter keeps up, and one more for every second that its queue will
        take.
        """
        # Steeper, and polls would come in waves: those put off together come back together.
        return 1.0 + len(self._queue) * self._interval

    async def acquire(self, flow: Hashable = None) -> float:
        """Wait for a slot; return the `loop.time()` at which it was given.

        `flow` is whose turn is taken; `None` is a flow of its own. Cancelling costs no slot.
        """
        # A queue entry stands for its flow, and raises `QueueEntryCancelledError` here when it is
        # cancelled.
        entry = QueueEntry.of(flow)
        entry.check_wanted()
        loop = self._bound_loop()
        if not self._queue and self._opening() <= (now := loop.time()):
            self._next = now + self._interval
            return now
        await self._turn(loop, entry)
        now = loop.time()
        # A queue stood here, so late means missed, and is made up within the slack.
        self._next = max(self._opening(), now - self._slack) + self._interval
        self._arm()
        return now

    def pause(self, seconds: float) -> None:
        """Let no request go for this long from now; the longest pause in force counts."""
        validate_number("seconds", seconds, at_least=0)
        until = self._bound_loop().time() + seconds
        self._paused_until = max(self._paused_until, until)

    def refused(self, granted: float) -> int:
        """Count a refusal of a request whose slot was given at `granted`; refusals in a row so far.

        Those that left before the last pause ended tell nothing new: a hundred requests in flight
        that are refused together are one refusal.
        """
        if granted >= self._paused_until or not self._refusals:
            self._refusals += 1
        return self._refusals

    def accepted(self, granted: float) -> None:
        """Hear that a request was not refused: pauses shrink again, one step at a time."""
        if self._refusals and granted >= self._paused_until:
            self._refusals -= 1

    def _bound_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                f"{self!r} belongs to another event loop; make a rate limiter for each loop"
            )
        return loop

    def _opening(self) -> float:
        return max(self._next, self._paused_until)

    async def _turn(self, loop: asyncio.AbstractEventLoop, entry: QueueEntry) -> None:
        """Return when the rate limiter is open and it is one's turn."""
        self._queue.join(entry)
        is_open = False
        try:
            # Called, and paused again in the same moment: the turn is kept, and comes later.
            while not is_open:
                self._arm()
                await entry.called()
                is_open = self._opening() <= loop.time()
        except (asyncio.CancelledError, QueueEntryCancelledError):
            self._queue.leave(entry)
            self._arm()
            raise
        self._queue.serve(entry)

    def _arm(self) -> None:
        """Call the first when the rate limiter opens. They take the slot themselves, on leaving."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue:
            self._timer = self._bound_loop().call_at(self._opening(), self._queue.first.call)
