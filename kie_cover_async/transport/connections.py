"""Connections that must not be used again: those of submits, and those that spoke unasked."""

import asyncio
from http.cookies import BaseCookie, SimpleCookie
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

# Covers take minutes and are polled every few seconds: a connection given up after aiohttp's
# usual 15 s would be made anew for nearly every poll.
_KEEP_ALIVE = 75.0


class Connections(aiohttp.TCPConnector):
    """Keeps connections for the next request, but none on which the server spoke unasked.

    What came between two requests would be read as the answer to the second one, and from then on
    every answer would be the one before.
    """

    def __init__(self) -> None:
        # The limit is ours: a request that queued in the pool would lose its time there.
        super().__init__(limit=0, keepalive_timeout=_KEEP_ALIVE)
        self._used: WeakSet[object] = WeakSet()

    async def connect(self, *request: Any, **more: Any) -> aiohttp.connector.Connection:
        """A kept connection or a new one; the arguments are between aiohttp and itself."""
        while True:
            connection = await super().connect(*request, **more)
            protocol: Any = connection.protocol
            # A new one is never turned down, or a server that greets would be asked for ever.
            if protocol not in self._used:
                self._used.add(protocol)
                return connection
            if not protocol.should_close:
                return connection
            connection.close()


class NoCookies(aiohttp.DummyCookieJar):
    """Keep no cookies, and build nothing to say so."""

    _none: BaseCookie[str] = SimpleCookie()

    def filter_cookies(self, request_url: URL) -> BaseCookie[str]:  # noqa: ARG002
        """Return no cookies."""
        return self._none


class SubmitBody(aiohttp.BytesPayload):
    """The body of a paid request, which keeps its connection from being used again.

    aiohttp puts a connection back into its pool as soon as the answer has been read, unless the
    answer says `Connection: close`; the request's own header does not matter to it. The body is the
    only part of a request that reaches the connection before that, in an external session too.

    `send_by` is a `loop.time()`: a body that comes to be written later is not sent. The caller may
    have given up by then, and the id that was paid for would be lost.
    """

    def __init__(self, body: bytes, *, send_by: float) -> None:
        super().__init__(body)
        self._send_by = send_by

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Write the body; aiohttp sends the headers with it and not before.

        Raises:
            ConnectionTimeoutError: It is too late; nothing was sent.
        """
        if asyncio.get_running_loop().time() > self._send_by:
            raise aiohttp.ConnectionTimeoutError("connected too late to send the request")
        stream: Any = writer  # a `StreamWriter`, of which the abstract class has no protocol
        stream.protocol.force_close()
        await super().write_with_length(writer, content_length)
