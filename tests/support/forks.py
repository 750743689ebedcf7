"""Processes of the command that need no imports because they are forks: see preloaded.py."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from attrs import define

PRELOADED = Path(__file__).with_name("preloaded.py")


async def pipe() -> tuple[asyncio.StreamReader, int]:
    """Return the reading end, and the descriptor of the writing end."""
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
    )
    return reader, writing


class ForkServer:
    """Starts processes of the command by forking a process that has imported it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            self._preloaded = subprocess.Popen(
                [sys.executable, PRELOADED, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.close()
        self._preloaded.wait()

    async def start(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        stdin: int,
        stdout: int | None = None,
        stderr: int | None = None,
        before: str = "",
    ) -> "ForkedProcess":
        """Start a process that executes the code `before` and then the command.

        Its stdout and its stderr are pipes unless they are given.
        """
        ended, alive = await pipe()
        out, stdout = await pipe() if stdout is None else (None, stdout)
        err, stderr = await pipe() if stderr is None else (None, stderr)
        request = {"arguments": arguments, "environment": environment, "before": before}
        files = [stdin, stdout, stderr, alive]
        socket.send_fds(self._requests, [json.dumps(request).encode()], files)
        pid = int(self._requests.recv(20))
        for writing in [alive, *([stdout] if out else []), *([stderr] if err else [])]:
            os.close(writing)
        return ForkedProcess(self, pid, out, err, ended)

    def exit_code(self, pid: int) -> int:
        self._requests.send(b"%d" % pid)
        return int(self._requests.recv(20))


@define
class ForkedProcess:
    """A process with the interface of `asyncio.subprocess.Process`, as far as tests use it."""

    server: ForkServer
    pid: int
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None
    ended: asyncio.StreamReader
    returncode: int | None = None

    async def communicate(self) -> tuple[bytes, bytes]:
        err = await self.stderr.read() if self.stderr else b""
        out = await self.stdout.read() if self.stdout else b""
        await self.wait()
        return out, err

    async def wait(self) -> int:
        if self.returncode is None:
            await self.ended.read()
            self.returncode = self.server.exit_code(self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
