"""Who saves covers, as they are done, several at once."""

import asyncio
from collections.abc import AsyncIterator, Iterator

from attrs import frozen

from kie_cover_async import (
    AuthenticationError,
    ConnectionSetupError,
    CoverClient,
    CoverDetails,
    CoverOutcome,
    ForbiddenError,
    KieCoverError,
)
from kie_cover_async.archive import CoverArchive, is_final

from .lines import Lines

# The archive has a limit of its own for images.
_COVERS_AT_ONCE = 16

# What would be the answer for every other cover, too.
_HOPELESS = (AuthenticationError, ConnectionSetupError, ForbiddenError)


@frozen
class Crew:
    """Saves what is done, and notes what will never be; the rest stays pending."""

    client: CoverClient
    archive: CoverArchive
    lines: Lines

    def begin(
        self,
        group: asyncio.TaskGroup,
        done: Iterator[CoverDetails],
        outcomes: AsyncIterator[CoverOutcome],
    ) -> None:
        """Set to work on both at the same time.

        The group fails where the API refuses us altogether or cannot be reached as things are set
        up, and where the disk refuses.
        """
        for _ in range(_COVERS_AT_ONCE):
            group.create_task(self._save_all(done))
            group.create_task(self._follow(outcomes))

    async def _save_all(self, done: Iterator[CoverDetails]) -> None:
        for details in done:
            await self._save(details)

    async def _follow(self, outcomes: AsyncIterator[CoverOutcome]) -> None:
        async for outcome in outcomes:
            if outcome.error is None:
                await self._save(outcome.result())
            else:
                await self._end(outcome.task_id, outcome.error)

    async def _save(self, details: CoverDetails) -> None:
        try:
            cover = await self.archive.save(self.client, details)
        except KieCoverError as error:
            await self._end(details.task_id, error, details)
        else:
            self.lines.saved(cover)

    async def _end(
        self, task_id: str, error: KieCoverError, details: CoverDetails | None = None
    ) -> None:
        if isinstance(error, _HOPELESS):
            raise error
        if not is_final(error, details):
            self.lines.ended(task_id, "not done", error)
            return
        await self.archive.mark_failed(task_id, error)
        self.lines.ended(task_id, "failed", error)
