"""From a cover's details to its images on disk."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from attrs import frozen

from kie_cover_async.errors import DownloadError
from kie_cover_async.models import CoverDetails
from kie_cover_async.transport import Downloads

from .files import PartFile, Whole, find_whole, lies_there, problem_with, sync_folder
from .formats import SUFFIXES, NoImageError
from .names import stem
from .record import Record
from .threads import Threads
from .values import ArchivedCover, SavedImage

# A link that is too old answers with one of these; a fresh one may do better.
_STALE = {403, 404, 410}
# Bytes that go to a thread in one piece: a quarter of it was measured to cost a tenth more CPU.
_BATCH = 1 << 20


class Client(Protocol):
    """What is borrowed of a `CoverClient`."""

    @property
    def downloads(self) -> Downloads:
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

    def __init__(self, folder: Path, threads: Threads, *, largest_image: int, at_once: int) -> None:
        self._folder = folder
        self.threads: Threads = threads
        self._largest = largest_image
        self._places = asyncio.Semaphore(at_once)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._syncing = asyncio.Lock()
        self._moved = self._synced = 0

    async def save(self, client: Client, details: CoverDetails) -> ArchivedCover:
        """The cover, all of whose images are here now; raises what kept the first of them away.

        What another archive has brought meanwhile is here, too.
        """
        task_id = details.task_id
        # Who saves the same cover at the same time finds it when it is their turn.
        async with self._turns.setdefault(task_id, asyncio.Lock()):
            images = await self.threads.ask(partial(self._wanted, details))
            saving = [self._save(client, image) for image in images]
            outcomes = await asyncio.gather(*saving, return_exceptions=True)
            errors = [error for error in outcomes if error is not None]
            await self._sync()
            cover = await self.threads.ask(lambda r: r.settle(task_id, saved=not errors))
            if cover.state != "saved":
                raise errors[0]
            return cover

    def _wanted(self, details: CoverDetails, record: Record) -> list[_Wanted]:
        """Its images. Looking here whether a file is there spares most of them another thread."""
        task_id, known = details.task_id, record.learn(details)
        return [
            _Wanted(
                task_id=task_id,
                number=number,
                url=url,
                known=known.get(number),
                lies_there=lies_there(self._folder, stem(task_id, number)),
            )
            for number, url in enumerate(details.images, 1)
        ]

    async def _save(self, client: Client, image: _Wanted) -> None:
        async with self._places:
            if not (image.lies_there and await self._is_whole(image)):
                await self._bring(client, image)

    async def _is_whole(self, image: _Wanted) -> bool:
        """Whether what lies there is as it was saved, or whole and unknown: then it is noted."""
        if image.known is not None:
            return await self.threads.begin(partial(problem_with, image.known)) is None
        name = stem(image.task_id, image.number)
        whole = await self.threads.begin(partial(find_whole, self._folder, name))
        if whole is not None:
            await self._keep(image, whole)
        return whole is not None

    async def _bring(self, client: Client, image: _Wanted) -> None:
        part = PartFile(self._folder)
        try:
            try:
                whole = await self._fetch(client, image, image.url, part)
            except DownloadError as error:
                if error.http_status not in _STALE:
                    raise
                link = await client.get_download_url(image.url)
                whole = await self._fetch(client, image, link, part)
            await self._keep(image, whole, part)
        except BaseException:
            # A thread may be at it still, and this comes after it, cancelled again or not.
            await asyncio.shield(self.threads.begin(part.discard))
            raise

    async def _fetch(self, client: Client, image: _Wanted, url: str, part: PartFile) -> Whole:
        receive = partial(self._receive, image, part)
        return await client.downloads.fetch(url, receive, task_id=image.task_id)

    async def _receive(self, image: _Wanted, part: PartFile, pieces: AsyncIterator[bytes]) -> Whole:
        """Write a body down; raises `DownloadError` where it is no image, or too large."""
        batch: list[bytes] = []
        size = written = 0
        async for piece in pieces:
            size += len(piece)
            if size > self._largest:
                raise _refused(image, f"it has more than {self._largest} bytes")
            batch.append(piece)
            if size - written >= _BATCH:
                await self.threads.begin(partial(part.write, batch, anew=not written))
                batch, written = [], size
        try:
            return await self.threads.begin(partial(part.finish, batch, anew=not written))
        except NoImageError as error:
            reason = str(error)
        raise _refused(image, reason, again=True)

    async def _keep(self, image: _Wanted, whole: Whole, part: PartFile | None = None) -> None:
        kind = whole.format
        name = stem(image.task_id, image.number) + SUFFIXES[kind.media_type]
        saved = SavedImage(
            number=image.number,
            url=image.url,
            path=self._folder / name,
            sha256=whole.sha256,
            size=whole.size,
            media_type=kind.media_type,
            width=kind.width,
            height=kind.height,
        )
        await self.threads.ask(lambda record: record.keep(image.task_id, saved, part))
        self._moved += 1

    async def _sync(self) -> None:
        """Let what was moved so far be where it is after a loss of power, too.

        One fsync of the folder serves all who came while the one before it was running.
        """
        moved = self._moved
        async with self._syncing:
            if self._synced >= moved:
                return
            moved = self._moved
            await self.threads.begin(partial(sync_folder, self._folder))
            self._synced = moved


def _refused(image: _Wanted, reason: str, *, again: bool = False) -> DownloadError:
    return DownloadError(task_id=image.task_id, url=image.url, reason=reason, safe_to_repeat=again)
