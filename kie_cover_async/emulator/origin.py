"""One listening socket, its connections numbered and ended at once when it closes."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from attrs import frozen

_HOST = "127.0.0.1"


@frozen
class Connection:
    number: int
    transport: asyncio.Transport
    peer: tuple[str, int]


Serve = Callable[[web.BaseRequest, Connection], Awaitable[web.StreamResponse]]


class Origin(web.Server):
    """Serves 127.0.0.1; `serve` is given each request with the connection it came over."""

    def __init__(self, serve: Serve, numbers: Iterator[int]) -> None:
        # Cancelled handlers are what ends a stall: when the client leaves, and in close().
        super().__init__(self._serve, handler_cancellation=True, access_log=None)
        self._answer = serve
        self._numbers = numbers
        self._open: dict[RequestHandler, Connection] = {}
        self._is_closed = False
        self._socket: socket.socket | None = None
        self._runner = web.ServerRunner(self)

    async def listen(self, port: int) -> int:
        """Returns the port, which is a free one where 0 was asked for."""
        self._socket = socket.create_server((_HOST, port), backlog=1024)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()
        return int(self._socket.getsockname()[1])

    async def close(self) -> None:
        self._is_closed = True
        if self._socket is not None:
            await self._accept_no_more(self._socket)
        for site in self._runner.sites:
            await site.stop()
        for connection in self._open.values():
            connection.transport.abort()
        await self._runner.cleanup()
        if self._socket is not None:
            # Nobody else does where starting was cancelled on the way.
            self._socket.close()

    async def _accept_no_more(self, listening: socket.socket) -> None:
        # asyncio loses a connection whose server is closed between accepting and making it, so
        # that no new one is let in, and the last one gets its turn.
        with suppress(NotImplementedError):  # on Windows, where this does not happen
            asyncio.get_running_loop().remove_reader(listening)
        await asyncio.sleep(0)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        self._open[handler] = Connection(next(self._numbers), transport, peer)
        super().connection_made(handler, transport)
        if self._is_closed:
            transport.abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        del self._open[handler]
        super().connection_lost(handler, exc)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._answer(request, self._open[request.protocol])
