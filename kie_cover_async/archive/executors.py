"""Threads for blocking work: one for the database, some for files; and commits in batches."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
)
from copy import copy
from errno import ENOTDIR
from functools import partial
from os import strerror
from pathlib import Path
from typing import Any, TypeVar

from attrs import field, frozen

from .database import NAME, ArchiveDatabase, database_errors
from .files import PartFile, remove_leftovers, sync_folder
from .locking import lock_folder, retry_while_locked

T = TypeVar("T")

# While one thread hashes, others wait for the disk. More would take the interpreter lock from the
# event loop.
_FILE_THREADS = 4
# Changes in one transaction, which bounds how long another process waits for the database.
_MAX_BATCH = 64
# Seconds between two batches. A commit takes the interpreter lock from the event loop for about
# as long for one cover as for ten.
_BATCH_INTERVAL = 0.02


Outcome = tuple[Any, Exception | None]
Transaction = Callable[[ArchiveDatabase], AbstractContextManager[None]]


@frozen
class Change:
    """A change of the database, and the future of its result."""

    apply: Callable[[ArchiveDatabase], Any]
    names_changed: bool
    result: asyncio.Future[Any] = field(factory=lambda: asyncio.get_running_loop().create_future())

    def finish(self, value: object, error: Exception | None) -> None:
        """Resolve the future, unless its task was cancelled."""
        if self.result.done():
            return
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)


class CommitBatcher:
    """Commits changes that are submitted during a commit, or soon after it, in one transaction.

    Args:
        commit: Starts a commit in a thread; its future has an outcome for each change, in order.
    """

    def __init__(self, commit: Callable[[list[Change]], asyncio.Future[list[Outcome]]]) -> None:
        self._commit = commit
        self._queue: list[Change] = []
        self._is_busy = False

    async def submit(
        self, apply: Callable[[ArchiveDatabase], T], *, names_changed: bool = False
    ) -> T:
        """Return the result of a change once it is committed.

        If names in the folder have changed, these are made to survive a power failure first.
        """
        change = Change(apply, names_changed)
        self._queue.append(change)
        if not self._is_busy:
            self._start()
        result: T = await change.result
        return result

    def _start(self) -> None:
        waiting = [change for change in self._queue if not change.result.done()]
        batch, self._queue = waiting[:_MAX_BATCH], waiting[_MAX_BATCH:]
        self._is_busy = bool(batch)
        if not batch:
            return
        try:
            self._commit(batch).add_done_callback(partial(self._finish, batch))
        except RuntimeError as error:
            # The interpreter is shutting down, and no thread pool takes work any more.
            self._is_busy, self._queue = False, []
            for change in waiting:
                change.finish(None, error)

    def _finish(self, batch: list[Change], outcomes: asyncio.Future[list[Outcome]]) -> None:
        for change, outcome in zip(batch, outcomes.result(), strict=True):
            change.finish(*outcome)
        # A caller that saves one cover after another finds no queue, and never waits.
        if self._queue:
            asyncio.get_running_loop().call_later(_BATCH_INTERVAL, self._start)
        else:
            self._is_busy = False


class ArchiveExecutors:
    """An open archive folder: its database, and the threads that work in it."""

    _database: ArchiveDatabase
    _closed: asyncio.Future[None]

    def __init__(self, folder: Path) -> None:
        self.folder: Path = folder
        self._file_threads = ThreadPoolExecutor(_FILE_THREADS, "kie-cover-archive-files")
        self._database_thread = ThreadPoolExecutor(1, "kie-cover-archive-database")
        self._resources = ExitStack()
        commit = partial(self._in_database_thread, self._commit_batch)
        self.batcher: CommitBatcher = CommitBatcher(commit)
        commit_durably = partial(self._in_database_thread, self._commit_durable_batch)
        self.durable_batcher: CommitBatcher = CommitBatcher(commit_durably)
        self._users = 0
        self._is_closing = False
        self._unused = asyncio.Event()

    async def open(self) -> None:
        """Create what is missing in the folder, and open it.

        Raises:
            OSError: The folder or a file in it cannot be used; the message names it.
            ValueError: The database cannot be read, or is another program's.
        """
        try:
            await self._in_database_thread(self._open)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Wait until nothing uses the folder any more, and close it.

        Cancelling this ends only the wait.
        """
        self._is_closing = True
        self._close_if_unused()
        await self._unused.wait()
        await asyncio.shield(self._closed)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let closing wait for the end of the block."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_closing and not self._users and not self._unused.is_set():
            self._closed = self._in_database_thread(self._close)
            self._database_thread.shutdown(wait=False)
            self._unused.set()

    def on_files(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Start a function that works on files, in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._file_threads, function, *arguments)

    @asynccontextmanager
    async def part_file(self, folder: Path) -> AsyncIterator[PartFile]:
        """Provide a part file, and discard it if the block fails."""
        part = PartFile(folder)
        try:
            yield part
        except BaseException:
            # A thread may still write to it. Discarding waits for that, even if cancelled again.
            await asyncio.shield(self.on_files(part.discard))
            raise

    async def query(self, function: Callable[[ArchiveDatabase], T]) -> T:
        """Return the result of a function that works on the database, in its thread."""
        return await self._in_database_thread(self._query, function)

    def _in_database_thread(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(
            self._database_thread, function, *arguments
        )

    def _commit_durable_batch(self, changes: list[Change]) -> list[Outcome]:
        return self._commit_batch(changes, ArchiveDatabase.durable_transaction)

    def _commit_batch(
        self,
        changes: list[Change],
        transaction: Transaction = ArchiveDatabase.transaction,
    ) -> list[Outcome]:
        def apply_all(database: ArchiveDatabase) -> list[Outcome]:
            with transaction(database):
                return [(change.apply(database), None) for change in changes]

        try:
            if any(change.names_changed for change in changes):
                sync_folder(self.folder)
            return self._query(apply_all)
        except OSError as error:
            # A full disk or a locked database: the same for all of them.
            return [(None, copy(error)) for _ in changes]
        except Exception as error:  # noqa: BLE001 - whatever it is, the submitter gets it
            failure = error
        if len(changes) == 1:
            return [(None, failure)]
        # Nothing was committed. Each change alone gets its own error.
        return [
            outcome for change in changes for outcome in self._commit_batch([change], transaction)
        ]

    def _query(self, function: Callable[[ArchiveDatabase], T]) -> T:
        def attempt() -> T:
            self._database.check_files()
            return function(self._database)

        return self._retry_while_locked(attempt)

    def _retry_while_locked(self, attempt: Callable[[], T]) -> T:
        path = self.folder / NAME
        with database_errors(path):
            # Without users, an attempt must not delay closing.
            return retry_while_locked(path, attempt, lambda: not self._unused.is_set())

    def _open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(ENOTDIR, strerror(ENOTDIR), str(self.folder)) from None
        lock = lock_folder(self.folder, self._prepare, lambda: not self._unused.is_set())
        self._resources.enter_context(closing(lock))
        self._database = self._resources.enter_context(closing(self._open_database()))

    def _prepare(self) -> None:
        """Clean up and create the database while no other process can see it half done."""
        remove_leftovers(self.folder)
        self._open_database().close()

    def _open_database(self) -> ArchiveDatabase:
        return self._retry_while_locked(partial(ArchiveDatabase, self.folder))

    def _close(self) -> None:
        # In the database's thread, to which both resources belong.
        self._file_threads.shutdown()
        self._resources.close()
