"""How the contract opens a ledger in PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kie_cover_async.fleet import PostgresLedger


@asynccontextmanager
async def opened(argument: str) -> AsyncIterator[PostgresLedger]:
    """Open the ledger of `URL SCHEMA`."""
    url, _, schema = argument.partition(" ")
    async with PostgresLedger(url, schema=schema) as ledger:
        yield ledger
