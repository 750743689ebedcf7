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


class QueueEntryCancelledError(Exception):
    """A request was taken out of its queue: nobody needs it any more."""


class QueueEntry:
    """One request's place in the queues that it goes through, and a hand on it from outside.

    :param flow: whose turn it takes; `None` is a flow of its own.
    :param due: its order within the flow: a moment, or `-inf` for a request that is urgent.
    """

    __slots__ = ("_called", "due", "flow", "heap_item", "is_cancelled", "queue")

    def __init__(self, flow: Hashable = None, *, due: float = 0.0) -> None:
        self.flow: Hashable = flow
        self.due: float = due
        self._called: asyncio.Event | None = None  # most requests never queue
        self.queue: FairQueue | None = None
        self.heap_item: _HeapItem | None = None
        self.is_cancelled: bool = False

    @classmethod
    def of(cls, flow: Hashable) -> "QueueEntry":
        """What is given, if it is a queue entry, or one of this flow."""
        return flow if isinstance(flow, cls) else cls(flow)

    @property
    def line(self) -> Hashable:
        """What those that queue with it have in common."""
        return self if self.flow is None else self.flow

    def prioritize(self) -> None:
        """Let it go before others of its flow; other flows keep their turns."""
        if self.due > -inf:
            self.due = -inf
            if self.queue is not None:
                self.queue.reorder(self)

    def cancel(self) -> None:
        """End its queueing with `QueueEntryCancelledError`."""
        self.is_cancelled = True
        self.call()

    def call(self) -> None:
        """Wake whoever waits."""
        if self._called is not None:
            self._called.set()

    async def called(self) -> None:
        """Wait for that; raises `QueueEntryCancelledError`."""
        if self._called is None:
            self._called = asyncio.Event()
        await self._called.wait()
        self._called.clear()
        self.check_wanted()

    def check_wanted(self) -> None:
        """Raises `QueueEntryCancelledError` where nobody needs it any more."""
        if self.is_cancelled:
            raise QueueEntryCancelledError


# When it is due, and which of several was added first.
_HeapItem = tuple[float, int, QueueEntry]
_number = count()


class _Line:
    """The entries of one flow, as a heap: the first is the one that is due first."""

    def __init__(self) -> None:
        self._heap: list[_HeapItem] = []
        self._size = 0

    def __bool__(self) -> bool:
        return self._size > 0

    @property
    def first(self) -> QueueEntry:
        while not _is_current(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][-1]

    def add(self, entry: QueueEntry) -> None:
        entry.heap_item = (entry.due, next(_number), entry)
        heappush(self._heap, entry.heap_item)
        self._size += 1

    def remove(self, entry: QueueEntry) -> None:
        """Leave its entry in the heap, until it comes up or such entries are the most."""
        entry.heap_item = None
        self._size -= 1
        if len(self._heap) > 2 * self._size:
            self._heap = list(filter(_is_current, self._heap))
            heapify(self._heap)


def _is_current(heap_item: _HeapItem) -> bool:
    return heap_item[-1].heap_item is heap_item


class FairQueue:
    """Entries that wait, by flow. The flows take turns.

    A flow that joins goes before the one that had the last turn. So a single request waits for no
    more than one turn of a flow that always has requests waiting.

    :param changed: called when another queue entry may have become the first.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self._lines: OrderedDict[Hashable, _Line] = OrderedDict()
        self._served: Hashable = None
        self._changed = changed
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def first(self) -> QueueEntry:
        """Whose turn it is."""
        return next(iter(self._lines.values())).first

    def join(self, entry: QueueEntry) -> None:
        """Take its place among those of its flow."""
        entry.queue = self
        self._count += 1
        if entry.line not in self._lines:
            self._lines[entry.line] = _Line()
            if self._served in self._lines:
                self._lines.move_to_end(self._served)
        self._lines[entry.line].add(entry)

    def leave(self, entry: QueueEntry) -> None:
        """Be gone; does nothing for one that is."""
        if entry.queue is self:
            entry.queue = None
            self._count -= 1
            line = self._lines[entry.line]
            line.remove(entry)
            if not line:
                del self._lines[entry.line]

    def serve(self, entry: QueueEntry) -> None:
        """It has its turn, and the next one of its flow comes after those of all the others."""
        self._lines.move_to_end(entry.line)
        self._served = entry.flow
        self.leave(entry)

    def reorder(self, entry: QueueEntry) -> None:
        """Put it where it belongs in its flow, after its `due` was changed."""
        line = self._lines[entry.line]
        line.remove(entry)
        line.add(entry)
        self._changed()
