"""The record as a text for other programs: JSON lines or CSV."""

import csv
import json
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from secrets import token_hex
from typing import Any, TextIO

from kie_cover_async.arguments import shown
from kie_cover_async.wire import unstructure_details

from .record import Covers
from .values import ArchivedCover, SavedImage

_IMAGE = ("number", "file", "url", "sha256", "size", "media_type", "width", "height")
_COVER = ("task_id", "state", "added_at", "expires_at", "error")

Write = Callable[[TextIO, Iterable[ArchivedCover]], int]


def writer_for(path: Path) -> Write:
    """What writes the kind of file that the name's ending says; raises `ValueError`."""
    if (write := _WRITERS.get(path.suffix.lower())) is None:
        known = " or ".join(_WRITERS)
        raise ValueError(f"path must end in {known}, and not be {shown(str(path))}")
    return write


def export(path: Path, write: Write, covers: Covers) -> int:
    """Write them aside, and put the file in the place of what was there; how many there are."""
    aside = path.with_name(f".{token_hex(8)}.part")
    try:
        # A lone surrogate, which JSON may hold, becomes its escape there.
        with aside.open("x", encoding="utf-8", errors="backslashreplace", newline="") as file:
            with closing(covers):
                count = write(file, covers)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return count


def _json_lines(file: TextIO, covers: Iterable[ArchivedCover]) -> int:
    """A line for each cover."""
    count = 0
    for cover in covers:
        details = None if cover.details is None else unstructure_details(cover.details)
        images = [_image_fields(image) for image in cover.images]
        line = {**_cover_fields(cover), "details": details, "images": images}
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        count += 1
    return count


def _csv(file: TextIO, covers: Iterable[ArchivedCover]) -> int:
    """A row for each image, and one for each cover that has none."""
    rows = csv.DictWriter(file, [*_COVER, *_IMAGE])
    rows.writeheader()
    count = 0
    for cover in covers:
        for image in cover.images or (None,):
            rows.writerow({**_cover_fields(cover), **(_image_fields(image) if image else {})})
        count += 1
    return count


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


_WRITERS: dict[str, Write] = {".jsonl": _json_lines, ".csv": _csv}
