"""SQLite locks: waiting for another program's, and those of an open folder and of a claimant."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from kie_cover_async.ledger import new_claimant

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds that SQLite itself waits for a lock; it cannot be interrupted meanwhile.
BUSY_TIMEOUT = 0.25
# Seconds. Another process writes for milliseconds, but a disk may take seconds to wake up.
_MAX_WAIT = 30.0
_WARN_AFTER = 1.0

_REMOVE = "remove it while no program uses the folder, and it is created again"


def retry_while_locked(path: Path, attempt: Callable[[], T], is_wanted: Callable[[], bool]) -> T:
    """Return the result of *attempt*, repeating it while another program has *path* locked.

    *attempt* must leave nothing behind when it fails. A warning names the file after a second.

    Raises:
        sqlite3.OperationalError: After 30 seconds, or once the result is no longer wanted.
    """
    started, is_logged = time.monotonic(), False
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            waited = time.monotonic() - started
            if not _is_locked(error) or waited >= _MAX_WAIT or not is_wanted():
                raise
        if waited >= _WARN_AFTER and not is_logged:
            _log.warning("waiting for %s, which another program has locked", path)
            is_logged = True


def _is_locked(error: sqlite3.OperationalError) -> bool:
    # An extended code has the primary one in its lowest byte. The package's own errors have none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


@contextmanager
def operational_errors(subject: str, hint: str = "") -> Iterator[None]:
    """Turn an `sqlite3.OperationalError` into an `OSError` that names *subject*.

    Args:
        subject: The file, with its path.
        hint: What to do, for an error that is not about opening a file.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if "unable to open" in str(error):
            # SQLite says no more than that.
            hint = (
                hint or "; may this process write to the folder, and open more files (ulimit -n)?"
            )
        raise OSError(f"{subject} cannot be used: {error}{hint}") from error


def lock_folder(
    folder: Path, when_alone: Callable[[], object], is_wanted: Callable[[], bool]
) -> sqlite3.Connection:
    """Take a shared lock on a folder, held until the returned connection is closed.

    The lock ends with the process, however that ends. It is SQLite's, on a database without
    tables, since these locks work alike on all systems.

    Args:
        folder: The folder, which holds the lock file `.in-use`.
        when_alone: Called under an exclusive lock if no other archive has the folder open.
        is_wanted: Called while another process has the exclusive lock; false ends the wait.

    Raises:
        OSError: The lock file cannot be created or opened.
        ValueError: The file is not an SQLite database.
    """
    path = folder / ".in-use"
    with _lock_file_errors(path), ExitStack() as stack:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        stack.enter_context(closing(connection))
        with suppress(sqlite3.OperationalError):
            connection.execute("BEGIN EXCLUSIVE")
        if connection.in_transaction:
            when_alone()
            connection.execute("COMMIT")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")
        connection.execute("BEGIN")
        # A transaction holds its shared lock from its first read on.
        retry_while_locked(path, partial(_read, connection), is_wanted)
        stack.pop_all()
    return connection


class ClaimantLock:
    """A lock that shows other processes that this claimant of songs lives.

    Like `lock_folder` it uses SQLite, since Windows has no `flock`, and a forked child would keep
    one. The file stays empty, and is removed when the lock is closed.
    """

    def __init__(self, folder: Path) -> None:
        self.name: str = new_claimant()
        self._path = _claimant_path(folder, self.name)
        self._connection: sqlite3.Connection | None = None

    def hold(self) -> None:
        """Take the lock, if that was not done yet."""
        if self._connection is not None:
            return
        with _lock_file_errors(self._path), ExitStack() as stack:
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            stack.enter_context(closing(connection))
            # Otherwise the transaction, which is never committed, has a second file.
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("BEGIN EXCLUSIVE")
            stack.pop_all()
        self._connection = connection

    def close(self) -> None:
        """Release the lock, and remove its file."""
        if self._connection is not None:
            self._connection.close()
            # On Windows, another process may be reading it.
            with suppress(OSError):
                self._path.unlink()


def is_claimant_alive(folder: Path, claimed_by: str) -> bool:
    """Return whether a claimant has its lock; remove the file of one that has not."""
    path = _claimant_path(folder, claimed_by)
    if not path.exists():
        return False
    with _lock_file_errors(path):
        try:
            with closing(sqlite3.connect(path, timeout=0)) as connection:
                # A shared lock, so that two checks do not take each other for the claimant.
                _read(connection)
        except sqlite3.OperationalError as error:
            if not _is_locked(error):
                raise
            return True
    path.unlink(missing_ok=True)
    return False


def _claimant_path(folder: Path, claimed_by: str) -> Path:
    # Hashed, since the name comes from a row, and may be anything.
    return folder / f".claimant-{sha256(claimed_by.encode()).hexdigest()[:16]}"


def _read(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT * FROM sqlite_master").fetchall()


@contextmanager
def _lock_file_errors(path: Path) -> Iterator[None]:
    try:
        with operational_errors(str(path), f"; {_REMOVE}" * path.is_dir()):
            yield
    except sqlite3.DatabaseError as error:
        said = f"{path} cannot be read, which only says that the folder is in use"
        raise ValueError(f"{said}: {error}; {_REMOVE}") from error
