"""The command as its users have it: a process of its own, with pipes or on a terminal."""

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
from support.forks import Fork, Forks

from kie_cover_async.emulator import CoverEmulator

KEY = "a-key-that-nobody-may-see"
_OURS = ("KIE_", "HTTP", "http", "NO_PROXY", "no_proxy", "NETRC", "FORCE_COLOR", "NO_COLOR")


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """That of the tests, without what would change the command's ways."""
    kept = {name: os.environ[name] for name in os.environ if not name.startswith(_OURS)}
    ours = {"KIE_API_KEY": KEY, "TERM": "xterm-256color", "PYTHONWARNINGS": "error"}
    return {**kept, **ours, **more}


@frozen
class Ended:
    """What is left of a command."""

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

    process: asyncio.subprocess.Process | Fork

    async def document(self) -> Any:
        """The next JSON line of stdout."""
        assert self.process.stdout is not None
        return json.loads(await self.process.stdout.readline())

    async def talk(self, ending: str = "\n") -> str:
        """What stderr says up to this ending, a line of it if none is given."""
        assert self.process.stderr is not None
        return (await self.process.stderr.readuntil(ending.encode())).decode()

    def hang_up(self) -> None:
        """Read no more of stdout."""
        self.process.stdout._transport.close()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    async def end(self) -> Ended:
        out, err = await self.process.communicate()
        return Ended(self.process.returncode or 0, (out or b"").decode(), err.decode())


@define
class OnTerminal:
    """A command on a terminal of 80 columns and 24 lines."""

    process: asyncio.subprocess.Process | Fork
    master: int
    shown: str = ""
    more: asyncio.Event = field(factory=asyncio.Event)

    def read(self) -> None:
        try:
            self.shown += os.read(self.master, 1 << 16).decode(errors="replace")
        except OSError:  # the other side has no more to say
            self.close()
        self.more.set()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)

    async def until(self, text: str) -> None:
        while text not in self.shown:
            self.more.clear()
            await self.more.wait()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    async def end(self) -> Ended:
        code = await self.process.wait()
        return Ended(code, self.shown, "")


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks(environment({})) as forks:
        yield forks


async def begun(
    forks: Forks, command: tuple[str, ...], *arguments: str, env: dict[str, str], **files: Any
) -> asyncio.subprocess.Process | Fork:
    """A process of the command if no other is given."""
    if not command:
        return await forks.start(*arguments, environment=environment(env), **files)
    pipes = dict.fromkeys(("stdout", "stderr"), asyncio.subprocess.PIPE)
    return await asyncio.create_subprocess_exec(
        *command, *arguments, env=environment(env), **{**pipes, **files}
    )


@asynccontextmanager
async def started(
    forks: Forks,
    *arguments: str,
    command: tuple[str, ...] = (),
    stdout: int | None = None,
    **env: str,
) -> AsyncIterator[Running]:
    """The command, or another one, with these arguments, and more of an environment."""
    files = {"stdout": stdout} if stdout is not None else {}
    nothing = os.open(os.devnull, os.O_RDONLY)
    env = {"COLUMNS": "1000", **env}
    process = await begun(forks, command, *arguments, env=env, stdin=nothing, **files)
    os.close(nothing)
    try:
        yield Running(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@asynccontextmanager
async def on_terminal(
    forks: Forks, *arguments: str, command: tuple[str, ...] = (), **env: str
) -> AsyncIterator[OnTerminal]:
    """The same on a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    files = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    process = await begun(forks, command, *arguments, env=env, **files)
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
def _started(forks: Forks) -> Callable[..., AbstractAsyncContextManager[Running]]:
    return partial(started, forks)


@pytest.fixture(name="on_terminal")
def _on_terminal(forks: Forks) -> Callable[..., AbstractAsyncContextManager[OnTerminal]]:
    return partial(on_terminal, forks)


Run = Callable[..., Awaitable[Ended]]


@pytest.fixture
def run(forks: Forks) -> Run:
    async def run(*arguments: str, **options: Any) -> Ended:
        async with started(forks, *arguments, **options) as command:
            return await command.end()

    return run


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
    """The key in the environment of the tests themselves, for commands that run in them."""
    monkeypatch.setenv("KIE_API_KEY", KEY)
    return KEY
