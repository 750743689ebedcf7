"""A line for each cover, for people or for programs, beside the counts."""

import json
from collections.abc import Callable
from typing import Any

from attrs import define
from rich.text import Text

from kie_cover_async import KieCoverError
from kie_cover_async.archive import ArchivedCover
from kie_cover_async.cli.output import error_fields, one_line

from .haul import End, Haul, style_of

# What the archive says of such a cover; of what can be no id it says nothing.
_STATES: dict[End, str] = {"failed": "failed", "not done": "pending"}


@define
class Lines:
    """Counts what becomes of each cover, and writes its line."""

    haul: Haul
    write: Callable[[str | Text], None]
    as_json: bool

    def saved(self, cover: ArchivedCover) -> None:
        """All its images are on disk."""
        self.haul.save(cover)
        fields = {"taskId": cover.task_id, "state": "saved", "files": _files(cover)}
        paths = " ".join(str(image.path) for image in cover.images)
        self._write(cover.task_id, "saved", paths, fields)

    def ended(self, task_id: str, end: End, error: KieCoverError) -> None:
        """It was tried in vain."""
        self.haul.fail(end)
        fields = {"taskId": None, "state": _STATES.get(end), **error_fields(error)}
        # The error of an id that can be none does not know it.
        fields["taskId"] = str(task_id)
        self._write(task_id, end, f"{type(error).__name__}: {error}", fields)

    def failed_before(self, cover: ArchivedCover) -> None:
        """It was given up by an earlier run, and is asked for again."""
        self.haul.fail("failed before")
        name, _, message = str(cover.error).partition(": ")
        fields = {"taskId": cover.task_id, "state": "failed", "error": name, "message": message}
        self._write(cover.task_id, "failed before", cover.error, fields)

    def _write(self, task_id: str, end: End, said: object, fields: dict[str, Any]) -> None:
        if self.as_json:
            self.write(json.dumps(fields))
        else:
            word = (end, style_of(end))
            self.write(Text.assemble(f"{one_line(task_id)}  ", word, f"  {one_line(said)}"))


def _files(cover: ArchivedCover) -> list[dict[str, Any]]:
    return [
        {
            "path": str(image.path),
            "sha256": image.sha256,
            "size": image.size,
            "type": image.media_type,
            "width": image.width,
            "height": image.height,
        }
        for image in cover.images
    ]
