"""The archive's database: one SQLite file with its tables, used from one thread.

`covers.py` and `songs.py` have the statements on the tables. Several tables can change in one
transaction.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from .files import file_identity
from .locking import BUSY_TIMEOUT, ClaimantLock, operational_errors

NAME = "covers.sqlite3"
_FILES = (NAME, f"{NAME}-wal", f"{NAME}-shm")

_VERSION = 3
# Seconds since 1970.
NOW = "(julianday('now') - 2440587.5) * 86400.0"
# The first id of a song that may still succeed.
OPEN_ID = """
    SELECT task_id FROM song_tasks JOIN tasks USING (task_id)
    WHERE music_task_id = songs.music_task_id AND NOT is_wrong AND tasks.state != 'failed'
    ORDER BY song_tasks.rowid LIMIT 1
"""
# The values of columns that are about the wait for one id, when that wait begins or ends.
NO_WAIT = "due_at = NULL, waited_by = NULL, trouble = NULL, trouble_count = 0, trouble_since = NULL"
# Each creates what is missing; then columns are added that earlier versions lack.
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS tasks (
        place INTEGER PRIMARY KEY, task_id TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
        details TEXT, expires_at REAL, error TEXT, added_at REAL NOT NULL, route TEXT, origin TEXT
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS files (
        task_id TEXT NOT NULL, number INTEGER NOT NULL, url TEXT NOT NULL, name TEXT NOT NULL,
        sha256 TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
        width INTEGER NOT NULL, height INTEGER NOT NULL,
        PRIMARY KEY (task_id, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS songs (
        position INTEGER PRIMARY KEY, music_task_id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL CHECK (
            state IN ('wanted', 'submitting', 'submitted', 'in_doubt', 'failed', 'kept')
        ),
        task_id TEXT, route TEXT, origin TEXT,
        claimed_by TEXT, claimed_at REAL, attempt INTEGER NOT NULL DEFAULT 0,
        due_at REAL, reason TEXT, added_at REAL NOT NULL, changed_at REAL NOT NULL,
        waited_by TEXT, trouble TEXT, trouble_count INTEGER NOT NULL DEFAULT 0, trouble_since REAL,
        CHECK (task_id IS NOT NULL OR state NOT IN ('submitted', 'kept'))
    )
    """,
    "CREATE INDEX IF NOT EXISTS songs_by_state ON songs (state)",
    "CREATE INDEX IF NOT EXISTS songs_by_task ON songs (task_id)",
    # The ids of each song. A wrong one belongs to another song.
    """
    CREATE TABLE IF NOT EXISTS song_tasks (
        music_task_id TEXT NOT NULL, task_id TEXT NOT NULL, is_wrong INTEGER NOT NULL DEFAULT 0,
        UNIQUE (music_task_id, task_id)
    )
    """,
    "CREATE INDEX IF NOT EXISTS song_tasks_by_task ON song_tasks (task_id)",
    """
    CREATE TABLE IF NOT EXISTS callback_secrets (
        number INTEGER PRIMARY KEY, secret TEXT NOT NULL, added_at REAL NOT NULL
    )
    """,
    # The song is empty if a callback came at a URL of no song.
    """
    CREATE TABLE IF NOT EXISTS candidates (
        task_id TEXT NOT NULL, music_task_id TEXT NOT NULL, route TEXT NOT NULL,
        origin TEXT NOT NULL, added_at REAL NOT NULL,
        UNIQUE (task_id, music_task_id, route, origin)
    )
    """,
    "DROP TRIGGER IF EXISTS songs_follow_tasks",
    # A trigger, so that no statement on `tasks` can leave the song behind.
    f"""
    CREATE TRIGGER songs_follow_tasks AFTER UPDATE OF state ON tasks
    BEGIN
        UPDATE songs SET state = 'kept', task_id = new.task_id, {NO_WAIT}, reason = NULL,
            changed_at = {NOW}
        WHERE new.state = 'saved' AND state != 'kept' AND music_task_id IN (
            SELECT music_task_id FROM song_tasks WHERE task_id = new.task_id AND NOT is_wrong
        );
        UPDATE songs SET state = 'submitted', due_at = NULL, reason = NULL, changed_at = {NOW}
        WHERE new.state = 'pending' AND old.state != 'pending'
            AND task_id = new.task_id AND state IN ('kept', 'failed');
        UPDATE songs SET state = CASE WHEN ({OPEN_ID}) IS NULL THEN 'failed' ELSE state END,
            task_id = coalesce(({OPEN_ID}), task_id), {NO_WAIT}, reason = new.error,
            changed_at = {NOW}
        WHERE new.state = 'failed' AND task_id = new.task_id AND state = 'submitted';
    END
    """,  # noqa: S608 - constants
)
# The columns that are read, by table; a user may have added others.
COLUMNS = {
    "tasks": "place, task_id, state, details, expires_at, error, added_at, route, origin",
    "files": "task_id, number, url, name, sha256, size, media_type, width, height",
    "songs": (
        "position, music_task_id, state, task_id, route, origin, claimed_by, claimed_at, attempt, "
        "due_at, reason, added_at, changed_at, trouble, "
        "trouble_count, trouble_since, waited_by"
    ),
    "song_tasks": "music_task_id, task_id, is_wrong",
    "callback_secrets": "number, secret, added_at",
    "candidates": "task_id, music_task_id, route, origin, added_at",
}
_NEW_COLUMNS = {
    "tasks": {"route": "TEXT", "origin": "TEXT"},
    "songs": {
        "waited_by": "TEXT",
        "trouble": "TEXT",
        "trouble_count": "INTEGER NOT NULL DEFAULT 0",
        "trouble_since": "REAL",
    },
}
_VERSION_1 = {
    "tasks": COLUMNS["tasks"].removesuffix(", route, origin"),
    "files": COLUMNS["files"],
}

_ROW_CURE = "copy the file, then correct or delete this row with an SQLite tool"
_FILE_CURE = "replace it with a backup, or recover it with an SQLite tool"
_MOVE = (
    "or move it away: a new record adopts complete images as their covers are saved again, and "
    "lacks ids that only this one has"
)


class DamagedRecordError(ValueError):
    """The record of an archive cannot be read; the message names the file, the row and the cure."""


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into an `OSError` or a `DamagedRecordError` that names the file."""
    try:
        with operational_errors(f"the record {path}"):
            yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        # SQLite quotes a damaged schema in its message, which Python then cannot decode.
        reason = "its schema is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        cure = _ROW_CURE if isinstance(error, sqlite3.DataError) else _FILE_CURE
        said = f"{path} cannot be read as an archive's record: {reason}"
        raise DamagedRecordError(f"{said}; {cure}, {_MOVE}") from error


def check_integrity(path: Path) -> None:
    """Let SQLite check every page of the file, by a connection of its own.

    Raises:
        DamagedRecordError: Pages contradict each other, which no single row may show.
    """
    with database_errors(path), closing(sqlite3.connect(path)) as connection:
        [found] = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(found.split()))


class ArchiveDatabase:
    """A connection to the database. It blocks, and belongs to the thread that opened it.

    The file is created if there is none; only one process may do that at a time.

    A commit survives the end of the process. A power failure may take the last ones, except
    in a `durable_transaction`.

    Raises:
        ValueError: The file is of a later version, or another program's; it is not altered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Path = folder
        self.claimant: ClaimantLock = ClaimantLock(folder)
        self._path = folder / NAME
        self._identities: dict[str, tuple[int, int] | None] = {}
        self._connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None)
        self._connection.text_factory = _decode
        try:
            self._open()
            self._identities = {name: file_identity(folder / name) for name in _FILES}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, and let others know that no claim of this one is in use."""
        self._connection.close()
        self.claimant.close()

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Execute one statement."""
        return self._connection.execute(statement, values)

    def changes(self, statement: str, *values: Any) -> bool:
        """Execute one statement, and return whether it changed a row."""
        return self.execute(statement, *values).rowcount > 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all statements of the block or none; a nested block joins the outer one."""
        if self._connection.in_transaction:
            yield
            return
        self.execute("BEGIN IMMEDIATE")
        try:
            # Again: the process that held the lock until now may have removed a file.
            self.check_files()
            yield
            self.execute("COMMIT")
        except BaseException:
            # A full disk has rolled it back already.
            if self._connection.in_transaction:
                self.execute("ROLLBACK")
            raise

    @contextmanager
    def durable_transaction(self) -> Iterator[None]:
        """Like `transaction`, but a power failure does not undo it. It cannot be nested."""
        self.execute("PRAGMA synchronous = FULL")
        try:
            with self.transaction():
                yield
        finally:
            self.execute("PRAGMA synchronous = NORMAL")

    def check_files(self) -> None:
        """Raise `sqlite3.OperationalError` if a file of the database was removed or replaced.

        SQLite would continue to write to a file that no other process reads.
        """
        for name, identity in self._identities.items():
            if file_identity(self.folder / name) != identity:
                which = "it" if name == NAME else f"its file {name}"
                said = f"{which} was removed, moved or replaced while the archive was open"
                cure = "open it again, and copy the record by backup() only"
                raise sqlite3.OperationalError(f"{said}; {cure}")

    def _open(self) -> None:
        if self._version() < _VERSION:
            self._upgrade()
        self._check_tables(COLUMNS)
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = NORMAL")
        # This read creates the other files, which stay until the database is closed.
        self._version()

    def _version(self) -> int:
        [version] = self.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            said = f"{self._path} is a record of version {version}"
            raise ValueError(f"{said}, and this release reads up to {_VERSION}")
        if version < 0:
            raise ValueError(f"{self._path} is another program's database")
        return int(version)

    def _upgrade(self) -> None:
        """Create the tables, or those that an earlier version lacks."""
        with self.transaction():
            # Several processes may have opened the folder at the same time.
            if self._version() == _VERSION:
                return
            # A dump or a recovery by SQLite's shell has the tables, and lacks the version.
            if self.execute("SELECT * FROM sqlite_master").fetchone() is not None:
                self._check_tables(_VERSION_1)
            for statement in _SCHEMA:
                self.execute(statement)
            for table, columns in _NEW_COLUMNS.items():
                for column in self._missing(table, columns):
                    self.execute(f"ALTER TABLE {table} ADD COLUMN {column} {columns[column]}")
            self._check_tables(COLUMNS)
            self.execute(f"PRAGMA user_version = {_VERSION}")

    def _check_tables(self, columns: dict[str, str]) -> None:
        # The version alone proves nothing: other programs use the same numbers.
        for table, wanted in columns.items():
            if missing := self._missing(table, wanted.split(", ")):
                said = f"{self._path} is another program's database, or damaged"
                cure = "give the archive another folder, or replace it with a backup"
                raise ValueError(f"{said}: {table} has no {', '.join(missing)}; {cure}")

    def _missing(self, table: str, wanted: Iterable[str]) -> list[str]:
        columns = {name for _, name, *_ in self.execute(f"PRAGMA table_info({table})")}
        return [name for name in wanted if name not in columns]


def _decode(content: bytes) -> str | bytes:
    """Return a text that is not UTF-8 as bytes, which no column may be: its row is then named."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content
