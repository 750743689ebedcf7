"""From a cover's details to its images on disk."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from attrs import frozen

from kie_cover_async.errors import DownloadError, InvalidRequestError
from kie_cover_async.models import CoverDetails
from kie_cover_async.transport.downloader import ImageDownloader

from .direct import ROOM
from .files import Whole, find_whole, lies_there, problem_with
from .formats import NoImageError
from .names import stem
from .parts import PartFile, part_files
from .record import Record
from .threads import Threads
from .values import ArchivedCover, SavedImage

# A link that is too old answers with one of these; a fresh one may do better.
_STALE = {403, 404, 410}
# A host may send two bytes at a time, each piece of which takes forty in memory.
_MOST_PIECES = 1000


class Client(Protocol):
    """What is used of a `CoverClient`."""

    @property
    def downloader(self) -> ImageDownloader:
        """The way to images."""

    async def get_download_url(self, image_url: str) -> str:
        """A fresh link to an image."""


@frozen(kw_only=True)
class _Wanted:
    """One image that is to be here, and what there is of it."""

    task_id: str
    number: int
    url: str
    known: SavedImage | None = None
    lies_there: bool = False


class Saver:
    """Saves covers into a folder, so many images at once."""

    def __init__(
        self, folder: Path, threads: Threads, *, max_image_bytes: int, max_concurrent_downloads: int
    ) -> None:
        self._folder = folder
        self.threads: Threads = threads
        self._largest = max_image_bytes
        self._parts = part_files(folder)
        self._places = asyncio.Semaphore(max_concurrent_downloads)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def save(self, client: Client, details: CoverDetails) -> ArchivedCover:
        """The cover, all of whose images are here now; raises what kept the first of them away.

        What another archive has brought meanwhile is here, too.
        """
        # Who saves the same cover at the same time finds it when it is their turn.
        async with self._turns.setdefault(details.task_id, asyncio.Lock()):
            images = await self.threads.note(partial(self._wanted, details))
            saving = [self._save(client, image) for image in images]
            outcomes = await asyncio.gather(*saving, return_exceptions=True)
            errors = [each for each in outcomes if isinstance(each, BaseException)]
            brought = [each for each in outcomes if isinstance(each, SavedImage)]
            cover = await self.threads.note(
                lambda record: record.settle(details, brought, saved=not errors),
                names_changed=bool(brought),
            )
            if cover.state != "saved":
                raise errors[0]
            return cover

    def _wanted(self, details: CoverDetails, record: Record) -> list[_Wanted]:
        """Its images. Looking here whether a file is there spares most of them another thread."""
        record.learn(details)
        task_id, numbers = details.task_id, range(1, 1 + len(details.images))
        lying = {n for n in numbers if lies_there(self._folder, stem(task_id, n))}
        known = {image.number: image for image in record.images(task_id)}
        return [
            _Wanted(task_id=task_id, number=n, url=url, known=known.get(n), lies_there=n in lying)
            for n, url in zip(numbers, details.images, strict=True)
        ]

    async def _save(self, client: Client, image: _Wanted) -> SavedImage | None:
        """Have it here; what of it is to be noted."""
        async with self._places:
            if image.lies_there and await self._is_as_known(image):
                return None
            whole = await self._adopted(image) or await self._brought(client, image)
            saved = whole.as_image(image.number, image.url)
            if image.known is not None:
                # The row of what was here says otherwise of it, and is not to be believed later.
                await self.threads.note(
                    lambda record: record.keep(image.task_id, saved), names_changed=True
                )
            return saved

    async def _is_as_known(self, image: _Wanted) -> bool:
        """Whether it is here, as it was saved."""
        known = image.known
        return known is not None and await self.threads.begin(partial(problem_with, known)) is None

    async def _adopted(self, image: _Wanted) -> Whole | None:
        """What lies there whole and is not known."""
        if image.known is not None or not image.lies_there:
            return None
        name = stem(image.task_id, image.number)
        return await self.threads.begin(partial(find_whole, self._folder, name))

    async def _brought(self, client: Client, image: _Wanted) -> Whole:
        part = next(self._parts)
        try:
            try:
                return await self._fetch(client, image, image.url, part)
            except DownloadError as error:
                if error.http_status not in _STALE:
                    raise
                link = await self._renewed(client, image, error)
                return await self._fetch(client, image, link, part)
        except BaseException:
            # A thread may be at it still, and this comes after it, cancelled again or not.
            await asyncio.shield(self.threads.begin(part.discard))
            raise

    async def _renewed(self, client: Client, image: _Wanted, error: DownloadError) -> str:
        """Return a fresh link; raises the host's error if the API refuses to renew this one."""
        try:
            return await client.get_download_url(image.url)
        except InvalidRequestError as refusal:
            raise error from refusal

    async def _fetch(self, client: Client, image: _Wanted, url: str, part: PartFile) -> Whole:
        receive = partial(self._receive, image, part)
        return await client.downloader.fetch(url, receive, task_id=image.task_id)

    async def _receive(self, image: _Wanted, part: PartFile, pieces: AsyncIterator[bytes]) -> Whole:
        """Write a body down; raises `DownloadError` where it is no image, or too large."""
        batch: list[bytes] = []
        size = written = 0
        async for piece in pieces:
            size += len(piece)
            if size > self._largest:
                raise _refused(image, f"it has more than {self._largest} bytes")
            batch.append(piece)
            if len(batch) >= _MOST_PIECES:
                batch = [b"".join(batch)]
            if size - written >= ROOM:
                await self.threads.begin(partial(part.write, batch, anew=not written))
                batch, written = [], size
        try:
            name = stem(image.task_id, image.number)
            keep = partial(part.keep_image, batch, anew=not written, stem=name)
            return await self.threads.begin(keep)
        except NoImageError as error:
            reason = str(error)
        raise _refused(image, reason, again=True)


def _refused(image: _Wanted, reason: str, *, again: bool = False) -> DownloadError:
    return DownloadError(task_id=image.task_id, url=image.url, reason=reason, retryable=again)
