"""Queues in which flows take turns, and the places in them."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator

# The line of single requests whose time runs out.
_RUNNING_OUT = object()


class WithdrawnError(Exception):
    """A request was taken out of its queue: nobody needs it any more."""


class Ticket:
    """One request's place in the queues that it goes through, and a hand on it from outside.

    :param flow: whose turn it takes; `None` is a flow of its own.
    """

    __slots__ = ("_called", "flow", "is_hurried", "is_withdrawn", "turns")

    def __init__(self, flow: Hashable = None, *, is_hurried: bool = False) -> None:
        self.flow: Hashable = flow
        self._called: asyncio.Event | None = None  # most requests never queue
        self.turns: Turns | None = None
        self.is_hurried: bool = is_hurried
        self.is_withdrawn: bool = False

    @classmethod
    def of(cls, flow: Hashable) -> "Ticket":
        """What is given, if it is a ticket, or one of this flow."""
        return flow if isinstance(flow, cls) else cls(flow)

    @property
    def line(self) -> Hashable:
        """What those that queue with it have in common."""
        if self.flow is not None:
            return self.flow
        return _RUNNING_OUT if self.is_hurried else self

    def hurry(self) -> None:
        """Let it go before others of its flow; one that is a flow of its own, before all.

        A bulk call's time may run out for thousands of ids, which are not to keep others waiting.
        """
        if self.turns is None:
            self.is_hurried = True
        elif not self.is_hurried:
            self.turns.hurry(self)

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


class _Line:
    """The tickets of one flow: those that hurry first, and each in the order in which they came."""

    def __init__(self) -> None:
        self._hurried: OrderedDict[Ticket, None] = OrderedDict()
        self._patient: OrderedDict[Ticket, None] = OrderedDict()

    def __iter__(self) -> Iterator[Ticket]:
        yield from self._hurried
        yield from self._patient

    def __bool__(self) -> bool:
        return bool(self._hurried or self._patient)

    def add(self, ticket: Ticket) -> None:
        (self._hurried if ticket.is_hurried else self._patient)[ticket] = None

    def remove(self, ticket: Ticket) -> None:
        del (self._hurried if ticket.is_hurried else self._patient)[ticket]


class Turns:
    """Tickets that wait, by flow: the flows take turns, but for those whose time runs out.

    :param changed: called when hurry may have made another one the first.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self._lines: OrderedDict[Hashable, _Line] = OrderedDict()
        self._changed = changed
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def first(self) -> Ticket:
        """Whose turn it is."""
        return next(iter(next(iter(self._lines.values()))))

    def join(self, ticket: Ticket) -> None:
        """Come last in its flow."""
        ticket.turns = self
        self._count += 1
        self._lines.setdefault(ticket.line, _Line()).add(ticket)
        if ticket.line is _RUNNING_OUT:
            self._lines.move_to_end(_RUNNING_OUT, last=False)

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
        if ticket.line is not _RUNNING_OUT:
            self._lines.move_to_end(ticket.line)
        self.leave(ticket)

    def hurry(self, ticket: Ticket) -> None:
        """Let it go before those of its flow that do not hurry."""
        if ticket.flow is None:
            self.leave(ticket)
            ticket.is_hurried = True
            self.join(ticket)
        else:
            # Its flow keeps its place among the others.
            line = self._lines[ticket.line]
            line.remove(ticket)
            ticket.is_hurried = True
            line.add(ticket)
        self._changed()
