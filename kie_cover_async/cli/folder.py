"""The folder that images go to."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from kie_cover_async.archive import CoverArchive

from .output import Refused


@asynccontextmanager
async def archive_in(folder: str) -> AsyncIterator[CoverArchive]:
    """The archive in the folder that `--out` names; raises `Refused` where there can be none."""
    if not folder:
        raise Refused("--out must name a folder, not ''")
    async with AsyncExitStack() as stack:
        try:
            archive = await stack.enter_async_context(CoverArchive(folder))
        except (OSError, TypeError, ValueError) as error:
            raise Refused(f"--out {folder}: {error}") from None
        yield archive
