"""How the contract opens the ledger of a folder."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kie_cover_async.archive import CoverArchive
from kie_cover_async.ledger import Ledger


@asynccontextmanager
async def opened(folder: str) -> AsyncIterator[Ledger]:
    async with CoverArchive(folder) as archive:
        yield archive.ledger
