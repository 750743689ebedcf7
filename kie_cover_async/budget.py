"""How often we may call: a budget of requests, shared by all who hold it."""

import asyncio
from collections.abc import Hashable
from math import inf
from typing import Self

from .arguments import number
from .turns import Ticket, Turns, WithdrawnError

# The vendor's ceiling for status requests: ten a second for each key.
DEFAULT_NUMBER, DEFAULT_PER = 10, 1.0


class InFlightLimit:
    """At most `limit` at once; a place that comes free goes to the flow whose turn it is."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._turns = Turns(lambda: None)  # who is first is asked when a place comes free

    async def acquire(self, flow: Hashable = None) -> None:
        """Wait for a place; `flow` as in `RequestBudget.acquire`."""
        ticket = Ticket.of(flow)
        ticket.check_wanted()
        if self._free:
            self._free -= 1
            return
        self._turns.join(ticket)
        try:
            await ticket.called()
        except (asyncio.CancelledError, WithdrawnError):
            # Given a place and cancelled in the same moment: the place goes to the next one.
            if ticket.turns is None:
                self.release()
            self._turns.leave(ticket)
            raise

    def release(self) -> None:
        """Give the place to the next one."""
        if self._turns:
            ticket = self._turns.first
            self._turns.serve(ticket)
            ticket.call()
        else:
            self._free += 1


class RequestBudget:
    """`number` requests in `per` seconds, evenly: the first at once, then one every `per / number`.

    Slots that a stalled loop missed are made up, up to a tenth of the number, so in no window of
    `per` seconds do more than the number and that tenth leave. Ten at once and ten more a second
    later were measured to arrive as up to 19 in one window; spread evenly they stay apart.

    It is fair between flows, which take turns: a call is a flow of its own, a `check_covers` is one
    flow however many ids it has, and the looks of all waits together are one. `hold` stops
    everybody. One budget may be shared by several clients of one event loop; on a second loop it
    raises `RuntimeError`.
    """

    def __init__(self, number_: float = DEFAULT_NUMBER, /, *, per: float = DEFAULT_PER) -> None:
        if number_ != inf:
            number("number", number_, at_least=1, whole=True)
        number("per", per, above=0)
        self._number, self._per = number_, per
        self._interval = per / number_
        self._slack = 0.0 if number_ == inf else number_ // 10 * self._interval
        self._next = self._held_until = -inf
        self._refusals = 0
        self._turns = Turns(self._arm)
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def unlimited(cls) -> Self:
        """A budget that never runs out; a refusal by the server holds it all the same."""
        return cls(inf)

    def __repr__(self) -> str:
        if self._number == inf:
            return "RequestBudget.unlimited()"
        return f"RequestBudget({self._number}, per={self._per:g})"

    @property
    def waiting(self) -> int:
        """How many requests are queued."""
        return len(self._turns)

    @property
    def pressure(self) -> float:
        """1 while the budget keeps up, and one more for every second that its queue will take."""
        # Steeper, and looks would come in waves: those put off together come back together.
        return 1.0 + len(self._turns) * self._interval

    async def acquire(self, flow: Hashable = None) -> float:
        """Wait for a slot; return the `loop.time()` at which it was given.

        `flow` is whose turn is taken; `None` is a flow of its own. Cancelling costs no slot.
        """
        # A ticket stands for its flow, and raises `WithdrawnError` here when it is withdrawn.
        ticket = Ticket.of(flow)
        ticket.check_wanted()
        loop = self._bound_loop()
        if not self._turns and self._opening() <= (now := loop.time()):
            self._next = now + self._interval
            return now
        await self._turn(loop, ticket)
        now = loop.time()
        # A queue stood here, so late means missed, and is made up within the slack.
        self._next = max(self._opening(), now - self._slack) + self._interval
        self._arm()
        return now

    def hold(self, seconds: float) -> None:
        """Let no request go for this long from now; the longest hold in force counts."""
        number("seconds", seconds, at_least=0)
        until = self._bound_loop().time() + seconds
        self._held_until = max(self._held_until, until)

    def refused(self, granted: float) -> int:
        """Count a refusal of a request whose slot was given at `granted`; refusals in a row so far.

        Those that left before the last hold ended tell nothing new: a hundred requests in flight
        that are refused together are one refusal.
        """
        if granted >= self._held_until or not self._refusals:
            self._refusals += 1
        return self._refusals

    def accepted(self, granted: float) -> None:
        """Hear that a request was not refused: pauses shrink again, one step at a time."""
        if self._refusals and granted >= self._held_until:
            self._refusals -= 1

    def _bound_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                f"{self!r} belongs to another event loop; make a budget for each loop"
            )
        return loop

    def _opening(self) -> float:
        return max(self._next, self._held_until)

    async def _turn(self, loop: asyncio.AbstractEventLoop, ticket: Ticket) -> None:
        """Return when the budget is open and it is one's turn."""
        self._turns.join(ticket)
        is_open = False
        try:
            # Called, and held again in the same moment: the turn is kept, and comes later.
            while not is_open:
                self._arm()
                await ticket.called()
                is_open = self._opening() <= loop.time()
        except (asyncio.CancelledError, WithdrawnError):
            self._turns.leave(ticket)
            self._arm()
            raise
        self._turns.serve(ticket)

    def _arm(self) -> None:
        """Call the first when the budget opens. They take the slot themselves, on leaving."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._turns:
            self._timer = self._bound_loop().call_at(self._opening(), self._turns.first.call)
