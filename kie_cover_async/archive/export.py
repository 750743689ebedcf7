"""Copies of the record: as JSON lines or CSV for other programs, and as a backup."""

import csv
import json
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from errno import EEXIST
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from kie_cover_async.api import unstructure_details
from kie_cover_async.validation import short_repr

from .covers import CoverPages
from .executors import ArchiveExecutors
from .files import sync_folder
from .models import ArchivedCover, SavedImage

_COVER = ("task_id", "state", "added_at", "expires_at", "error")
_IMAGE = ("number", "file", "url", "sha256", "size", "media_type", "width", "height")
_COLUMNS = _COVER + _IMAGE
# A spreadsheet evaluates a cell that begins with one of the first seven (OWASP, "CSV injection").
# The apostrophe is included so that removing one always restores the text.
_ESCAPED = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


async def export(path: Path, executors: ArchiveExecutors) -> int:
    """Write all covers to *path*, replacing it once complete, and return how many there are.

    Raises:
        ValueError: The suffix is unknown.
    """
    if (kind := _KINDS.get(path.suffix.lower())) is None:
        known = " or ".join(_KINDS)
        raise ValueError(f"path must end in {known}, and not be {short_repr(str(path))}")
    (head, lines), count = kind, 0

    def write(covers: list[ArchivedCover]) -> None:
        # A lone surrogate, which JSON may hold, is written as its escape.
        part.write([lines(covers).encode("utf-8", "backslashreplace")])

    async with executors.part_file(path.parent) as part:
        await executors.on_files(part.write, [head.encode()])
        async for covers in CoverPages(executors):
            await executors.on_files(write, covers)
            count += len(covers)
        await executors.on_files(part.keep, path)
    return count


def _json_lines(covers: Iterable[ArchivedCover]) -> str:
    """Return a line for each cover."""
    return "".join(f"{json.dumps(_json(cover), ensure_ascii=False)}\n" for cover in covers)


def _json(cover: ArchivedCover) -> dict[str, Any]:
    details = None if cover.details is None else unstructure_details(cover.details)
    images = [_image_fields(image) for image in cover.images]
    return {**_cover_fields(cover), "details": details, "images": images}


def _csv_rows(covers: Iterable[ArchivedCover]) -> str:
    """Return a row for each image, and one for each cover without images."""
    text = StringIO(newline="")
    rows = csv.DictWriter(text, _COLUMNS)
    for cover in covers:
        for image in cover.images or (None,):
            cells = {**_cover_fields(cover), **(_image_fields(image) if image else {})}
            rows.writerow({name: _escape(value) for name, value in cells.items()})
    return text.getvalue()


def _escape(value: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would treat as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_ESCAPED) else value


def _cover_fields(cover: ArchivedCover) -> dict[str, Any]:
    return {name: _printed(getattr(cover, name)) for name in _COVER}


def _printed(value: Any) -> Any:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else value


def _image_fields(image: SavedImage) -> dict[str, Any]:
    fields = {name: getattr(image, name) for name in _IMAGE if name != "file"}
    return fields | {"file": image.path.name}


# The text that a file begins with, and the function that formats covers, by suffix.
_KINDS = {
    ".jsonl": ("", _json_lines),
    ".csv": (",".join(_COLUMNS) + "\r\n", _csv_rows),
}


async def back_up(record: Path, target: Path, executors: ArchiveExecutors) -> None:
    """Copy the record to a new file, which appears once it is complete.

    Raises:
        FileExistsError: The file exists.
        OSError: Either file cannot be used; the message names both.
    """
    async with executors.part_file(target.parent) as part:
        await executors.on_files(part.keep, target, partial(_copy, record, target))
    await executors.on_files(sync_folder, target.parent)


def _copy(record: Path, target: Path, part: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(EEXIST, "a backup does not replace a file", str(target))
    try:
        with closing(sqlite3.connect(record)) as source, closing(sqlite3.connect(part)) as copy:
            source.backup(copy)
            # Write-ahead logging needs two more files, and cannot be read from a read-only disk.
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise OSError(f"{record} cannot be copied to {target}: {error}") from error
