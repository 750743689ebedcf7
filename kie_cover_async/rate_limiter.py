"""How often requests are sent, and how many at a time: limiters with a fair queue."""

import asyncio
from math import inf
from typing import Protocol, Self

from .fair_queue import FairQueue, QueueEntry, QueueEntryWithdrawnError
from .validation import validate_number


class ConcurrencyLimiter:
    """A limit on requests in flight; a free place goes to the flow whose turn it is."""

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self._free = limit
        self._queue = FairQueue()

    def try_acquire(self) -> bool:
        """Take a place without waiting; return whether one was free."""
        if self._free:
            self._free -= 1
            return True
        return False

    async def acquire(self, entry: QueueEntry) -> None:
        """Wait for a place.

        Raises:
            QueueEntryWithdrawnError: The entry was cancelled meanwhile.
        """
        self._queue.join(entry)
        try:
            await entry.woken()
        except (asyncio.CancelledError, QueueEntryWithdrawnError):
            # Given a place and cancelled in the same moment: the place goes to the next entry.
            if entry.queue is None:
                self.release()
            self._queue.leave(entry)
            raise

    def release(self) -> None:
        """Give the place back, or to the entry whose turn it is."""
        if self._queue.size:
            entry = self._queue.first(asyncio.get_running_loop().time())
            self._queue.serve(entry)
            entry.wake()
        else:
            self._free += 1


class SlotSource(Protocol):
    """The source of a `RateLimiter`'s slots. Times are `loop.time()`.

    A source that shares its slots with other processes may not know yet when the next one opens.
    It calls the limiter's `_arm` when it does; `RateLimiter._make_slots` can pass that on.
    """

    def opens_at(self) -> float:
        """Return when the next slot can be taken; `inf` while that is not known.

        It is called while a request waits for a slot, so it may begin to ask for one.
        """

    def take(self, now: float) -> bool:
        """Take the slot that is open now; return `False` if there is none."""

    def pause(self, seconds: float) -> None:
        """Let other users of the same source know that the server refused a request."""


class LocalSlots:
    """Slots at equal intervals, none of them made up after a stall.

    This is the generic cell rate algorithm in its virtual scheduling form (ITU-T I.371), with a
    tolerance of zero; `_arrival` is the theoretical arrival time.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._arrival = -inf

    def opens_at(self) -> float:
        """Return the theoretical arrival time of the next request."""
        return self._arrival

    def take(self, now: float) -> bool:
        """Move the theoretical arrival time on, if it has come."""
        if now < self._arrival:
            return False
        self._arrival = now + self._interval
        return True

    def pause(self, seconds: float) -> None:
        """Do nothing: there are no other users."""


class RateLimiter:
    """Let `number` requests be sent in `per` seconds, evenly: one every `per / number` seconds.

    Slots that a stalled event loop missed are not made up. With the default of nine, no second
    sees more than ten requests at the server, by whichever kind of window it counts: the vendor's
    ceiling for status checks of one key.

    It is fair between flows, which take turns: a single call is a flow of its own, a bulk call is
    one flow however many ids it has, and all waits of the clients that share it are one. `pause`
    stops all.
    Clients on one event loop may share it. Once that loop is closed, it moves to the next one; on
    two open loops it raises `RuntimeError`.

    Example:
        >>> limiter = RateLimiter(9, per=1.0)
        >>> async with CoverClient(rate_limiter=limiter) as one:
        ...     async with CoverClient("another-key", rate_limiter=limiter) as other:
        ...         first = await one.get_cover_details("first-cover")
        ...         second = await other.get_cover_details("second-cover")
        >>> limiter.queued
        0
    """

    def __init__(self, number: float = 9, /, *, per: float = 1.0) -> None:
        if number != inf:
            validate_number("number", number, at_least=1, whole=True)
        validate_number("per", per, above=0)
        self._number, self._per = number, per
        self.interval: float = per / number
        """Seconds between two slots; 0 if there is no limit."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reset()

    def _reset(self) -> None:
        self._slots: SlotSource = self._make_slots()
        self._paused_until = -inf
        self._refusals = 0
        self._queue = FairQueue()
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def unlimited(cls) -> Self:
        """Return a limiter that never runs out of slots; refusals by the server still pause it."""
        return cls(inf)

    def __repr__(self) -> str:
        if self._number == inf:
            return "RateLimiter.unlimited()"
        return f"RateLimiter({self._number}, per={self._per:g})"

    @property
    def queued(self) -> int:
        """How many requests are queued."""
        return self._queue.size

    @property
    def pressure(self) -> float:
        """1 while the limiter keeps up, and one more for every second that its queue will take."""
        # If it rose faster, polls would come in waves: those delayed together come back together.
        return 1.0 + self._queue.size * self.interval

    def try_acquire(self) -> float | None:
        """Take a slot without waiting; return its `loop.time()`, or `None` if one has to queue."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._move_to(loop)
        now = loop.time()
        if self._queue.size or now < self._paused_until or not self._slots.take(now):
            return None
        return now

    async def acquire(self, entry: QueueEntry | None = None) -> float:
        """Wait for a slot; return the `loop.time()` at which it was taken.

        A cancelled call takes no slot.

        Raises:
            QueueEntryWithdrawnError: The entry was cancelled meanwhile.
        """
        if (granted := self.try_acquire()) is not None:
            return granted
        entry = entry or QueueEntry()
        loop = asyncio.get_running_loop()
        self._queue.join(entry)
        try:
            # Woken, and paused in the same moment: the entry keeps its turn.
            while (
                (now := loop.time()) < self._paused_until
                or self._queue.first(now) is not entry
                or not self._slots.take(now)
            ):
                self._arm()
                await entry.woken()
            self._queue.serve(entry)
        finally:
            self._queue.leave(entry)
            self._arm()
        return now

    def pause(self, seconds: float) -> None:
        """Let no request leave for this long from now; the longest pause in force counts."""
        validate_number("seconds", seconds, at_least=0)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._move_to(loop)
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        self._slots.pause(seconds)

    def refused(self, granted: float) -> int:
        """Count a refusal of the request whose slot was taken at `granted`.

        Return the number of refusals in a row. Requests that were sent before the last pause ended
        count as one: a hundred that are refused together say no more than the first.
        """
        if granted >= self._paused_until or not self._refusals:
            self._refusals += 1
        return self._refusals

    def accepted(self, granted: float) -> None:
        """Count a request that was not refused: pauses shrink again, one step at a time."""
        if self._refusals and granted >= self._paused_until:
            self._refusals -= 1

    def _make_slots(self) -> SlotSource:
        """Return the slots of one event loop; called again when the limiter moves to another."""
        return LocalSlots(self.interval)

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            if not self._loop.is_closed():
                raise RuntimeError(
                    f"{self!r} is in use on another event loop; make one for each loop"
                )
            # Another loop may have another clock, and requests that queued on the old one are gone.
            self._reset()
        self._loop = loop

    def _arm(self) -> None:
        """Wake the entry whose turn it is when the next slot opens; it takes the slot itself.

        A source calls this when the time of its next slot becomes known or changes.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue.size and (opens_at := self._slots.opens_at()) < inf:
            when = max(opens_at, self._paused_until)
            self._timer = asyncio.get_running_loop().call_at(when, self._wake_first)

    def _wake_first(self) -> None:
        self._timer = None
        self._queue.first(asyncio.get_running_loop().time()).wake()
