"""`CoverArchive`: the images of covers in a folder, with a record of them."""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Literal, Self, TypeVar

from kie_cover_async.arguments import a_task_id, number, shown
from kie_cover_async.models import CoverDetails

from .export import export, writer_for
from .files import digest_at
from .record import Record
from .saving import Client, Saver
from .threads import Threads
from .values import ArchivedCover, ArchiveReport, Finding, SavedImage

T = TypeVar("T")

_AT_A_TIME = 64
_LONGEST_NOTE = 500


class CoverArchive:
    """A folder of covers' images, each complete or absent, and a record of what is there.

    Use it inside `async with`, which makes the folder where it is missing; at the end it waits for
    any `save` that is running. Two archives on one folder, in one process or in two, do not spoil
    each other. The end of the process at any moment costs no more than what was being downloaded.

    :param folder: where the images are, and the record `covers.sqlite3`; on a local disk.
    :param largest_image: bytes; more is refused.
    :param at_once: how many images are fetched at the same time.

    What cannot be used is refused: an argument by `TypeError` or `ValueError`, a folder that is
    none or cannot be written to by `OSError`, a record that cannot be read by `ValueError`.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        largest_image: int = 64 << 20,
        at_once: int = 16,
    ) -> None:
        number("largest_image", largest_image, at_least=1, whole=True)
        number("at_once", at_once, at_least=1, whole=True)
        self._folder = _a_path("folder", folder)
        self._largest_image, self._at_once = largest_image, at_once
        self._saver: Saver | None = None

    def __repr__(self) -> str:
        return f"<CoverArchive {self._folder} {'closed' if self._saver is None else 'open'}>"

    async def __aenter__(self) -> Self:
        if self._saver is not None:
            raise RuntimeError("this CoverArchive is open already")
        threads = Threads(self._folder)
        await threads.open()
        self._saver = Saver(
            self._folder, threads, largest_image=self._largest_image, at_once=self._at_once
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Begin nothing any more, wait for what is running, and give the folder back."""
        saver, self._saver = self._saver, None
        if saver is not None:
            await saver.threads.aclose()

    @property
    def folder(self) -> Path:
        """Where the images are."""
        return self._folder

    async def add(self, task_ids: Iterable[str]) -> list[str]:
        """Note these covers as pending, for good when this returns; those that were not known."""
        ids = _ids(task_ids)
        return await self._ask(lambda record: record.add(ids))

    async def save(self, client: Client, details: CoverDetails) -> ArchivedCover:
        """Have all images of this cover on disk, and return what is known of it.

        What lies there already and whole is not fetched again, in the record or not. A link that
        is refused with 403, 404 or 410 is renewed once by `get_download_url`.

        All images are tried; then the first error is raised, what was saved is kept and noted, and
        the cover stays pending. Raises `DownloadError` for an image that cannot be had or is none,
        what `get_download_url` raises, `OSError` where the disk refuses, and `ValueError` for a
        cover without images.
        """
        if not isinstance(details, CoverDetails):
            raise TypeError(f"details must be CoverDetails, not {shown(details)}")
        a_task_id("details.task_id", details.task_id)
        if not details.is_success:
            raise ValueError(f"details must be of a cover with images, not of {shown(details)}")
        saver = self._open_saver()
        with saver.threads.in_use():
            return await saver.save(client, details)

    async def fail(self, task_id: str, error: Exception) -> None:
        """Note that there will be no cover, and why; it is not pending any more.

        One that is saved stays so: another process may have had it meanwhile.
        """
        a_task_id("task_id", task_id)
        if not isinstance(error, Exception):
            raise TypeError(f"error must be an exception, not {shown(error)}")
        details = getattr(error, "details", None)
        is_of_it = isinstance(details, CoverDetails) and details.task_id == task_id
        said = f"{type(error).__name__}: {error}"[:_LONGEST_NOTE]
        await self._ask(lambda record: record.fail(task_id, said, details if is_of_it else None))

    async def retry(self, task_ids: Iterable[str] | None = None) -> list[str]:
        """Make these covers pending again, or all that failed; those of them that were not."""
        ids = None if task_ids is None else _ids(task_ids)
        return await self._ask(lambda record: record.retry(ids))

    async def find(self, task_id: str) -> ArchivedCover | None:
        """What is known of this cover, if anything."""
        covers = await self._covers("WHERE task_id = ?", a_task_id("task_id", task_id))
        return covers[0] if covers else None

    async def pending(self) -> list[ArchivedCover]:
        """The covers that are still to be saved, as they were added."""
        return await self._covers("WHERE state = 'pending' ORDER BY place")

    async def failed(self) -> list[ArchivedCover]:
        """The covers that `fail` was called for, as they were added."""
        return await self._covers("WHERE state = 'failed' ORDER BY place")

    async def covers(self) -> list[ArchivedCover]:
        """The covers all of whose images are here, as they were added."""
        return await self._covers("WHERE state = 'saved' ORDER BY place")

    async def expiring(self, within: timedelta = timedelta(days=3)) -> list[ArchivedCover]:
        """The covers not saved whose images are deleted this soon, or were; the soonest first.

        Where it is not known when a job was done, it is counted from when its id was added.
        """
        if not isinstance(within, timedelta):
            raise TypeError(f"within must be a timedelta, not {shown(within)}")
        until = time.time() + within.total_seconds()
        return await self._ask(lambda record: [*record.expiring(until)])

    async def verify(self) -> ArchiveReport:
        """Read all recorded images and compare them with their hashes.

        Nothing is changed by it. To have what was found again, `save` the cover; `retry` makes it
        pending, for whoever works through what is.
        """
        saver = self._open_saver()
        with saver.threads.in_use():
            covers = await saver.threads.ask(lambda record: [*record.covers("ORDER BY place")])
            images = [(cover.task_id, image) for cover in covers for image in cover.images]
            findings: list[Finding] = []
            for start in range(0, len(images), _AT_A_TIME):
                checks = [
                    saver.threads.begin(partial(_problem, task_id, image))
                    for task_id, image in images[start : start + _AT_A_TIME]
                ]
                findings += [found for found in await asyncio.gather(*checks) if found]
        return ArchiveReport(checked=len(images), findings=tuple(findings))

    async def export(self, path: str | PathLike[str]) -> int:
        """Write the whole record down, and return how many covers that are.

        A `path` ending in `.jsonl` gets a line of JSON for each cover, one in `.csv` a row for each
        image; any other is a `ValueError`. What was there stays until the new file is whole.
        """
        target = _a_path("path", path)
        write = writer_for(target)
        return await self._ask(
            lambda record: export(target, write, record.covers("ORDER BY place"))
        )

    async def _covers(self, which: str, *values: object) -> list[ArchivedCover]:
        return await self._ask(lambda record: [*record.covers(which, *values)])

    async def _ask(self, question: Callable[[Record], T]) -> T:
        return await self._open_saver().threads.ask(question)

    def _open_saver(self) -> Saver:
        if self._saver is None:
            raise RuntimeError("this CoverArchive is not open: use it inside `async with`")
        return self._saver


def _problem(task_id: str, image: SavedImage) -> Finding | None:
    digest = digest_at(image.path)
    if digest == image.sha256:
        return None
    problem: Literal["missing", "altered"] = "missing" if digest is None else "altered"
    return Finding(task_id=task_id, image=image, problem=problem)


def _a_path(name: str, value: object) -> Path:
    if not isinstance(value, (str, PathLike)) or value == "":
        raise TypeError(f"{name} must be a path, not {shown(value)}")
    return Path(value)


def _ids(task_ids: Iterable[str]) -> list[str]:
    if isinstance(task_ids, (str, bytes)) or not isinstance(task_ids, Iterable):
        raise TypeError(f"task_ids must be an iterable of ids, not {shown(task_ids)}")
    return [a_task_id("task_ids", each) for each in task_ids]
