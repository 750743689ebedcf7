"""Processes of the command that need not load it, since they are forks: see preloaded.py."""

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
    """The end of it that is read, and the descriptor of the other."""
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
    )
    return reader, writing


class Forks:
    """Makes processes of the command."""

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
    ) -> "Fork":
        """Its stdout is a pipe if none is given, and so is its stderr."""
        ended, alive = await pipe()
        out, stdout = await pipe() if stdout is None else (None, stdout)
        err, stderr = await pipe() if stderr is None else (None, stderr)
        asked = json.dumps({"arguments": arguments, "environment": environment})
        socket.send_fds(self._requests, [asked.encode()], [stdin, stdout, stderr, alive])
        pid = int(self._requests.recv(20))
        for writing in [alive, *([stdout] if out else []), *([stderr] if err else [])]:
            os.close(writing)
        return Fork(self, pid, out, err, ended)

    def exit_code(self, pid: int) -> int:
        self._requests.send(b"%d" % pid)
        return int(self._requests.recv(20))


@define
class Fork:
    """One of these, to be asked what an `asyncio.subprocess.Process` is asked."""

    forks: Forks
    pid: int
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None
    ended: asyncio.StreamReader
    returncode: int | None = None

    async def communicate(self) -> tuple[bytes, bytes]:
        assert self.stderr is not None
        err = await self.stderr.read()
        out = await self.stdout.read() if self.stdout else b""
        await self.wait()
        return out, err

    async def wait(self) -> int:
        if self.returncode is None:
            await self.ended.read()
            self.returncode = self.forks.exit_code(self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
