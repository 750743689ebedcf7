"""The record of an archive: one SQLite file, used from one thread."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import evolve

from kie_cover_async.api import unstructure_details
from kie_cover_async.models import RETENTION, CoverDetails

from .files import as_it_lies, identity, problem_with
from .locks import ATTEMPT
from .rows import cover_of, image_of, text_of
from .tables import FILE, SCHEMA, TASK, VERSION, check_tables, check_version
from .values import ArchivedCover, SavedImage

NAME = "covers.sqlite3"
_FILES = (NAME, f"{NAME}-wal", f"{NAME}-shm")

_LEARN = """
INSERT INTO tasks (task_id, state, details, expires_at, added_at) VALUES (?, 'pending', ?, ?, ?)
ON CONFLICT (task_id) DO UPDATE SET details = excluded.details, expires_at = excluded.expires_at
"""
_FAIL = """
INSERT INTO tasks (task_id, state, error, added_at) VALUES (?, 'failed', ?, ?)
ON CONFLICT (task_id) DO UPDATE SET state = 'failed', error = excluded.error
WHERE state != 'saved'
"""
_SET_STATE = "UPDATE tasks SET state = ?, error = NULL WHERE task_id = ?"
_IMAGES = f"SELECT {FILE} FROM files WHERE task_id = ?"  # noqa: S608 - ours
_SELECT = "SELECT task_id, state, NULL, expires_at, error, added_at FROM tasks WHERE task_id = ?"
_KEEP = f"INSERT OR REPLACE INTO files ({FILE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
# The images of a job whose completion is not known live at least so long from its beginning.
_EXPIRES = f"coalesce(expires_at, added_at + {RETENTION.total_seconds():.0f})"
# Conditions of the lists. A row whose state cannot be read is in none of the other states, so each
# list reads it, and fails.
PENDING = "coalesce(state, '') NOT IN ('saved', 'failed')"
FAILED = "coalesce(state, '') NOT IN ('pending', 'saved')"
SAVED = "coalesce(state, '') NOT IN ('pending', 'failed')"
# Not saved, and deleted before a moment; or at none that can be read: after the last year, which
# texts are to SQLite, too.
_LAST = datetime.max.replace(tzinfo=UTC).timestamp()
EXPIRING: str = f"""
({_EXPIRES} <= ? OR {_EXPIRES} > {_LAST:.0f})
AND ({PENDING} OR {FAILED} AND expires_at IS NOT NULL)
"""


class Record:
    """What is known of tasks and files. It blocks, and is used from the thread that made it.

    The file is made where there is none; that is to be done by one process alone.

    A commit survives the end of the process at once. A loss of power may take the last ones, but
    for those of `add`: what they say of files is found again from the files themselves.

    Raises `ValueError` where the file is a record of a later version, or none of ours; it is
    not altered then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / NAME
        self._connection = sqlite3.connect(path, timeout=ATTEMPT, isolation_level=None)
        self._connection.text_factory = text_of
        self._files: dict[str, tuple[int, int] | None] = {}
        try:
            self._open(path)
            self._files = {name: identity(folder / name) for name in _FILES}
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def check_place(self) -> None:
        """Raise `sqlite3.OperationalError` if a file of the record was removed or replaced.

        SQLite would go on to write into a file that no other process reads.
        """
        for name, file in self._files.items():
            if identity(self._folder / name) != file:
                which = "it" if name == NAME else f"its file {name}"
                said = f"{which} was removed, moved or replaced while the archive was open"
                cure = "open it again, and copy the record by backup() only"
                raise sqlite3.OperationalError(f"{said}; {cure}")

    def add(self, task_ids: Sequence[str]) -> list[str]:
        """Note these as pending; those that were not known."""
        # Nothing else could tell them: a loss of power is not to take them back.
        self._execute("PRAGMA synchronous = FULL")
        try:
            with self._transaction():
                change = "INSERT OR IGNORE INTO tasks (task_id, state, added_at) VALUES (?, ?, ?)"
                now = time.time()
                return [each for each in task_ids if self._changes(change, each, "pending", now)]
        finally:
            self._execute("PRAGMA synchronous = NORMAL")

    def learn(self, details: CoverDetails) -> None:
        """Note what is known of a cover."""
        expires_at = details.expires_at if details.is_success else None
        moment = expires_at.timestamp() if expires_at is not None else None
        text = json.dumps(unstructure_details(details), ensure_ascii=False)
        self._execute(_LEARN, details.task_id, _storable(text), moment, time.time())

    def images(self, task_id: str) -> list[SavedImage]:
        """Those that were saved of a cover."""
        rows = self._execute(_IMAGES, task_id).fetchall()
        return [image_of(row, self._folder) for row in rows]

    def keep(self, task_id: str, image: SavedImage) -> None:
        """Note an image, in the place of what was noted of its number."""
        file = (image.path.name, image.sha256, image.size)
        kind = (image.media_type, image.width, image.height)
        self._execute(_KEEP, task_id, image.number, image.url, *file, *kind)

    def settle(
        self, details: CoverDetails, brought: Sequence[SavedImage], *, saved: bool
    ) -> ArchivedCover:
        """Note these images, and whether all of the cover are here, whoever brought them.

        Where another one was noted meanwhile, another archive has saved the same image: what lies
        there now is noted, so that the one whose file stays is the one whose row does.

        Where this save could not have them all, another may have had them: they are read again, and
        only if one is not there, whole and noted, the cover is pending.
        """
        task_id = details.task_id
        with self._transaction():
            images = {each.number: each for each in self.images(task_id)}
            for image in brought:
                other = images.get(image.number)
                is_new = other is None or other.sha256 == image.sha256
                images[image.number] = image if is_new else as_it_lies(image)
                self.keep(task_id, images[image.number])
            is_saved = saved or _are_here(images, len(details.images))
            self._execute(_SET_STATE, "saved" if is_saved else "pending", task_id)
            # What `learn` wrote need not be read again.
            row = self._execute(_SELECT, task_id).fetchone()
            in_order = tuple(image for _, image in sorted(images.items()))
            return evolve(cover_of(row, in_order), details=details)

    def together(self, changes: Iterable[Callable[["Record"], Any]]) -> list[Any]:
        """All of these or none."""
        with self._transaction():
            return [change(self) for change in changes]

    def fail(self, task_id: str, error: str, details: CoverDetails | None) -> None:
        """Note that somebody has given up."""
        with self._transaction():
            if self._changes(_FAIL, task_id, _storable(error), time.time()) and details is not None:
                self.learn(details)

    def retry(self, task_ids: Sequence[str] | None) -> list[str]:
        """Make these pending, or all that failed; those of them that were not."""
        with self._transaction():
            if task_ids is None:
                task_ids = [cover.task_id for cover in self.covers(f"WHERE {FAILED}")]
            change = f"{_SET_STATE} AND state != 'pending'"
            return [each for each in task_ids if self._changes(change, "pending", each)]

    def covers(self, which: str = "", *values: Any) -> list[ArchivedCover]:
        """The covers that an SQL clause selects, all at one moment."""
        return [cover for _, cover in self._placed(which, *values)]

    def page(
        self, condition: str, *values: Any, after: float, size: int
    ) -> list[tuple[int, ArchivedCover]]:
        """The first so many covers after a place that an SQL condition selects, with theirs."""
        which = f"WHERE ({condition}) AND rowid > ? ORDER BY rowid LIMIT ?"
        return self._placed(which, *values, after, size)

    def _open(self, path: Path) -> None:
        check_version(path, version := self._version())
        if version == 0:
            self._make(path)
        check_tables(path, self._connection)
        self._execute("PRAGMA journal_mode = WAL")
        self._execute("PRAGMA synchronous = NORMAL")
        # Reading makes the other files, which stay as long as it is open.
        self._version()

    def _version(self) -> int:
        [version] = self._execute("PRAGMA user_version").fetchone()
        return int(version)

    def _make(self, path: Path) -> None:
        with self._transaction():
            # Of several that open a new folder in one moment, none may have found itself alone.
            if self._version():
                return
            if self._execute("SELECT * FROM sqlite_master").fetchone():
                # The version is not in what SQLite's shell writes of a record or recovers of it.
                check_tables(path, self._connection)
                self._execute(f"PRAGMA user_version = {VERSION}")
                return
            for statement in SCHEMA.split(";"):
                self._execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block, or nothing; within another one it is a part of that."""
        if self._connection.in_transaction:
            yield
            return
        self._execute("BEGIN IMMEDIATE")
        try:
            # Again: the process that had the lock until now may have been the one to remove a file.
            self.check_place()
            yield
            self._execute("COMMIT")
        except BaseException:
            # A full disk has rolled it back already.
            if self._connection.in_transaction:
                self._execute("ROLLBACK")
            raise

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _changes(self, statement: str, *values: Any) -> bool:
        return self._execute(statement, *values).rowcount > 0

    def _placed(self, which: str, *values: Any) -> list[tuple[int, ArchivedCover]]:
        rows = self._execute(f"SELECT rowid, {TASK} FROM tasks {which}", *values)  # noqa: S608 - ours
        # As long as it is open this process sees what was there then, of the images, too.
        with closing(rows):
            return [(place, cover_of(row, tuple(self.images(row[0])))) for place, *row in rows]


def _are_here(images: Mapping[int, SavedImage], number: int) -> bool:
    """Whether the images from 1 to this number are, as they were saved."""
    return all(n in images and problem_with(images[n]) is None for n in range(1, 1 + number))


def _storable(text: str) -> str:
    """SQLite takes no lone surrogates, which JSON may hold; within JSON they are read again."""
    return text.encode("utf-8", "backslashreplace").decode()
