"""Who else is at work in the folder: a lock that ends with its process, however that ends."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

# Seconds for somebody else to sweep the folder and to open the record.
_PATIENCE = 30.0


class Presence:
    """Holds a shared lock while it is open; who gets the exclusive one knows to be alone.

    The locks are SQLite's, on a file that stays empty, since these are the same on all systems.
    """

    def __init__(self, folder: Path, when_alone: Callable[[], object]) -> None:
        path = folder / ".in-use"
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            if self._is_alone():
                when_alone()
                self._connection.execute("COMMIT")
            self._be_seen()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Be gone."""
        self._connection.close()

    def _is_alone(self) -> bool:
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            return False
        return True

    def _be_seen(self) -> None:
        self._connection.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000:.0f}")
        self._connection.execute("BEGIN")
        # A transaction has its lock from its first reading on.
        self._connection.execute("SELECT * FROM sqlite_master").fetchall()
