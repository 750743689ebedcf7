"""Connections that must not be used again: those of submits, and those with unrequested data."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from http.cookies import BaseCookie, SimpleCookie
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

OnSending = Callable[[], Awaitable[object]]

# As `socket.getaddrinfo` returns it; aiohttp's own type leaves the last part open.
Target = tuple[int, int, int, str, tuple[Any, ...]]

# Covers take minutes and are polled every few seconds: with aiohttp's usual 15 s, nearly every poll
# would need a new connection.
_KEEP_ALIVE = 75.0


class Connections(aiohttp.TCPConnector):
    """A pool that does not reuse a connection on which the server sent unrequested data.

    Bytes that arrive between two requests would be read as the answer to the second one, and every
    later answer would be that of the request before.
    """

    def __init__(self) -> None:
        # The limit is ours: a request that queued in the pool would lose its time there.
        super().__init__(
            limit=0, keepalive_timeout=_KEEP_ALIVE, socket_factory=self._count_and_make_socket
        )
        self._sockets_made = 0

    async def connect(self, *request: Any, **more: Any) -> aiohttp.connector.Connection:
        """Return a kept connection or a new one; the arguments are aiohttp's."""
        while True:
            # A kept connection comes without an await, in which other tasks could make sockets.
            made = self._sockets_made
            connection = await super().connect(*request, **more)
            protocol: Any = connection.protocol
            # A new one is never refused, or a server that greets would be asked forever.
            if self._sockets_made != made or not protocol.should_close:
                return connection
            connection.close()

    def _count_and_make_socket(self, target: Target) -> socket.socket:
        self._sockets_made += 1
        return socket.socket(*target[:3])


class NoCookies(aiohttp.DummyCookieJar):
    """Keep no cookies, with one empty answer for all requests."""

    _none: BaseCookie[str] = SimpleCookie()

    def filter_cookies(self, request_url: URL) -> BaseCookie[str]:  # noqa: ARG002
        """Return no cookies."""
        return self._none


class SubmitBody(aiohttp.BytesPayload):
    """The body of a paid request, which keeps its connection from being used again.

    aiohttp puts a connection back into its pool as soon as the answer has been read, unless the
    answer says `Connection: close`; the request's own header does not matter to it. The body is the
    only part of a request that reaches the connection before that, in an external session too.

    Args:
        body: The bytes to send.
        send_by: A `loop.time()`: a body that would be written later is not sent. The caller may
            have given up by then, and the id that was paid for would be lost.
        on_sending: Awaited before the first byte of the request; what it raises is kept as
            `refusal`, and nothing is sent.
    """

    def __init__(self, body: bytes, *, send_by: float, on_sending: OnSending | None) -> None:
        super().__init__(body)
        self._send_by = send_by
        self._on_sending = on_sending or send_immediately
        self.refusal: BaseException | None = None

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Write the body; aiohttp sends the headers with it and not before.

        Raises:
            ConnectionTimeoutError: It is too late; nothing was sent.
            ConnectionAbortedError: `on_sending` refused; nothing was sent.
        """
        self._check_time()
        try:
            await self._on_sending()
        except BaseException as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # aiohttp would wrap it. Our own frame has the headers in its locals, and with them the
            # key.
            frames = error.__traceback__
            self.refusal = error.with_traceback(frames and frames.tb_next)
            raise ConnectionAbortedError from None
        self._check_time()
        stream: Any = writer  # a `StreamWriter`, of which the abstract class has no protocol
        stream.protocol.force_close()
        await super().write_with_length(writer, content_length)

    def _check_time(self) -> None:
        if asyncio.get_running_loop().time() > self._send_by:
            raise aiohttp.ConnectionTimeoutError("connected too late to send the request")


async def send_immediately() -> None:
    """Do nothing before the first byte is sent."""
