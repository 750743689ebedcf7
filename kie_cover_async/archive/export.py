"""The record as a text for other programs: JSON lines or CSV."""

import asyncio
import csv
import json
from collections.abc import Callable, Iterable
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from attrs import frozen

from kie_cover_async.api import unstructure_details
from kie_cover_async.validation import short_repr

from .pages import Pages
from .parts import part_files
from .threads import Threads
from .values import ArchivedCover, SavedImage

_IMAGE = ("number", "file", "url", "sha256", "size", "media_type", "width", "height")
_COVER = ("task_id", "state", "added_at", "expires_at", "error")
_COLUMNS = _COVER + _IMAGE
# A spreadsheet evaluates a cell that begins with one of the first seven (OWASP, "CSV injection").
# The apostrophe is here so that removing one always restores the text.
_ESCAPED = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


@frozen
class _Kind:
    """A kind of file: what it begins with, and what some covers are in it."""

    head: str
    lines: Callable[[list[ArchivedCover]], str]


async def export(path: Path, threads: Threads) -> int:
    """Write all covers aside, and put the file in the place of what was there; how many there are.

    Raises `ValueError` where the name's ending is of no known kind.
    """
    kind, part, count = _kind_of(path), next(part_files(path.parent)), 0

    def write(covers: list[ArchivedCover]) -> None:
        # A lone surrogate, which JSON may hold, becomes its escape there.
        part.write([kind.lines(covers).encode("utf-8", "backslashreplace")], anew=False)

    try:
        await threads.begin(partial(part.write, [kind.head.encode()], anew=True))
        async for covers in Pages(threads):
            await threads.begin(partial(write, covers))
            count += len(covers)
        await threads.begin(partial(part.keep_as, path))
    except BaseException:
        # A thread may be at it still, and this comes after it, cancelled again or not.
        await asyncio.shield(threads.begin(part.discard))
        raise
    return count


def _kind_of(path: Path) -> _Kind:
    if (kind := _KINDS.get(path.suffix.lower())) is None:
        known = " or ".join(_KINDS)
        raise ValueError(f"path must end in {known}, and not be {short_repr(str(path))}")
    return kind


def _json_lines(covers: Iterable[ArchivedCover]) -> str:
    """A line for each cover."""
    return "".join(f"{json.dumps(_json(cover), ensure_ascii=False)}\n" for cover in covers)


def _json(cover: ArchivedCover) -> dict[str, Any]:
    details = None if cover.details is None else unstructure_details(cover.details)
    images = [_image_fields(image) for image in cover.images]
    return {**_cover_fields(cover), "details": details, "images": images}


def _table_rows(covers: Iterable[ArchivedCover]) -> str:
    """A row for each image, and one for each cover that has none."""
    text = StringIO(newline="")
    rows = csv.DictWriter(text, _COLUMNS)
    for cover in covers:
        for image in cover.images or (None,):
            cells = {**_cover_fields(cover), **(_image_fields(image) if image else {})}
            rows.writerow({name: _escaped(value) for name, value in cells.items()})
    return text.getvalue()


def _escaped(value: Any) -> Any:
    """Mark a text with an apostrophe if a spreadsheet would take it for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_ESCAPED) else value


def _cover_fields(cover: ArchivedCover) -> dict[str, Any]:
    fields = {name: getattr(cover, name) for name in _COVER}
    for name in ("added_at", "expires_at"):
        if fields[name] is not None:
            fields[name] = fields[name].isoformat(timespec="seconds")
    return fields


def _image_fields(image: SavedImage) -> dict[str, Any]:
    return {name: getattr(image, name) for name in _IMAGE if name != "file"} | {
        "file": image.path.name
    }


_KINDS = {
    ".jsonl": _Kind("", _json_lines),
    ".csv": _Kind(",".join(_COLUMNS) + "\r\n", _table_rows),
}
