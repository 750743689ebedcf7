"""The command as users run it: a process of its own, with pipes or on a terminal."""

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from attrs import define, field, frozen
from support.forks import ForkedProcess, ForkServer

from kie_cover_async.emulator import CoverEmulator

KEY = "a-key-that-must-stay-secret"
_OURS = ("KIE_", "HTTP", "http", "NO_PROXY", "no_proxy", "NETRC", "FORCE_COLOR", "NO_COLOR")

Process = asyncio.subprocess.Process | ForkedProcess


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return that of the tests, without what would change how the command works."""
    kept = {name: os.environ[name] for name in os.environ if not name.startswith(_OURS)}
    # The fixture `route` sets it.
    kept["KIE_ROUTE"] = os.environ.get("KIE_ROUTE", "")
    ours = {"KIE_API_KEY": KEY, "TERM": "xterm-256color", "PYTHONWARNINGS": "error"}
    return {**kept, **ours, **more}


@frozen
class Ended:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def usage_error(self) -> str:
        """The only message that typer has framed."""
        [message] = re.findall(r"^│ (.*?) *│$", self.err, re.MULTILINE)
        return message


@define
class Running:
    """A command with its stdout and stderr in pipes."""

    process: Process

    async def document(self) -> Any:
        """Return the next JSON line of stdout."""
        assert self.process.stdout is not None
        return json.loads(await self.process.stdout.readline())

    async def message(self, ending: str = "\n") -> str:
        """Return what is on stderr up to this ending."""
        assert self.process.stderr is not None
        return (await self.process.stderr.readuntil(ending.encode())).decode()

    def close_stdout(self) -> None:
        """Close the reading end of stdout."""
        self.process.stdout._transport.close()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    async def end(self) -> Ended:
        out, err = await self.process.communicate()
        return Ended(self.process.returncode or 0, (out or b"").decode(), (err or b"").decode())


@define
class OnTerminal:
    """A command on a terminal of 80 columns and 24 lines."""

    process: Process
    master: int
    shown: str = ""
    is_closed: bool = False
    more: asyncio.Event = field(factory=asyncio.Event)

    def read(self) -> None:
        try:
            self.shown += os.read(self.master, 1 << 16).decode(errors="replace")
        except OSError:  # the command has closed its side
            self.close()
        self.more.set()

    def close(self) -> None:
        self.is_closed = True
        asyncio.get_running_loop().remove_reader(self.master)

    async def wait_for(self, text: str) -> None:
        """Wait until the text has been shown; fail if the command ends without it."""
        while text not in self.shown:
            assert not self.is_closed, self.shown
            self.more.clear()
            await self.more.wait()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    async def end(self) -> Ended:
        code = await self.process.wait()
        return Ended(code, self.shown, "")


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    with ForkServer(environment({})) as forks:
        yield forks


async def begin(
    forks: ForkServer,
    command: tuple[str, ...],
    *arguments: str,
    env: dict[str, str],
    before: str = "",
    **files: Any,
) -> Process:
    """Start the command by a fork, or another command as a new process."""
    if not command:
        return await forks.start(*arguments, environment=environment(env), before=before, **files)
    pipes = dict.fromkeys(("stdout", "stderr"), asyncio.subprocess.PIPE)
    return await asyncio.create_subprocess_exec(
        *command, *arguments, env=environment(env), **{**pipes, **files}
    )


@asynccontextmanager
async def started(
    forks: ForkServer,
    *arguments: str,
    command: tuple[str, ...] = (),
    stdin: int | None = None,
    before: str = "",
    stdout: int | None = None,
    **env: str,
) -> AsyncIterator[Running]:
    """Start the command, or another one, with these arguments and additions to its environment.

    In a forked process, the code `before` is executed first.
    """
    nothing = os.open(os.devnull, os.O_RDONLY)
    files = {"stdin": nothing if stdin is None else stdin}
    files |= {"stdout": stdout} if stdout is not None else {}
    # A message of typer's has a line of its own, however long it is.
    env = {"COLUMNS": "1000", **env}
    process = await begin(forks, command, *arguments, env=env, before=before, **files)
    os.close(nothing)
    try:
        yield Running(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@asynccontextmanager
async def on_terminal(
    forks: ForkServer,
    *arguments: str,
    command: tuple[str, ...] = (),
    before: str = "",
    stdout: int | None = None,
    **env: str,
) -> AsyncIterator[OnTerminal]:
    """Do the same on a terminal; stdout may be another file."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    files = {"stdin": slave, "stdout": slave if stdout is None else stdout, "stderr": slave}
    process = await begin(forks, command, *arguments, env=env, before=before, **files)
    os.close(slave)
    terminal = OnTerminal(process, master)
    asyncio.get_running_loop().add_reader(master, terminal.read)
    try:
        yield terminal
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        terminal.close()
        os.close(master)


@pytest.fixture(name="started")
def _started(forks: ForkServer) -> Callable[..., AbstractAsyncContextManager[Running]]:
    return partial(started, forks)


@pytest.fixture(name="on_terminal")
def _on_terminal(forks: ForkServer) -> Callable[..., AbstractAsyncContextManager[OnTerminal]]:
    return partial(on_terminal, forks)


Run = Callable[..., Awaitable[Ended]]


@pytest.fixture
def run(forks: ForkServer) -> Run:
    async def run(*arguments: str, **options: Any) -> Ended:
        async with started(forks, *arguments, **options) as command:
            return await command.end()

    return run


@pytest.fixture
def piped() -> Iterator[Callable[[str], int]]:
    """Return the reading end of a pipe with this text, for stdin."""
    ends = []

    def piped(text: str) -> int:
        reading, writing = os.pipe()
        ends.append(reading)
        with os.fdopen(writing, "w") as file:
            file.write(text)
        return reading

    yield piped
    for end in ends:
        os.close(end)


Start = Callable[..., Awaitable[CoverEmulator]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> CoverEmulator:
            return await stack.enter_async_context(CoverEmulator(**settings))

        yield start


@pytest.fixture
async def emulator(start: Start) -> CoverEmulator:
    return await start()


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the key in the environment of the tests, for commands that run in their process."""
    monkeypatch.setenv("KIE_API_KEY", KEY)
    return KEY
