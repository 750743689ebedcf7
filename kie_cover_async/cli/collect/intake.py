"""Ids, noted in the archive for good before anything else; and which of them are worked on."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing

from kie_cover_async import CoverDetails, InvalidTaskIdError
from kie_cover_async.archive import ArchivedCover, CoverArchive
from kie_cover_async.cli.ids import NoIds
from kie_cover_async.cli.output import Refused, say
from kie_cover_async.validation import validate_task_id

from .lines import Lines


class Intake:
    """The covers to collect: those that are pending, then those of new ids, up to a limit.

    `done` has those that are known to be done, and need no poll; `waiting` the ids of the others.
    """

    def __init__(
        self, archive: CoverArchive, lines: Lines, pending: Sequence[ArchivedCover], limit: float
    ) -> None:
        self._archive, self._lines = archive, lines
        self._left = limit
        self._seen = {cover.task_id for cover in pending}
        self._waiting: asyncio.Queue[str | None] = asyncio.Queue()
        lines.haul.pending += len(pending)
        self.done: Iterator[CoverDetails] = iter([*self._sort(pending)])

    async def waiting(self) -> AsyncIterator[str]:
        """They come until `note` has come to its end."""
        while (task_id := await self._waiting.get()) is not None:
            yield task_id

    async def note(self, batches: AsyncGenerator[list[str], None]) -> None:
        """Note all of these; raises `Refused` if they cannot be read, or nothing is to be done."""
        try:
            async with aclosing(batches):
                async for batch in batches:
                    await self._note([each for each in batch if self._is_an_id(each)])
        except NoIds as error:
            if not self._seen:
                raise Refused(f"{error}, and nothing is pending") from None
            say(f"kie-cover: {error}")
        self._waiting.put_nowait(None)

    def _sort(self, pending: Sequence[ArchivedCover]) -> Iterator[CoverDetails]:
        for cover in pending:
            if cover.details is None or not cover.details.is_success:
                self._wait_for(cover.task_id)
            elif self._is_within_limit():
                yield cover.details

    def _wait_for(self, task_id: str) -> None:
        if self._is_within_limit():
            self._waiting.put_nowait(task_id)

    def _is_within_limit(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def _is_an_id(self, given: str) -> bool:
        try:
            validate_task_id("task_id", given)
        except InvalidTaskIdError as error:
            self._lines.ended(given, "refused", error)
            return False
        return True

    async def _note(self, task_ids: list[str]) -> None:
        self._begin(await self._archive.add(task_ids))
        for task_id in task_ids:
            if task_id not in self._seen and (known := await self._archive.find(task_id)):
                self._seen.add(task_id)
                await self._meet(known)

    def _begin(self, task_ids: list[str]) -> None:
        self._seen.update(task_ids)
        self._lines.haul.pending += len(task_ids)
        for task_id in task_ids:
            self._wait_for(task_id)

    async def _meet(self, known: ArchivedCover) -> None:
        """A cover that the archive knew, and not as pending, when this run began."""
        if known.state == "failed":
            self._lines.failed_before(known)
        elif known.state == "saved" and await asyncio.to_thread(_lie_there, known):
            self._lines.haul.here += 1
        else:  # its files are gone, or somebody else is at work in this folder
            await self._archive.mark_pending([known.task_id])
            self._begin([known.task_id])


def _lie_there(cover: ArchivedCover) -> bool:
    """Whether the files of all its images do; what is in them is not read for that."""
    wanted = cover.details.images if cover.details is not None else ()
    is_known = 0 < len(wanted) <= len(cover.images)
    return is_known and all(image.path.exists() for image in cover.images)
