"""A server for callbacks, for as long as a command runs, and how it accepts connections."""

import asyncio
import logging
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import NoReturn, Self, cast

from aiohttp import web
from attrs import frozen
from yarl import URL

from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.callbacks.signature import is_key
from kie_cover_async.callbacks.song_urls import SongTokens
from kie_cover_async.callbacks.web import BoundedLog, Receive, callback_routes
from kie_cover_async.validation import is_http_url, short_repr

from .output import LOGGER_NAME, UsageError, say

CALLBACK_KEY_VARIABLE = "KIE_CALLBACK_KEY"
DEFAULT_PATH = "/kie/callback"

# Seconds for responses that are being written when Ctrl-C comes.
_SHUTDOWN_TIMEOUT = 0.5
# Connections that wait to be accepted, and open ones, if the system allows as many.
_BACKLOG, _MAX_CONNECTIONS = 500, 1000
# Seconds between two checks, and the number of checks before idle connections are closed.
_CHECK_INTERVAL, _CHECKS = 0.01, 25
# Seconds. A body that does not arrive is answered after ten.
_IDLE_PERIOD = 15.0

_ADDRESS = re.compile(r"(?P<host>[^\s/:@]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})(?P<path>/.*)?")
_HOST = re.compile(r"[^@/?#\[\]]+")
_PATH = re.compile(r"/[^\s{}?#%]*")
_EXAMPLE = f"127.0.0.1:8080{DEFAULT_PATH}"
_MAX_PORT = 65535

_log = logging.getLogger(__name__)


def callback_keys() -> list[str]:
    """Return the keys in the environment that sign callbacks; two while one replaces another.

    Raises `UsageError` for a key that cannot sign.
    """
    given = os.environ.get(CALLBACK_KEY_VARIABLE, "").split(",")
    keys = [key for key in map(str.strip, given) if key]
    if not all(map(is_key, keys)):
        raise UsageError(f"{CALLBACK_KEY_VARIABLE} must be printable UTF-8 (it is not shown here)")
    return keys


@frozen
class Address:
    """Where callbacks are received."""

    host: str
    port: int
    path: str = DEFAULT_PATH

    @classmethod
    def parse(cls, option: str, text: str) -> Self:
        """Parse `HOST:PORT` or `HOST:PORT/path`; raises `UsageError` for anything else."""
        found = _ADDRESS.fullmatch(text)
        path = DEFAULT_PATH if found is None else found["path"] or DEFAULT_PATH
        host, port = ("", 0) if found is None else (found["host"].strip("[]"), int(found["port"]))
        if not is_callback_host(host) or port > _MAX_PORT or not is_callback_path(path):
            raise UsageError(
                f"{option} must be an address such as {_EXAMPLE}, not {short_repr(text)}"
            )
        return cls(host, port, path)

    def url(self, port: int) -> URL:
        """Return the callback URL for a client on this machine."""
        return URL.build(scheme="http", host=self.host, port=port, path=self.path)


def is_callback_host(host: str) -> bool:
    """Return whether a callback URL can have this host."""
    written = f"[{host}]" if ":" in host else host
    return _HOST.fullmatch(host) is not None and is_http_url(f"http://{written}/")


def is_callback_path(path: str) -> bool:
    """Return whether a callback URL can have this path, in which nothing is encoded yet."""
    if not _PATH.fullmatch(path):
        return False
    # A URL drops dots that stand for folders, and what UTF-8 cannot encode.
    return URL.build(scheme="http", host="h", path=path).path == path


@asynccontextmanager
async def callback_inbox(
    address: Address | None, song_urls: SongTokens | None = None
) -> AsyncIterator[CallbackInbox | None]:
    """Open an inbox for callbacks to this address, or none; `song_urls` as in `callback_server`.

    Raises `UsageError` if the address cannot be bound, or for a key that cannot sign.
    """
    if address is None:
        yield None
        return
    keys = callback_keys()
    inbox = CallbackInbox(keys or None)
    receive, is_signed = inbox.receive_and_store, bool(keys)
    server = callback_server(receive, address, is_signed=is_signed, song_urls=song_urls)
    async with server:
        yield inbox


@asynccontextmanager
async def callback_server(
    receive: Receive,
    address: Address,
    *,
    is_signed: bool,
    until: str = "",
    song_urls: SongTokens | None = None,
) -> AsyncIterator[URL]:
    """Pass callbacks on to *receive*; say and yield the callback URL.

    With `song_urls`, callbacks to each song's own URL are also passed on, with the song.

    Raises `UsageError` if the address cannot be bound.
    """
    app = web.Application()
    app.add_routes(callback_routes(address.path, receive, song_urls))
    app.on_response_prepare.append(_close_connection)
    # An unreadable request costs one line on stderr, not a traceback.
    log = BoundedLog(logging.getLogger(LOGGER_NAME))
    runner = web.AppRunner(app, access_log=None, logger=log, shutdown_timeout=_SHUTDOWN_TIMEOUT)
    await runner.setup()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        accepting = _accepting(cast("web.Server", runner.server), address.host, address.port)
        try:
            port = await stack.enter_async_context(accepting)
        except OSError as error:
            place = f"{address.host}, port {address.port}"
            # asyncio puts the address in front, again.
            reason = str(error.strerror).rpartition(": ")[2]
            raise UsageError(f"cannot listen on {place}: {reason}") from None
        url = address.url(port)
        say(f"Callbacks are received at {url}{until}.")
        if not is_signed:
            say(f"Anyone can send them: {CALLBACK_KEY_VARIABLE} has no key.")
        yield url


async def _close_connection(_: web.Request, response: web.StreamResponse) -> None:
    """Close the connection after the response, so that only unfinished ones stay open."""
    response.headers["Connection"] = "close"
    response.force_close()


@asynccontextmanager
async def _accepting(server: web.Server, host: str, port: int) -> AsyncIterator[int]:
    """Accept connections for *server* while the block runs; yield the port.

    Raises `OSError` if the address cannot be bound.
    """
    # asyncio's own servers accept a whole backlog at a time, however few descriptors are left.
    bound = await asyncio.get_running_loop().create_server(
        asyncio.Protocol, host, port, start_serving=False
    )
    with ExitStack() as stack:
        sockets = [stack.enter_context(each.dup()) for each in bound.sockets]
        bound.close()
        for each in sockets:
            each.listen(_BACKLOG)
        log = BoundedLog(_log)
        work = [_close_idle(server), *(_accept(each, server, log) for each in sockets)]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            yield sockets[0].getsockname()[1]
        finally:
            # asyncio loses a connection that it accepts while the task is being cancelled. So stop
            # accepting first, and give accepted connections one turn of the loop.
            _stop_accepting(sockets)
            await asyncio.sleep(0)
            _stop_accepting(sockets)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def _stop_accepting(sockets: list[socket.socket]) -> None:
    with suppress(NotImplementedError):  # on Windows, where this does not happen
        for each in sockets:
            asyncio.get_running_loop().remove_reader(each)


async def _accept(listening: socket.socket, server: web.Server, log: BoundedLog) -> NoReturn:
    loop, limit = asyncio.get_running_loop(), _connection_limit()
    while True:
        try:
            connection, _ = await loop.sock_accept(listening)
            await loop.connect_accepted_socket(server, connection)
        except OSError as error:
            log.warning("no connection can be accepted: %s", error.strerror)
            await asyncio.sleep(_CHECK_INTERVAL)
        await _make_room(server, limit, log)


async def _make_room(server: web.Server, limit: int, log: BoundedLog) -> None:
    """Wait until at most *limit* connections are open; if that takes too long, close them."""
    connections = server.connections
    for _ in range(_CHECKS):
        if len(server.connections) <= limit:
            return
        await asyncio.sleep(_CHECK_INTERVAL)
    _close(connections)
    log.warning("closed %d idle connections: no more than %d may be open", len(connections), limit)


async def _close_idle(server: web.Server) -> NoReturn:
    """Close each connection that is open at the beginning and at the end of a period."""
    while True:
        connections = server.connections
        await asyncio.sleep(_IDLE_PERIOD)
        _close(connections)


def _close(connections: list[web.RequestHandler]) -> None:
    for connection in connections:
        connection.force_close()


def _connection_limit() -> int:
    """Return half the limit of file descriptors, and 1,000 at most."""
    descriptors = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    return min(descriptors // 2, _MAX_CONNECTIONS) if descriptors > 0 else _MAX_CONNECTIONS
