"""A queue in which flows take turns, and the entries that wait in it."""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Final

from attrs import define

WAITS: Final = object()
"""The one flow of all polls that waits make, however many there are."""


class QueueEntryWithdrawnError(Exception):
    """A request was taken out of its queue, because another one serves its caller."""


@define(eq=False, repr=False)
class QueueEntry:
    """One request's entry in the queues that it passes through."""

    flow: Hashable = None
    """Entries of one flow take turns with other flows together; `None` makes a flow of its own."""
    due: float = 0.0
    """Orders the entries of a flow, the lowest first; equal ones by arrival."""
    urgent_at: float = inf
    """The `loop.time()` from which the entry goes before others of its flow."""
    queue: "FairQueue | None" = None
    is_withdrawn: bool = False
    _wakeup: asyncio.Future[None] | None = None

    def make_urgent(self, urgent_at: float) -> None:
        """Let the entry be urgent from this time on, if that is earlier than before."""
        if urgent_at < self.urgent_at:
            self.urgent_at = urgent_at
            if self.queue is not None:
                self.queue.on_urgent(self)

    def withdraw(self) -> None:
        """End the queueing with `QueueEntryWithdrawnError`."""
        self.is_withdrawn = True
        self.wake()

    def wake(self) -> None:
        """Make `woken` return, if it is awaited."""
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    async def woken(self) -> None:
        """Wait for `wake`.

        Raises:
            QueueEntryWithdrawnError: The entry was withdrawn.
        """
        if not self.is_withdrawn:
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            finally:
                self._wakeup = None
        if self.is_withdrawn:
            raise QueueEntryWithdrawnError


_HeapItem = tuple[float, int, QueueEntry]
_Heap = list[_HeapItem]
_arrivals = count()


class _Flow:
    """The entries of one flow in two heaps: by when they are due, and by when they turn urgent.

    An entry that has left stays in a heap until it comes to the top, or until such entries are the
    most. One that turns urgent earlier than before is in its heap twice.
    """

    __slots__ = ("_by_due", "_by_urgency", "_queue", "size")

    def __init__(self, queue: "FairQueue") -> None:
        self._queue = queue
        self._by_due: _Heap = []
        self._by_urgency: _Heap = []
        self.size: int = 0

    def add(self, entry: QueueEntry) -> None:
        self.size += 1
        heappush(self._by_due, (entry.due, next(_arrivals), entry))
        self.on_urgent(entry)

    def on_urgent(self, entry: QueueEntry) -> None:
        if entry.urgent_at < inf:
            heappush(self._by_urgency, (entry.urgent_at, next(_arrivals), entry))

    def remove(self) -> None:
        """Count an entry that has left."""
        self.size -= 1
        for heap in (self._by_due, self._by_urgency):
            if len(heap) > 2 * self.size + 16:
                heap[:] = filter(self._counts, heap)
                heapify(heap)

    def first(self, now: float) -> QueueEntry:
        self._drop_gone(self._by_urgency)
        if self._by_urgency and self._by_urgency[0][0] <= now:
            return self._by_urgency[0][2]
        self._drop_gone(self._by_due)
        return self._by_due[0][2]

    def _counts(self, item: _HeapItem) -> bool:
        """Return whether the entry is still here, and has not turned urgent earlier since."""
        time, _, entry = item
        return entry.queue is self._queue and time in (entry.due, entry.urgent_at)

    def _drop_gone(self, heap: _Heap) -> None:
        while heap and heap[0][2].queue is not self._queue:
            heappop(heap)


class FairQueue:
    """Entries that wait, by flow. The flows take turns (round robin).

    A flow that joins goes before the one that had the last turn. So a single request waits for no
    more than one turn of a flow that always has requests waiting.
    """

    def __init__(self) -> None:
        self.size: int = 0
        self._flows: OrderedDict[Hashable, _Flow] = OrderedDict()
        self._served: Hashable = None

    def first(self, now: float) -> QueueEntry:
        """Return the entry whose turn it is at this `loop.time()`."""
        return next(iter(self._flows.values())).first(now)

    def join(self, entry: QueueEntry) -> None:
        """Add the entry to its flow."""
        entry.queue = self
        self.size += 1
        key = _flow_key(entry)
        if (flow := self._flows.get(key)) is None:
            flow = self._flows[key] = _Flow(self)
            if self._served in self._flows:
                self._flows.move_to_end(self._served)
        flow.add(entry)

    def leave(self, entry: QueueEntry) -> None:
        """Remove the entry, if it is still here."""
        if entry.queue is self:
            entry.queue = None
            self.size -= 1
            key = _flow_key(entry)
            flow = self._flows[key]
            flow.remove()
            if not flow.size:
                del self._flows[key]

    def serve(self, entry: QueueEntry) -> None:
        """Remove the entry, and let all other flows go before the next one of its flow."""
        self._flows.move_to_end(_flow_key(entry))
        self._served = entry.flow
        self.leave(entry)

    def on_urgent(self, entry: QueueEntry) -> None:
        """Put an entry that turns urgent earlier where it belongs."""
        self._flows[_flow_key(entry)].on_urgent(entry)


def _flow_key(entry: QueueEntry) -> Hashable:
    return entry if entry.flow is None else entry.flow
