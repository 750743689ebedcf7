"""Accept connections for a server, and close those that are idle."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import NoReturn

from aiohttp import web

from kie_cover_async.callbacks.web import BoundedLog

_log = logging.getLogger(__name__)

# Connections that wait to be accepted, and those that are open, if the system allows as many.
_BACKLOG, _MOST_CONNECTIONS = 500, 1000
# Seconds between two tries, and how many there are before idle connections are closed.
_PAUSE, _TRIES = 0.01, 25
# Seconds. A body that does not come is answered after ten.
_IDLE_PERIOD = 15.0


@asynccontextmanager
async def accepting(server: web.Server, host: str, port: int) -> AsyncIterator[int]:
    """Accept connections for `server` while the block runs; yield the port.

    Raises `OSError` if the address cannot be bound.
    """
    # asyncio's own servers accept a whole backlog at a time, however few descriptors are left.
    bound = await asyncio.get_running_loop().create_server(
        asyncio.Protocol, host, port, start_serving=False
    )
    with ExitStack() as sockets:
        listening = [sockets.enter_context(each.dup()) for each in bound.sockets]
        bound.close()
        for each in listening:
            each.listen(_BACKLOG)
        log = BoundedLog(_log)
        work = [_close_idle(server), *(_accept(each, server, log) for each in listening)]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            yield listening[0].getsockname()[1]
        finally:
            # asyncio loses a connection that it accepts while the task is being cancelled, so that
            # no more are accepted first, and those that are have one turn of the loop.
            _stop_accepting(listening)
            await asyncio.sleep(0)
            _stop_accepting(listening)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def _stop_accepting(listening: list[socket.socket]) -> None:
    with suppress(NotImplementedError):  # on Windows, where this does not happen
        for each in listening:
            asyncio.get_running_loop().remove_reader(each)


async def _accept(listening: socket.socket, server: web.Server, log: BoundedLog) -> NoReturn:
    loop, most = asyncio.get_running_loop(), _most_connections()
    while True:
        try:
            connection, _ = await loop.sock_accept(listening)
            await loop.connect_accepted_socket(server, connection)
        except OSError as error:
            log.warning("no connection can be accepted: %s", error.strerror)
            await asyncio.sleep(_PAUSE)
        await _make_room(server, most, log)


async def _make_room(server: web.Server, most: int, log: BoundedLog) -> None:
    """Wait until no more than `most` connections are open; if that takes too long, close them."""
    connections = server.connections
    for _ in range(_TRIES):
        if len(server.connections) <= most:
            return
        await asyncio.sleep(_PAUSE)
    _close(connections)
    log.warning("closed %d idle connections: no more than %d may be open", len(connections), most)


async def _close_idle(server: web.Server) -> NoReturn:
    """Close each connection that is open at the beginning and at the end of a period."""
    while True:
        connections = server.connections
        await asyncio.sleep(_IDLE_PERIOD)
        _close(connections)


def _close(connections: list[web.RequestHandler]) -> None:
    for connection in connections:
        connection.force_close()


def _most_connections() -> int:
    """Return half the limit of file descriptors, and 1,000 at most."""
    descriptors = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    return min(descriptors // 2, _MOST_CONNECTIONS) if descriptors > 0 else _MOST_CONNECTIONS
