from collections.abc import Iterator
from pathlib import Path

import pytest
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
