"""What rows of the record say, as values; anybody can write into a file, so each column is judged.

What cannot be read is a `sqlite3.DataError` that names the task and the column, as if SQLite itself
had found it.
"""

import json
import re
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, get_args

from kie_cover_async.api import structure_details
from kie_cover_async.errors import InvalidResponseError
from kie_cover_async.models import CoverDetails
from kie_cover_async.validation import is_one_word, short_repr

from .formats import SUFFIXES
from .names import stem
from .values import ArchivedCover, ArchiveState, SavedImage

_SHA256 = re.compile(r"[0-9a-f]{64}")


def text_of(content: bytes) -> str | bytes:
    """Return what is not UTF-8 as it is: no column may be bytes, so its row is refused by name."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def cover_of(row: Sequence[Any], images: tuple[SavedImage, ...]) -> ArchivedCover:
    """A row of `tasks`, with what those of `files` say of the same task."""
    task_id, state, details, expires_at, error, added_at = row
    if not is_one_word(task_id):
        _refuse(task_id, "task_id", task_id)
    if state not in get_args(ArchiveState):
        _refuse(task_id, "state", state)
    if not isinstance(error, (str, type(None))):
        _refuse(task_id, "error", error)
    return ArchivedCover(
        task_id=task_id,
        state=state,
        details=None if details is None else _details(task_id, details),
        images=images,
        added_at=_moment(task_id, "added_at", added_at),
        expires_at=None if expires_at is None else _moment(task_id, "expires_at", expires_at),
        error=error,
    )


def image_of(row: tuple[Any, ...], folder: Path) -> SavedImage:
    """A row of `files`. The name is that of the task's own image, so that it leads nowhere else."""
    task_id, number, url, name, sha256, size, media_type, width, height = row
    counts = {"number": number, "size": size, "width": width, "height": height}
    for column, value in counts.items():
        if type(value) is not int or value < 1:
            _refuse(task_id, column, value)
    if media_type not in SUFFIXES:
        _refuse(task_id, "media_type", media_type)
    if name != stem(task_id, number) + SUFFIXES[media_type]:
        _refuse(task_id, "name", name)
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        _refuse(task_id, "sha256", sha256)
    if not isinstance(url, str):
        _refuse(task_id, "url", url)
    path = folder / name
    return SavedImage(url=url, path=path, sha256=sha256, media_type=media_type, **counts)


def _details(task_id: str, text: object) -> CoverDetails:
    try:
        details = structure_details(json.loads(text) if isinstance(text, str) else {})
    except (ValueError, RecursionError, InvalidResponseError):
        _refuse(task_id, "details", text)
    if details.task_id != task_id:
        _refuse(task_id, "details", text)
    return details


def _moment(task_id: str, column: str, seconds: object) -> datetime:
    if not isinstance(seconds, (int, float)):
        _refuse(task_id, column, seconds)
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        _refuse(task_id, column, seconds)


def _refuse(task_id: object, column: str, value: object) -> NoReturn:
    raise sqlite3.DataError(
        f"{column} of task {short_repr(task_id)} is {short_repr(value)}"
    ) from None
