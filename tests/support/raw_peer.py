"""A TCP peer that sends scripted bytes, whether they are valid HTTP or not."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from ssl import SSLContext
from typing import Self

from attrs import define, field, frozen

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@define(eq=False)
class Connection:
    """One client's connection, and the steps that are taken on it."""

    peer: "RawPeer"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def take(self, step: "Step") -> None:
        if isinstance(step, bytes):
            await self.send(step)
        elif isinstance(step, (int, float)):
            await asyncio.sleep(step)
        else:
            await step(self)

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        self.peer.bytes_sent += len(content)
        await self.writer.drain()


# Bytes are sent, a number is a pause in seconds, anything else is done with the connection.
Step = bytes | float | Callable[[Connection], Awaitable[object]]


async def REQUEST(connection: Connection) -> None:  # noqa: N802 - it is listed with bytes
    """Read one request, its body too."""
    head = await connection.reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    body = await connection.reader.readexactly(int(length[1])) if length else b""
    connection.peer.requests.append(head + body)


async def RESET(connection: Connection) -> None:  # noqa: N802 - likewise
    """End the connection with a TCP reset."""
    connection.writer.transport.abort()


async def SILENCE(connection: Connection) -> None:  # noqa: N802 - likewise
    """Send nothing until the client closes the connection."""
    await connection.reader.read()


@frozen
class Repeat:
    """Send these bytes again and again, as long as the connection is open."""

    content: bytes
    pause: float = 0.0

    async def __call__(self, connection: Connection) -> None:
        while True:
            await connection.send(self.content)
            await asyncio.sleep(self.pause)


def drop_by_drop(content: bytes, size: int = 1) -> list[Step]:
    """Return steps that send `size` bytes of the text each second."""
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return [step for piece in pieces for step in (1.0, piece)]


@define(eq=False)
class RawPeer:
    """A peer that follows a script on each connection, and then closes it.

    The last script is for all later connections. If the client closes a connection, its script
    ends.
    """

    scripts: list[list[Step]]
    tls: SSLContext | None = None
    requests: list[bytes] = field(factory=list)
    connections: int = 0
    open_connections: int = 0
    bytes_sent: int = 0
    url: str = ""
    _server: asyncio.Server | None = None
    _serving: set[asyncio.Task[None]] = field(factory=set)

    @classmethod
    def of(cls, *scripts: Iterable[Step]) -> Self:
        return cls([list(script) for script in scripts])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        scheme = "http" if self.tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # In a task of its own: `start_server` logs an error if its own task is cancelled.
        serving = asyncio.create_task(self._follow(Connection(self, reader, writer)))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _follow(self, connection: Connection) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        self.open_connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                for step in script:
                    await connection.take(step)
        finally:
            connection.writer.close()
            self.open_connections -= 1
