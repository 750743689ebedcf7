"""What blocks, off the event loop: the disk in some threads, the record in one of its own."""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

from .failures import failures_of
from .files import sync_folder
from .locks import when_unlocked
from .notes import Note, Notes, Outcome
from .parts import sweep
from .presence import Presence
from .record import NAME, Record

T = TypeVar("T")

# While some wait for the disk another one hashes; more would keep the event loop from its turn.
_THREADS = 3


class Threads:
    """The folder opened: its record, and threads to work in it."""

    _record: Record
    _given_back: asyncio.Future[None]

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._disk = ThreadPoolExecutor(_THREADS, "kie-cover-archive-disk")
        self._clerk = ThreadPoolExecutor(1, "kie-cover-archive-record")
        self._opened: list[Presence | Record] = []
        self._notes = Notes(self._write)
        self._users = 0
        self._is_closing = False
        self._unused = asyncio.Event()

    async def open(self) -> None:
        """Make what is not there; raises `ValueError` or `OSError`, which names the file."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._clerk, self._open)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """When nobody uses them any more, let what has begun end, and give everything back.

        Cancelling this ends the waiting alone.
        """
        self._is_closing = True
        self._give_back_if_unused()
        await self._unused.wait()
        await asyncio.shield(self._given_back)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """A block that closing waits for."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._give_back_if_unused()

    def _give_back_if_unused(self) -> None:
        if self._is_closing and not self._users and not self._unused.is_set():
            loop = asyncio.get_running_loop()
            self._given_back = loop.run_in_executor(self._clerk, self._close)
            self._clerk.shutdown(wait=False)
            self._unused.set()

    def begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Work on files, in some thread."""
        return asyncio.get_running_loop().run_in_executor(self._disk, work)

    async def ask(self, question: Callable[[Record], T]) -> T:
        """Work on the record, in its thread."""
        loop = asyncio.get_running_loop()
        with self.in_use():
            return await loop.run_in_executor(self._clerk, self._answer, question)

    async def note(self, change: Callable[[Record], T], *, names_changed: bool = False) -> T:
        """Like `ask`, and in one transaction with what others note about then.

        Where names in the folder have changed, a loss of power leaves them as they are now.
        """
        return await self._notes.add(change, names_changed=names_changed)

    def _write(self, notes: list[Note]) -> asyncio.Future[list[Outcome]]:
        return asyncio.get_running_loop().run_in_executor(self._clerk, self._note_all, notes)

    def _note_all(self, notes: list[Note]) -> list[Outcome]:
        try:
            return [(value, None) for value in self._noted(notes)]
        except OSError as error:
            # A disk that is full, a record that is locked: that is so for all of them.
            return [(None, copy(error)) for _ in notes]
        except Exception as error:  # noqa: BLE001 - whatever it is, who noted hears of it
            failure = error
        if len(notes) == 1:
            return [(None, failure)]
        # Nothing was noted; each is to hear of its own failure alone.
        return [outcome for note in notes for outcome in self._note_all([note])]

    def _noted(self, notes: list[Note]) -> list[Any]:
        if any(note.names_changed for note in notes):
            sync_folder(self._folder)
        return self._answer(lambda record: record.together([note.change for note in notes]))

    def _answer(self, question: Callable[[Record], T]) -> T:
        def attempt() -> T:
            self._record.check_place()
            return question(self._record)

        return self._when_unlocked(attempt)

    def _when_unlocked(self, attempt: Callable[[], T]) -> T:
        with failures_of(self._folder / NAME):
            return when_unlocked(self._folder / NAME, attempt, self._is_wanted)

    def _is_wanted(self) -> bool:
        """Return whether the archive is still used: without users it must not delay the end."""
        return not self._unused.is_set()

    def _open(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            said = os.strerror(errno.ENOTDIR)
            raise NotADirectoryError(errno.ENOTDIR, said, str(self._folder)) from None
        self._opened.append(Presence(self._folder, self._when_alone, self._is_wanted))
        self._record = self._open_record()
        self._opened.append(self._record)

    def _when_alone(self) -> None:
        sweep(self._folder)
        # Nobody else is to meet a record that is only half made.
        self._open_record().close()

    def _open_record(self) -> Record:
        return self._when_unlocked(lambda: Record(self._folder))

    def _close(self) -> None:
        # In the record's thread: both belong to it.
        self._disk.shutdown()
        while self._opened:
            self._opened.pop().close()
