"""A Redis server of a test's own, on a free port of this machine."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from attrs import define, field

REDIS = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(
    REDIS is None, reason="needs redis-server 6.2 or later: apt-get install redis-server"
)


@define
class RedisServer:
    """A server that keeps nothing on disk, and can be killed and started again."""

    folder: Path
    port: int = field(init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @port.default
    def _free_port(self) -> int:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            return int(bound.getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(
            [str(REDIS), *options, "--dir", self.folder], stdout=subprocess.DEVNULL
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
