"""Who else is at work in the folder: a lock that ends with its process, however that ends."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .files import UNOPENED_HINT
from .locks import ATTEMPT, when_unlocked

_IS_FOR = "which only says that the folder is in use"
_REMOVE = "remove it while nobody uses the folder, and it is made anew"


class Presence:
    """Holds a shared lock while it is open; who gets the exclusive one knows to be alone.

    The locks are SQLite's, on a database without tables, since these are the same on all systems.
    Another process holds the exclusive lock while it sweeps the folder and opens the record;
    `is_wanted` is asked meanwhile whether to go on waiting for it.

    Raises `OSError` where there can be no such file, and `ValueError` where it is another one.
    """

    def __init__(
        self, folder: Path, when_alone: Callable[[], object], is_wanted: Callable[[], bool]
    ) -> None:
        self._path = folder / ".in-use"
        with _failures_of(self._path):
            self._connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            self._open(when_alone, is_wanted)

    def close(self) -> None:
        """Be gone."""
        self._connection.close()

    def _open(self, when_alone: Callable[[], object], is_wanted: Callable[[], bool]) -> None:
        try:
            if self._is_alone():
                when_alone()
                self._connection.execute("COMMIT")
            self._be_seen(is_wanted)
        except BaseException:
            self._connection.close()
            raise

    def _is_alone(self) -> bool:
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            return False
        return True

    def _be_seen(self, is_wanted: Callable[[], bool]) -> None:
        self._connection.execute(f"PRAGMA busy_timeout = {ATTEMPT * 1000:.0f}")
        self._connection.execute("BEGIN")
        # A transaction has its lock from its first reading on.
        when_unlocked(self._path, self._read, is_wanted)

    def _read(self) -> None:
        self._connection.execute("SELECT * FROM sqlite_master").fetchall()


@contextmanager
def _failures_of(path: Path) -> Iterator[None]:
    """Turn what SQLite raises inside into an error that names the file, and what helps."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(f"{path} cannot be used: {error}{_hint(path, str(error))}") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} cannot be read, {_IS_FOR}: {error}; {_REMOVE}") from error


def _hint(path: Path, said: str) -> str:
    if path.is_dir():
        return f"; {_REMOVE}"
    return UNOPENED_HINT if "unable to open" in said else ""
