"""A Redis server for each test that asks for one, on a free port of this machine."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field

REDIS = shutil.which("redis-server")


@define
class RedisServer:
    """A server that keeps nothing on disk, and can be killed and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        assert REDIS is not None
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(
            [REDIS, *options, "--dir", self.folder], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port)) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith(b"+PONG")
        except OSError:
            return False


@pytest.fixture
def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.fixture
def stopped_redis(tmp_path: Path, free_port: int) -> Iterator[RedisServer]:
    if REDIS is None:
        pytest.skip("needs redis-server: install the Debian package redis-server, or Redis >= 6.2")
    server = RedisServer(tmp_path, free_port)
    yield server
    server.kill()


@pytest.fixture
def redis(stopped_redis: RedisServer) -> RedisServer:
    stopped_redis.start()
    return stopped_redis
