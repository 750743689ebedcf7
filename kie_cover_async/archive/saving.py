"""Saving a cover: from its details to its images on disk."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from attrs import Factory, define, frozen

from kie_cover_async.errors import DownloadError, InvalidRequestError
from kie_cover_async.ledger import Api
from kie_cover_async.models import CoverDetails
from kie_cover_async.transport.downloader import ImageDownloader

from . import covers
from .database import ArchiveDatabase
from .executors import ArchiveExecutors
from .files import PartFile, VerifiedFile, file_exists, file_stem, find_problem, find_verified
from .formats import EMPTY, InvalidImageError
from .models import ArchivedCover, SavedImage

# The answers to a link that is too old; a fresh link may do better.
_STALE = {403, 404, 410}
# Bytes of an image that are collected in memory before they are written.
_BUFFER_SIZE = 3 << 20
# A host may send two bytes at a time, and each piece takes forty in memory.
_MAX_PIECES = 1000


class Client(Protocol):
    """The part of a `CoverClient` that saving needs."""

    @property
    def downloader(self) -> ImageDownloader:
        """Fetches images."""

    @property
    def api(self) -> Api:
        """Issued the cover's id."""

    async def get_download_url(self, image_url: str) -> str:
        """Return a fresh link to an image."""


@frozen
class _WantedImage:
    """One image of the cover, the row that the database has of it, and whether there is a file."""

    task_id: str
    number: int
    url: str
    recorded: SavedImage | None = None
    file_exists: bool = False

    def error(self, reason: str, *, retryable: bool = False) -> DownloadError:
        return DownloadError(task_id=self.task_id, url=self.url, reason=reason, retryable=retryable)


@define(eq=False, kw_only=True)
class ImageSaver:
    """Saves covers into a folder, with a limit on concurrent downloads."""

    executors: ArchiveExecutors
    _max_image_bytes: int
    _download_slots: asyncio.Semaphore
    _cover_locks: WeakValueDictionary[str, asyncio.Lock] = Factory(WeakValueDictionary)

    async def save(self, client: Client, details: CoverDetails) -> ArchivedCover:
        """Save all images; raise the error of the first that failed, unless they are all there.

        Another archive may have saved what failed here.
        """
        # A second save of the same cover waits, and then finds the images.
        async with self._cover_locks.setdefault(details.task_id, asyncio.Lock()):
            read = partial(self._wanted_images, details, client.api)
            wanted = await self.executors.batcher.submit(read)
            saves = [self._save_image(client, image) for image in wanted]
            outcomes = await asyncio.gather(*saves, return_exceptions=True)
            errors = [each for each in outcomes if isinstance(each, BaseException)]
            new_images = [each for each in outcomes if isinstance(each, SavedImage)]
            record = partial(
                covers.record_save, details=details, new_images=new_images, is_complete=not errors
            )
            cover = await self.executors.batcher.submit(record, names_changed=bool(new_images))
            if cover.state != "saved":
                raise errors[0]
            return cover

    def _wanted_images(
        self, details: CoverDetails, api: Api, database: ArchiveDatabase
    ) -> list[_WantedImage]:
        # Looking for files here, in the database's thread, spares most images another thread.
        covers.record_details(database, details, api)
        folder, task_id = self.executors.folder, details.task_id
        recorded = {image.number: image for image in covers.recorded_images(database, task_id)}
        return [
            _WantedImage(task_id, n, url, recorded.get(n), file_exists(folder, task_id, n))
            for n, url in enumerate(details.images, 1)
        ]

    async def _save_image(self, client: Client, image: _WantedImage) -> SavedImage | None:
        """Return the image if it is new, or `None` if its file is there as recorded."""
        async with self._download_slots:
            on_files, recorded, file = self.executors.on_files, image.recorded, None
            if image.file_exists and recorded is None:
                folder = self.executors.folder
                file = await on_files(find_verified, folder, image.task_id, image.number)
            elif image.file_exists and await on_files(find_problem, recorded) is None:
                return None
            file = file or await self._download(client, image)
            saved = file.as_image(image.number, image.url)
            if recorded is not None:
                # The old row contradicts the new file, and must not outlive a crash.
                record = partial(covers.record_image, task_id=image.task_id, image=saved)
                await self.executors.batcher.submit(record, names_changed=True)
            return saved

    async def _download(self, client: Client, image: _WantedImage) -> VerifiedFile:
        async with self.executors.part_file(self.executors.folder) as part:
            receive = partial(self._receive, image, part)
            fetch = partial(client.downloader.fetch, receive=receive, task_id=image.task_id)
            try:
                return await fetch(image.url)
            except DownloadError as error:
                if error.http_status not in _STALE and error.reason != EMPTY:
                    raise
                return await fetch(await self._renew_link(client, image, error))

    async def _renew_link(self, client: Client, image: _WantedImage, error: DownloadError) -> str:
        """Return a fresh link, or raise the host's error if the API refuses to renew this one."""
        try:
            return await client.get_download_url(image.url)
        except InvalidRequestError as refusal:
            raise error from refusal

    async def _receive(
        self, image: _WantedImage, part: PartFile, pieces: AsyncIterator[bytes]
    ) -> VerifiedFile:
        """Write a body to the part file, and keep it.

        Raises:
            DownloadError: It is not an image, or is too large.
        """
        stem = file_stem(image.task_id, image.number)
        buffer: list[bytes] = []
        size = written = 0
        async for piece in pieces:
            size += len(piece)
            if size > self._max_image_bytes:
                raise image.error(f"it has more than {self._max_image_bytes} bytes")
            buffer.append(piece)
            if len(buffer) >= _MAX_PIECES:
                buffer = [b"".join(buffer)]
            if size - written >= _BUFFER_SIZE:
                write = partial(part.write, buffer, restart=not written)
                await self.executors.on_files(write)
                buffer, written = [], size
        keep = partial(part.keep_image, buffer, restart=not written, stem=stem)
        try:
            return await self.executors.on_files(keep)
        except InvalidImageError as error:
            raise image.error(str(error), retryable=True) from None
