"""Covers and their images in the database: the statements, and what the rows say.

Any program can write to the file, so every column is checked. A value that cannot be read raises an
`sqlite3.DataError` that names the task and the column, as if SQLite itself had found it.
"""

import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, get_args

from attrs import define

from kie_cover_async.api import structure_details, unstructure_details
from kie_cover_async.errors import InvalidResponseError, TaskNotFoundError
from kie_cover_async.ledger import Api
from kie_cover_async.models import RETENTION, CoverDetails
from kie_cover_async.validation import is_one_word, short_repr

from .database import COLUMNS, ArchiveDatabase
from .executors import ArchiveExecutors
from .files import file_stem, find_problem, reread
from .formats import SUFFIXES
from .models import ArchivedCover, ArchiveState, SavedImage

_ADD = "INSERT OR IGNORE INTO tasks (task_id, state, added_at) VALUES (?, 'pending', ?)"
_SET_API = "UPDATE tasks SET route = ?, origin = ? WHERE task_id = ? AND route IS NULL"
_RECORD_DETAILS = """
INSERT INTO tasks (task_id, state, details, expires_at, added_at, route, origin)
VALUES (?, 'pending', ?, ?, ?, ?, ?)
ON CONFLICT (task_id) DO UPDATE SET details = excluded.details, expires_at = excluded.expires_at,
    route = coalesce(route, excluded.route), origin = coalesce(origin, excluded.origin)
"""
_MARK_FAILED = """
INSERT INTO tasks (task_id, state, error, added_at) VALUES (?, 'failed', ?, ?)
ON CONFLICT (task_id) DO UPDATE SET state = 'failed', error = excluded.error
WHERE state != 'saved'
"""
_FORGET_API = "UPDATE tasks SET route = NULL, origin = NULL WHERE task_id = ?"
_SET_STATE = "UPDATE tasks SET state = ?, error = NULL WHERE task_id = ?"
_COVERS = f"SELECT rowid, {COLUMNS['tasks']} FROM tasks"  # noqa: S608 - constants
_IMAGES = f"SELECT {COLUMNS['files']} FROM files WHERE task_id = ?"  # noqa: S608 - constants
_RECORD_IMAGE = f"REPLACE INTO files ({COLUMNS['files']}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608

# Conditions of the lists. A row whose state cannot be read is in none of the other states, so each
# list reads it, and fails.
PENDING = "coalesce(state, '') NOT IN ('saved', 'failed')"
FAILED = "coalesce(state, '') NOT IN ('pending', 'saved')"
SAVED = "coalesce(state, '') NOT IN ('pending', 'failed')"
# If the end of a job is unknown, its images live at least this long from its beginning.
_EXPIRES = f"coalesce(expires_at, added_at + {RETENTION.total_seconds():.0f})"
# The second comparison selects times that cannot be read: after the last year, as texts are, too.
_LAST = datetime.max.replace(tzinfo=UTC).timestamp()
EXPIRING: str = f"""
({_EXPIRES} <= ? OR {_EXPIRES} > {_LAST:.0f})
AND ({PENDING} OR {FAILED} AND expires_at IS NOT NULL)
"""

_MAX_ERROR_LENGTH = 500
_SHA256 = re.compile(r"[0-9a-f]{64}")


def add(database: ArchiveDatabase, task_ids: Sequence[str], api: Api | None = None) -> list[str]:
    """Add these as pending, and return those that are new; a power failure does not undo it."""
    # A lost id cannot be found again; everything else follows from the files.
    with database.durable_transaction():
        return [task_id for task_id in task_ids if add_one(database, task_id, api)]


def add_one(database: ArchiveDatabase, task_id: str, api: Api | None) -> bool:
    """Add a cover as pending unless it is known, store its API, and return whether it is new."""
    is_new = database.changes(_ADD, task_id, time.time())
    if api is not None:
        database.execute(_SET_API, api.route, api.origin, task_id)
    return is_new


def record_details(
    database: ArchiveDatabase, details: CoverDetails, api: Api | None = None
) -> None:
    """Store the details of a cover, as pending if it is new, and its API if that was unknown."""
    expires_at = details.expires_at if details.is_success else None
    seconds = expires_at.timestamp() if expires_at is not None else None
    text = json.dumps(unstructure_details(details), ensure_ascii=False)
    issued_by = (None, None) if api is None else (api.route, api.origin)
    values = (details.task_id, storable(text), seconds, time.time(), *issued_by)
    database.execute(_RECORD_DETAILS, *values)


def record_image(database: ArchiveDatabase, task_id: str, image: SavedImage) -> None:
    """Store an image, and replace the row of the same number."""
    file = (image.path.name, image.sha256, image.size)
    kind = (image.media_type, image.width, image.height)
    database.execute(_RECORD_IMAGE, task_id, image.number, image.url, *file, *kind)


def record_save(
    database: ArchiveDatabase,
    details: CoverDetails,
    new_images: Sequence[SavedImage],
    *,
    is_complete: bool,
) -> ArchivedCover:
    """Store these images, and whether all images of the cover are in the folder.

    If a row has another hash than a new image, another archive saved the same image meanwhile. The
    file is read again then, so that the row matches whichever file stayed.

    If this save is not complete, another archive may have saved the rest. All images are read
    again, and the cover is pending unless each is recorded and unchanged.
    """
    task_id = details.task_id
    with database.transaction():
        images = {image.number: image for image in recorded_images(database, task_id)}
        for image in new_images:
            other = images.get(image.number, image)
            images[image.number] = image if other.sha256 == image.sha256 else reread(image)
            record_image(database, task_id, images[image.number])
        is_saved = is_complete or all(
            number in images and find_problem(images[number]) is None
            for number in range(1, 1 + len(details.images))
        )
        database.execute(_SET_STATE, "saved" if is_saved else "pending", task_id)
        [(_, cover)] = _select(database, "WHERE task_id = ?", task_id)
        return cover


def mark_failed(database: ArchiveDatabase, task_id: str, error: Exception) -> None:
    """Mark a cover as failed, unless it is saved."""
    details = getattr(error, "details", None)
    if not isinstance(details, CoverDetails) or details.task_id != task_id:
        details = None
    said = storable(f"{type(error).__name__}: {error}"[:_MAX_ERROR_LENGTH])
    with database.transaction():
        is_marked = database.changes(_MARK_FAILED, task_id, said, time.time())
        if is_marked and isinstance(error, TaskNotFoundError):
            # Another API may have issued it.
            database.execute(_FORGET_API, task_id)
        if is_marked and details is not None:
            record_details(database, details)


def mark_pending(database: ArchiveDatabase, task_ids: Sequence[str] | None) -> list[str]:
    """Mark these or all failed covers as pending, and return those that were not."""
    with database.transaction():
        if task_ids is None:
            task_ids = [cover.task_id for _, cover in _select(database, f"WHERE {FAILED}")]
        change = f"{_SET_STATE} AND state != 'pending'"
        return [task_id for task_id in task_ids if database.changes(change, "pending", task_id)]


def find(database: ArchiveDatabase, task_id: str) -> ArchivedCover | None:
    """Return the cover of this id, if there is one."""
    found = _select(database, "WHERE task_id = ?", task_id)
    return found[0][1] if found else None


def recorded_images(database: ArchiveDatabase, task_id: str) -> list[SavedImage]:
    """Return the recorded images of a cover."""
    # All rows first: an error that a caller keeps must not keep the statement open.
    rows = database.execute(_IMAGES, task_id).fetchall()
    return [parse_image(row, database.folder) for row in rows]


@define(eq=False)
class CoverPages(AsyncIterator[list[ArchivedCover]]):
    """The covers that an SQL condition selects, in the order they were added, each at most once.

    Each page is of one moment, and other calls use the database between two pages. A cover that is
    added or changes between two pages may be included or not.
    """

    _executors: ArchiveExecutors
    _condition: str = "TRUE"
    _values: tuple[Any, ...] = ()
    _size: int = 500
    _after: float = -inf

    async def __anext__(self) -> list[ArchivedCover]:
        found = await self._executors.query(self._next_page)
        if not found:
            raise StopAsyncIteration
        self._after, _ = found[-1]
        return [cover for _, cover in found]

    def _next_page(self, database: ArchiveDatabase) -> list[tuple[int, ArchivedCover]]:
        which = f"WHERE ({self._condition}) AND rowid > ? ORDER BY rowid LIMIT ?"
        return _select(database, which, *self._values, self._after, self._size)


def _select(database: ArchiveDatabase, which: str, *values: Any) -> list[tuple[int, ArchivedCover]]:
    # As long as this cursor is open, the connection sees one state of both tables.
    with closing(database.execute(f"{_COVERS} {which}", *values)) as rows:
        return [
            (position, parse_cover(row, tuple(recorded_images(database, row[1]))))
            for position, *row in rows
        ]


def parse_cover(row: Sequence[Any], images: tuple[SavedImage, ...]) -> ArchivedCover:
    """Return what a row of `tasks` says, together with its images."""
    _, task_id, state, details, expires_at, error, added_at, *api = row
    require(is_one_word(task_id), task_id, "task_id", task_id)
    require(state in get_args(ArchiveState), task_id, "state", state)
    require(isinstance(error, (str, type(None))), task_id, "error", error)
    return ArchivedCover(
        task_id=task_id,
        state=state,
        details=None if details is None else parse_details(task_id, details),
        images=images,
        added_at=parse_time(task_id, "added_at", added_at),
        expires_at=None if expires_at is None else parse_time(task_id, "expires_at", expires_at),
        error=error,
        api=parse_api(task_id, api),
    )


def parse_image(row: tuple[Any, ...], folder: Path) -> SavedImage:
    """Return what a row of `files` says; its name must be the image's own, inside the folder."""
    task_id, *_ = row
    facts = dict(zip(COLUMNS["files"].split(", ")[1:], row[1:], strict=True))
    for column in ("number", "size", "width", "height"):
        is_count = type(facts[column]) is int and facts[column] >= 1
        require(is_count, task_id, column, facts[column])
    name, sha256, media_type = facts.pop("name"), facts["sha256"], facts["media_type"]
    require(media_type in SUFFIXES, task_id, "media_type", media_type)
    own_name = file_stem(task_id, facts["number"]) + SUFFIXES[media_type]
    require(name == own_name, task_id, "name", name)
    is_hash = isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None
    require(is_hash, task_id, "sha256", sha256)
    require(isinstance(facts["url"], str), task_id, "url", facts["url"])
    return SavedImage(path=folder / name, **facts)


def parse_api(task_id: str, row: Sequence[Any]) -> Api | None:
    """Return the API that issued an id, if its columns name one."""
    route, origin = row
    for column, value in (("route", route), ("origin", origin)):
        require(isinstance(value, (str, type(None))), task_id, column, value)
    return None if route is None or origin is None else Api(route=route, origin=origin)


def parse_details(task_id: str, text: object) -> CoverDetails:
    """Return the details of a cover, which must have its id."""
    try:
        details = structure_details(json.loads(text) if isinstance(text, str) else {})
    except (ValueError, RecursionError, InvalidResponseError):
        raise _bad_value(task_id, "details", text) from None
    require(details.task_id == task_id, task_id, "details", text)
    return details


def parse_time(row_id: str, column: str, seconds: object) -> datetime:
    """Return a time that a row has in seconds since 1970."""
    try:
        return datetime.fromtimestamp(seconds, UTC)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        raise _bad_value(row_id, column, seconds) from None


def require(is_valid: bool, row_id: object, column: str, value: object) -> None:
    """Raise `sqlite3.DataError` that names the row and the column, unless the value is valid."""
    if not is_valid:
        raise _bad_value(row_id, column, value)


def _bad_value(row_id: object, column: str, value: object) -> sqlite3.DataError:
    return sqlite3.DataError(f"{column} of task {short_repr(row_id)} is {short_repr(value)}")


def storable(text: str) -> str:
    """Return the text without lone surrogates."""
    # SQLite takes no lone surrogates, which JSON may hold; within JSON they are parsed back.
    return text.encode("utf-8", "backslashreplace").decode()
