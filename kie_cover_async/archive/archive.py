"""`CoverArchive`: the images of covers in a folder, and a record of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar

from kie_cover_async.descriptors import affordable
from kie_cover_async.ledger import Api, Song, SongState
from kie_cover_async.models import RETENTION, CoverDetails
from kie_cover_async.validation import short_repr, validate_number, validate_task_id

from . import covers
from .covers import CoverPages
from .database import NAME, ArchiveDatabase, check_integrity
from .executors import ArchiveExecutors
from .export import back_up, export
from .files import find_problem
from .models import ArchivedCover, ImageProblem, SavedImage, VerificationReport
from .saving import Client, ImageSaver
from .songs import SqliteLedger

T = TypeVar("T")

# Covers. A save waits until the images of so many, two of each, are read.
_VERIFIED_PER_PAGE = 32


class CoverArchive:
    """A folder of cover images, each complete or absent, and a record of what is there.

    Use it inside `async with`, which creates the folder if it is missing and, at the end, waits for
    every running `save`. Two archives on one folder, in one process or in two, do no harm to each
    other. If the process ends at any moment, only the downloads in progress are lost.

    Saves continue while the archive lists, verifies or exports many covers: these read 500 covers
    at one moment, and the next ones a little later. A cover that is added or changes meanwhile may
    be included or not.

    Args:
        folder: Holds the images and the record, `covers.sqlite3`; must be on a local disk.
        max_image_bytes: A larger image is refused.
        max_concurrent_downloads: How many images are fetched at the same time; fewer if the process
            may open few files (`ulimit -n`), and a warning says so.

    Raises:
        TypeError, ValueError: An argument cannot be used; the message names it. Opening raises
            `ValueError` if the record is another program's database or of a later version.
        OSError: On opening, if the folder is not a folder or cannot be written to.
        DamagedRecordError: From any method that reads the record, if it cannot be read.

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
        downloads = max_concurrent_downloads
        validate_number("max_image_bytes", max_image_bytes, at_least=1, whole=True)
        validate_number("max_concurrent_downloads", downloads, at_least=1, whole=True)
        self._folder = _validate_path("folder", folder)
        self._max_image_bytes = max_image_bytes
        # Each needs a connection and a file.
        self._max_concurrent_downloads = affordable(downloads, "downloads", each=2)
        self._saver: ImageSaver | None = None
        self._ledger = SqliteLedger(self._query, self._commit)

    def __repr__(self) -> str:
        return f"<CoverArchive {self._folder} {'closed' if self._saver is None else 'open'}>"

    async def __aenter__(self) -> Self:
        if self._saver is not None:
            raise RuntimeError("this CoverArchive is already open")
        executors = ArchiveExecutors(self._folder)
        await executors.open()
        self._saver = ImageSaver(
            executors=executors,
            max_image_bytes=self._max_image_bytes,
            download_slots=asyncio.Semaphore(self._max_concurrent_downloads),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Refuse new calls, wait for those that are running, and close the folder."""
        saver, self._saver = self._saver, None
        if saver is not None:
            await saver.executors.aclose()

    @property
    def folder(self) -> Path:
        """The folder that holds the images."""
        return self._folder

    async def add(self, task_ids: Iterable[str], *, api: Api | None = None) -> list[str]:
        """Add covers as pending, and return the ids that are new.

        Once this returns, neither a crash nor a power failure loses them. `api` is stored for new
        ids, and for those of which it was unknown.
        """
        ids = _validate_ids(task_ids)
        return await self._query(lambda database: covers.add(database, ids, api))

    async def save(self, client: Client, details: CoverDetails) -> ArchivedCover:
        """Save all images of this cover, and return its entry in the record.

        An image that is in the folder and complete is not fetched again, whether it is recorded or
        not. A link that the host refuses with 403, 404 or 410, or for which it sends no bytes, is
        renewed once by `get_download_url`.

        All images are tried. Then the first error is raised, the images that were saved are
        recorded, and the cover is pending. No error is raised if another archive has saved the
        missing images meanwhile.

        Raises:
            DownloadError: An image cannot be fetched or is not an image. If the API refuses to
                renew a link, this is the host's answer.
            KieCoverError: An error of `get_download_url`.
            OSError: The disk is full or cannot be written to.
            ValueError: The cover has no images.
        """
        if not isinstance(details, CoverDetails):
            raise TypeError(f"details must be CoverDetails, not {short_repr(details)}")
        validate_task_id("details.task_id", details.task_id)
        if not details.is_success:
            said = short_repr(details)
            raise ValueError(f"details must be of a cover with images, not of {said}")
        with self._in_use() as saver:
            return await saver.save(client, details)

    async def mark_failed(self, task_id: str, error: Exception) -> None:
        """Record that there will be no cover, and why; it is no longer pending.

        Use it only for errors of which `is_final` is true. A saved cover stays saved: another
        process may have saved it meanwhile.
        """
        validate_task_id("task_id", task_id)
        if not isinstance(error, Exception):
            raise TypeError(f"error must be an exception, not {short_repr(error)}")
        await self._query(lambda database: covers.mark_failed(database, task_id, error))

    async def mark_pending(self, task_ids: Iterable[str] | None = None) -> list[str]:
        """Make these covers, or all failed ones, pending again; return those that were not."""
        ids = None if task_ids is None else _validate_ids(task_ids)
        return await self._query(lambda database: covers.mark_pending(database, ids))

    async def find(self, task_id: str) -> ArchivedCover | None:
        """Return the cover's entry in the record, or `None` if it has none."""
        validate_task_id("task_id", task_id)
        return await self._query(lambda database: covers.find(database, task_id))

    async def pending(self) -> list[ArchivedCover]:
        """Return the covers that are not saved yet, in the order they were added."""
        return await self._list(covers.PENDING)

    async def failed(self) -> list[ArchivedCover]:
        """Return the covers that `mark_failed` was called for, in the order they were added."""
        return await self._list(covers.FAILED)

    async def saved(self) -> list[ArchivedCover]:
        """Return the covers whose images were all saved, in the order they were added."""
        return await self._list(covers.SAVED)

    async def expiring(self, within: timedelta = timedelta(days=3)) -> list[ArchivedCover]:
        """Return the covers that are not saved and whose images expire soon, or have expired.

        The most urgent comes first. If the time when a job ended is unknown, the time when its id
        was added counts instead.
        """
        if not isinstance(within, timedelta):
            raise TypeError(f"within must be a timedelta, not {short_repr(within)}")
        found = await self._list(covers.EXPIRING, time.time() + within.total_seconds())
        return sorted(found, key=lambda cover: cover.expires_at or cover.added_at + RETENTION)

    @property
    def ledger(self) -> SqliteLedger:
        """The ledger of songs, in the same database as the record of covers."""
        return self._ledger

    async def songs(self, state: SongState | None = None) -> AsyncIterator[Song]:
        """Yield all songs, or those in one state, in the order they were added.

        They are read 500 at one moment, and the next ones a little later.
        """
        after = 0
        while page := await self._ledger.page(state, after=after):
            for song in page:
                yield song
            after = page[-1].position

    async def find_song(self, music_task_id: str) -> Song | None:
        """Return the song, or `None` if the ledger does not have it."""
        validate_task_id("music_task_id", music_task_id)
        return await self._ledger.find(music_task_id)

    async def verify(self) -> VerificationReport:
        """Read all recorded images, compare them with their hashes, and check the record itself.

        This changes nothing. An image that cannot be read is reported like one that is missing; a
        record that cannot be read raises `DamagedRecordError`. To fetch a reported image again,
        `save` its cover, or make it pending by `mark_pending` and save it with the others.
        """
        problems: list[ImageProblem | None] = []
        with self._in_use() as saver:
            on_files = saver.executors.on_files
            async for page in CoverPages(saver.executors, size=_VERIFIED_PER_PAGE):
                checks = [
                    on_files(_check_image, cover.task_id, image)
                    for cover in page
                    for image in cover.images
                ]
                problems += await asyncio.gather(*checks)
            await on_files(check_integrity, self._folder / NAME)
        return VerificationReport(checked=len(problems), findings=tuple(filter(None, problems)))

    async def export(self, path: str | PathLike[str]) -> int:
        """Write the whole record to a file, and return how many covers it has.

        If `path` ends in `.jsonl`, the file has a line of JSON for each cover; if in `.csv`, a row
        for each image. An existing file is replaced only once the new one is complete.

        Raises:
            ValueError: The path has another suffix.
        """
        target = _validate_path("path", path)
        with self._in_use() as saver:
            return await export(target, saver.executors)

    async def backup(self, path: str | PathLike[str]) -> None:
        """Copy the record to a new file while this archive and others continue.

        The copy is complete or absent, and has everything that was recorded before this call. It is
        one SQLite file: in another folder, named `covers.sqlite3` and next to the images, it is
        their record.

        Never copy or read `covers.sqlite3` as a plain file in a process that has the archive open:
        on POSIX systems that drops SQLite's locks, and what other processes write may be lost.

        Raises:
            FileExistsError: The file exists.
            OSError: The copy cannot be written.
        """
        target = _validate_path("path", path)
        with self._in_use() as saver:
            await saver.executors.query(ArchiveDatabase.check_files)
            await back_up(self._folder / NAME, target, saver.executors)

    async def _list(self, condition: str, *values: Any) -> list[ArchivedCover]:
        with self._in_use() as saver:
            pages = CoverPages(saver.executors, condition, values)
            return [cover async for page in pages for cover in page]

    async def _query(self, function: Callable[[ArchiveDatabase], T]) -> T:
        with self._in_use() as saver:
            return await saver.executors.query(function)

    async def _commit(self, change: Callable[[ArchiveDatabase], T]) -> T:
        """Make a change that a power failure does not undo, together with others of the moment."""
        with self._in_use() as saver:
            return await saver.executors.durable_batcher.submit(change)

    @contextmanager
    def _in_use(self) -> Iterator[ImageSaver]:
        if self._saver is None:
            raise RuntimeError("this CoverArchive is not open: use it inside `async with`")
        with self._saver.executors.in_use():
            yield self._saver


def _check_image(task_id: str, image: SavedImage) -> ImageProblem | None:
    problem = find_problem(image)
    return ImageProblem(task_id=task_id, image=image, problem=problem) if problem else None


def _validate_path(name: str, value: object) -> Path:
    if not isinstance(value, (str, PathLike)) or value == "":
        raise TypeError(f"{name} must be a path, not {short_repr(value)}")
    return Path(value)


def _validate_ids(task_ids: Iterable[str]) -> list[str]:
    if isinstance(task_ids, (str, bytes)) or not isinstance(task_ids, Iterable):
        raise TypeError(f"task_ids must be an iterable of ids, not {short_repr(task_ids)}")
    return [validate_task_id("task_ids", each) for each in task_ids]
