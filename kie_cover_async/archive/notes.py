"""Changes of the record by many, in one transaction."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from attrs import field, frozen

T = TypeVar("T")

# Another process that saves is not kept waiting for longer than so many changes take.
_TOGETHER = 64
# Seconds between two transactions: each keeps the event loop from its turn, for one cover or ten.
_PAUSE = 0.02

Outcome = tuple[Any, Exception | None]


@frozen
class Note:
    """A change, and who waits for what comes of it.

    Where it says that names in the folder have changed, they are to last before it is made.
    """

    change: Callable[[Any], Any]
    names_changed: bool
    answer: asyncio.Future[Any] = field(factory=lambda: asyncio.get_running_loop().create_future())

    def tell(self, value: object, error: Exception | None) -> None:
        """Unless nobody waits any more."""
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(value)
        else:
            self.answer.set_exception(error)


class Notes:
    """Lets those who come while others are noted, or soon after, be noted together.

    :param write: begins with some of them, in a thread; what comes of each, in their order.
    """

    def __init__(self, write: Callable[[list[Note]], asyncio.Future[list[Outcome]]]) -> None:
        self._write = write
        self._waiting: list[Note] = []
        self._is_busy = False

    async def add(self, change: Callable[[Any], T], *, names_changed: bool) -> T:
        """What comes of it, once it is noted."""
        note = Note(change, names_changed)
        self._waiting.append(note)
        if not self._is_busy:
            self._begin()
        answer: T = await note.answer
        return answer

    def _begin(self) -> None:
        wanted = [note for note in self._waiting if not note.answer.done()]
        notes, self._waiting = wanted[:_TOGETHER], wanted[_TOGETHER:]
        self._is_busy = bool(notes)
        if notes:
            try:
                self._write(notes).add_done_callback(partial(self._end, notes))
            except RuntimeError as error:
                # The interpreter is about to end, and no thread takes anything any more.
                self._is_busy, self._waiting = False, []
                for note in wanted:
                    note.tell(None, error)

    def _end(self, notes: list[Note], noted: asyncio.Future[list[Outcome]]) -> None:
        for note, outcome in zip(notes, noted.result(), strict=True):
            note.tell(*outcome)
        # Who saves one cover after another never waits for others: there are none.
        if self._waiting:
            asyncio.get_running_loop().call_later(_PAUSE, self._begin)
        else:
            self._is_busy = False
