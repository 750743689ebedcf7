from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from attrs import frozen
from support.postgres_server import PostgresServer
from support.redis_server import RedisServer


@pytest.fixture
def stopped_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def redis(stopped_redis: RedisServer) -> RedisServer:
    stopped_redis.start()
    return stopped_redis


@frozen
class Database:
    """A schema of a test's own."""

    url: str
    schema: str

    async def execute(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Execute a statement in the schema, as any program could."""
        quoted = '"' + self.schema.replace('"', '""') + '"'
        connection = await asyncpg.connect(self.url, server_settings={"search_path": quoted})
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    async def expire(self) -> None:
        """Make every claim and every lease as old as those of a dead process."""
        await self.execute("UPDATE songs SET claimed_at = claimed_at - interval '901 s'")
        await self.execute("UPDATE claimants SET alive_until = alive_until - interval '61 s'")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.create()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def database(postgres: PostgresServer) -> Database:
    return Database(postgres.url, postgres.schema())
