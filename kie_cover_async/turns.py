"""Queues in which flows take turns, and the places in them."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Final

WAITS: Final = object()
"""The one flow of all polls that waits make, however many there are."""


class WithdrawnError(Exception):
    """A request was taken out of its queue: nobody needs it any more."""


class Ticket:
    """One request's place in the queues that it goes through, and a hand on it from outside.

    :param flow: whose turn it takes; `None` is a flow of its own.
    :param due: its order within the flow: a moment, or `-inf` for a request that is urgent.
    """

    __slots__ = ("_called", "due", "entry", "flow", "is_withdrawn", "turns")

    def __init__(self, flow: Hashable = None, *, due: float = 0.0) -> None:
        self.flow: Hashable = flow
        self.due: float = due
        self._called: asyncio.Event | None = None  # most requests never queue
        self.turns: Turns | None = None
        self.entry: _Entry | None = None
        self.is_withdrawn: bool = False

    @classmethod
    def of(cls, flow: Hashable) -> "Ticket":
        """What is given, if it is a ticket, or one of this flow."""
        return flow if isinstance(flow, cls) else cls(flow)

    @property
    def line(self) -> Hashable:
        """What those that queue with it have in common."""
        return self if self.flow is None else self.flow

    def hurry(self) -> None:
        """Let it go before others of its flow; other flows keep their turns."""
        if self.due > -inf:
            self.due = -inf
            if self.turns is not None:
                self.turns.reorder(self)

    def withdraw(self) -> None:
        """End its queueing with `WithdrawnError`."""
        self.is_withdrawn = True
        self.call()

    def call(self) -> None:
        """Wake whoever waits."""
        if self._called is not None:
            self._called.set()

    async def called(self) -> None:
        """Wait for that; raises `WithdrawnError`."""
        if self._called is None:
            self._called = asyncio.Event()
        await self._called.wait()
        self._called.clear()
        self.check_wanted()

    def check_wanted(self) -> None:
        """Raises `WithdrawnError` where nobody needs it any more."""
        if self.is_withdrawn:
            raise WithdrawnError


# When it is due, and which of several was added first.
_Entry = tuple[float, int, Ticket]
_number = count()


class _Line:
    """The tickets of one flow, as a heap: the first is the one that is due first."""

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._size = 0

    def __bool__(self) -> bool:
        return self._size > 0

    @property
    def first(self) -> Ticket:
        while not _is_current(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][-1]

    def add(self, ticket: Ticket) -> None:
        ticket.entry = (ticket.due, next(_number), ticket)
        heappush(self._heap, ticket.entry)
        self._size += 1

    def remove(self, ticket: Ticket) -> None:
        """Leave its entry in the heap, until it comes up or such entries are the most."""
        ticket.entry = None
        self._size -= 1
        if len(self._heap) > 2 * self._size:
            self._heap = list(filter(_is_current, self._heap))
            heapify(self._heap)


def _is_current(entry: _Entry) -> bool:
    return entry[-1].entry is entry


class Turns:
    """Tickets that wait, by flow. The flows take turns.

    A flow that joins goes before the one that had the last turn. So a single request waits for no
    more than one turn of a flow that always has requests waiting.

    :param changed: called when another ticket may have become the first.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self._lines: OrderedDict[Hashable, _Line] = OrderedDict()
        self._served: Hashable = None
        self._changed = changed
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def first(self) -> Ticket:
        """Whose turn it is."""
        return next(iter(self._lines.values())).first

    def join(self, ticket: Ticket) -> None:
        """Take its place among those of its flow."""
        ticket.turns = self
        self._count += 1
        if ticket.line not in self._lines:
            self._lines[ticket.line] = _Line()
            if self._served in self._lines:
                self._lines.move_to_end(self._served)
        self._lines[ticket.line].add(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Be gone; does nothing for one that is."""
        if ticket.turns is self:
            ticket.turns = None
            self._count -= 1
            line = self._lines[ticket.line]
            line.remove(ticket)
            if not line:
                del self._lines[ticket.line]

    def serve(self, ticket: Ticket) -> None:
        """It has its turn, and the next one of its flow comes after those of all the others."""
        self._lines.move_to_end(ticket.line)
        self._served = ticket.flow
        self.leave(ticket)

    def reorder(self, ticket: Ticket) -> None:
        """Put it where it belongs in its flow, after its `due` was changed."""
        line = self._lines[ticket.line]
        line.remove(ticket)
        line.add(ticket)
        self._changed()
