"""`CoverArchive`: the images of covers in a folder, with a record of them."""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar

from kie_cover_async.descriptors import affordable
from kie_cover_async.models import RETENTION, CoverDetails
from kie_cover_async.validation import short_repr, validate_number, validate_task_id

from .backup import back_up
from .export import export
from .failures import failures_of
from .files import problem_with
from .pages import Pages
from .record import EXPIRING, FAILED, NAME, PENDING, SAVED, Record
from .saving import Client, Saver
from .tables import check_integrity
from .threads import Threads
from .values import ArchivedCover, ImageProblem, SavedImage, VerificationReport

T = TypeVar("T")

# A save is not to wait until more images than these, two of each, were read again.
_VERIFIED_AT_A_TIME = 32
_LONGEST_NOTE = 500


class CoverArchive:
    """A folder of covers' images, each complete or absent, and a record of what is there.

    Use it inside `async with`, which makes the folder where it is missing; at the end it waits for
    any `save` that is running. Two archives on one folder, in one process or in two, do not spoil
    each other. The end of the process at any moment costs no more than what was being downloaded.

    Saves go on while it lists, verifies or exports many covers: it reads 500 at one moment, and the
    next ones a little later. What is added or changes meanwhile may be in the list or not.

    :param folder: where the images are, and the record `covers.sqlite3`; on a local disk.
    :param max_image_bytes: bytes; more is refused.
    :param max_concurrent_downloads: how many images are fetched at the same time; fewer if the
        process may open few files (`ulimit -n`), which a warning says.

    What cannot be used is refused: an argument by `TypeError` or `ValueError`, a folder that is
    none or cannot be written to by `OSError`, a record that cannot be read by `DamagedRecordError`,
    which every method may raise that reads it.

    Example:
        >>> from kie_cover_async.archive import CoverArchive
        >>> async with CoverClient() as client, CoverArchive("covers") as archive:
        ...     details = await client.wait_for_cover("first-cover")
        ...     saved = await archive.save(client, details)
        >>> [image.path.name for image in saved.images]
        ['first-cover-1.png', 'first-cover-2.png']
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        max_image_bytes: int = 64 << 20,
        max_concurrent_downloads: int = 16,
    ) -> None:
        validate_number("max_image_bytes", max_image_bytes, at_least=1, whole=True)
        validate_number(
            "max_concurrent_downloads", max_concurrent_downloads, at_least=1, whole=True
        )
        self._folder = _a_path("folder", folder)
        self._max_image_bytes = max_image_bytes
        # Of each a connection and a file.
        self._max_concurrent_downloads = affordable(max_concurrent_downloads, "downloads", each=2)
        self._saver: Saver | None = None

    def __repr__(self) -> str:
        return f"<CoverArchive {self._folder} {'closed' if self._saver is None else 'open'}>"

    async def __aenter__(self) -> Self:
        if self._saver is not None:
            raise RuntimeError("this CoverArchive is open already")
        threads = Threads(self._folder)
        await threads.open()
        self._saver = Saver(
            self._folder,
            threads,
            max_image_bytes=self._max_image_bytes,
            max_concurrent_downloads=self._max_concurrent_downloads,
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
        is refused with 403, 404 or 410 is renewed once by `get_download_url`; if the API refuses to
        renew it, the host's answer stands.

        All images are tried; then the first error is raised, what was saved is kept and noted, and
        the cover is pending; unless another archive has brought meanwhile what this one could not
        have, so that all images are here after all. Raises `DownloadError` for an image that cannot
        be had or is none, what `get_download_url` raises, `OSError` where the disk refuses, and
        `ValueError` for a cover without images.
        """
        if not isinstance(details, CoverDetails):
            raise TypeError(f"details must be CoverDetails, not {short_repr(details)}")
        validate_task_id("details.task_id", details.task_id)
        if not details.is_success:
            raise ValueError(
                f"details must be of a cover with images, not of {short_repr(details)}"
            )
        saver = self._open_saver()
        with saver.threads.in_use():
            return await saver.save(client, details)

    async def mark_failed(self, task_id: str, error: Exception) -> None:
        """Note that there will be no cover, and why; it is not pending any more.

        `is_final` says of an error whether that is so.

        One that is saved stays so: another process may have had it meanwhile.
        """
        validate_task_id("task_id", task_id)
        if not isinstance(error, Exception):
            raise TypeError(f"error must be an exception, not {short_repr(error)}")
        details = getattr(error, "details", None)
        is_of_it = isinstance(details, CoverDetails) and details.task_id == task_id
        said = f"{type(error).__name__}: {error}"[:_LONGEST_NOTE]
        await self._ask(lambda record: record.fail(task_id, said, details if is_of_it else None))

    async def mark_pending(self, task_ids: Iterable[str] | None = None) -> list[str]:
        """Make these covers pending again, or all that failed; those of them that were not."""
        ids = None if task_ids is None else _ids(task_ids)
        return await self._ask(lambda record: record.retry(ids))

    async def find(self, task_id: str) -> ArchivedCover | None:
        """What is known of this cover, if anything."""
        id_ = validate_task_id("task_id", task_id)
        covers = await self._ask(lambda record: record.covers("WHERE task_id = ?", id_))
        return covers[0] if covers else None

    async def pending(self) -> list[ArchivedCover]:
        """The covers that are still to be saved, as they were added."""
        return await self._listed(PENDING)

    async def failed(self) -> list[ArchivedCover]:
        """The covers that `mark_failed` was called for, as they were added."""
        return await self._listed(FAILED)

    async def saved(self) -> list[ArchivedCover]:
        """The covers all of whose images are here, as they were added."""
        return await self._listed(SAVED)

    async def expiring(self, within: timedelta = timedelta(days=3)) -> list[ArchivedCover]:
        """The covers not saved whose images are deleted this soon, or were; the soonest first.

        Where it is not known when a job was done, it is counted from when its id was added.
        """
        if not isinstance(within, timedelta):
            raise TypeError(f"within must be a timedelta, not {short_repr(within)}")
        covers = await self._listed(EXPIRING, time.time() + within.total_seconds())
        return sorted(covers, key=lambda cover: cover.expires_at or cover.added_at + RETENTION)

    async def verify(self) -> VerificationReport:
        """Read all recorded images, compare them with their hashes, and check the record itself.

        Nothing is changed by it, and an image that cannot be read is a finding like any other; a
        record that cannot be read is a `DamagedRecordError`. To have what was found again, `save`
        the cover; `mark_pending` makes it pending, for whoever works through what is.
        """
        threads = self._open_saver().threads
        findings: list[ImageProblem | None] = []
        with threads.in_use():
            async for covers in Pages(threads, size=_VERIFIED_AT_A_TIME):
                checks = [
                    threads.begin(partial(_look_at, cover.task_id, image))
                    for cover in covers
                    for image in cover.images
                ]
                findings += await asyncio.gather(*checks)
            await threads.begin(self._check_record)
        return VerificationReport(checked=len(findings), findings=tuple(filter(None, findings)))

    async def export(self, path: str | PathLike[str]) -> int:
        """Write the whole record down, and return how many covers that are.

        A `path` ending in `.jsonl` gets a line of JSON for each cover, one in `.csv` a row for each
        image; any other is a `ValueError`. What was there stays until the new file is whole.
        """
        target = _a_path("path", path)
        threads = self._open_saver().threads
        with threads.in_use():
            return await export(target, threads)

    async def backup(self, path: str | PathLike[str]) -> None:
        """Copy the record to a new file, while this archive and others go on.

        The copy is complete or absent, and has all that was noted before this was called. It is one
        SQLite file: put into a folder as `covers.sqlite3`, beside the images, it is their record.

        Never copy or read `covers.sqlite3` as a plain file in a process that has the archive open:
        on POSIX systems that drops SQLite's locks, and what other processes note may be lost.

        Raises `FileExistsError` if there is a file already, and `OSError` if the copy cannot be
        written.
        """
        target = _a_path("path", path)
        threads = self._open_saver().threads
        with threads.in_use():
            await threads.ask(Record.check_place)
            await back_up(self._folder / NAME, target, threads)

    def _check_record(self) -> None:
        path = self._folder / NAME
        with failures_of(path):
            check_integrity(path)

    async def _listed(self, condition: str, *values: Any) -> list[ArchivedCover]:
        threads = self._open_saver().threads
        with threads.in_use():
            return [cover async for page in Pages(threads, condition, *values) for cover in page]

    async def _ask(self, question: Callable[[Record], T]) -> T:
        return await self._open_saver().threads.ask(question)

    def _open_saver(self) -> Saver:
        if self._saver is None:
            raise RuntimeError("this CoverArchive is not open: use it inside `async with`")
        return self._saver


def _look_at(task_id: str, image: SavedImage) -> ImageProblem | None:
    problem = problem_with(image)
    return ImageProblem(task_id=task_id, image=image, problem=problem) if problem else None


def _a_path(name: str, value: object) -> Path:
    if not isinstance(value, (str, PathLike)) or value == "":
        raise TypeError(f"{name} must be a path, not {short_repr(value)}")
    return Path(value)


def _ids(task_ids: Iterable[str]) -> list[str]:
    if isinstance(task_ids, (str, bytes)) or not isinstance(task_ids, Iterable):
        raise TypeError(f"task_ids must be an iterable of ids, not {short_repr(task_ids)}")
    return [validate_task_id("task_ids", each) for each in task_ids]
