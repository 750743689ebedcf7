"""A server for callbacks, for as long as a command wants them."""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self, cast

from aiohttp import web
from attrs import frozen
from yarl import URL

from kie_cover_async.callbacks.web import BoundedLog, Receive, callback_routes
from kie_cover_async.validation import is_http_url, short_repr

from .accepting import accepting
from .output import LOGGED, Refused

# Seconds for answers that are being written when Ctrl-C comes.
_LAST_WORDS = 0.5
_ADDRESS = re.compile(r"(?P<host>[^\s/:@]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})(?P<path>/.*)?")
_HOST = re.compile(r"[^@/?#\[\]]+")
_PATH = re.compile(r"/[^\s{}?#%]*")
_USUAL_PATH = "/kie/callback"
_EXAMPLE = f"127.0.0.1:8080{_USUAL_PATH}"
_LAST_PORT = 65535


@frozen
class Address:
    """Where callbacks are heard."""

    host: str
    port: int
    path: str = _USUAL_PATH

    @classmethod
    def read(cls, option: str, text: str) -> Self:
        """`HOST:PORT` or `HOST:PORT/path`; raises `Refused` for anything else."""
        found = _ADDRESS.fullmatch(text)
        path = _USUAL_PATH if found is None else found["path"] or _USUAL_PATH
        host, port = ("", 0) if found is None else (found["host"].strip("[]"), int(found["port"]))
        if not is_a_host(host) or port > _LAST_PORT or not is_a_path(path):
            raise Refused(f"{option} must be such as {_EXAMPLE}, not {short_repr(text)}")
        return cls(host, port, path)


def is_a_host(host: str) -> bool:
    """Whether it can be the host of a callback URL."""
    written = f"[{host}]" if ":" in host else host
    return _HOST.fullmatch(host) is not None and is_http_url(f"http://{written}/")


def is_a_path(path: str) -> bool:
    """Whether it can be the whole of a path in a callback URL, with nothing encoded yet."""
    if not _PATH.fullmatch(path):
        return False
    # Dots that stand for folders, and what no UTF-8 is made of, are gone from a URL.
    return URL.build(scheme="http", host="h", path=path).path == path


async def _close_connection(_: web.Request, response: web.StreamResponse) -> None:
    """Have the connection closed after the answer, so that only unfinished ones stay open."""
    response.headers["Connection"] = "close"
    response.force_close()


@asynccontextmanager
async def serving(receive: Receive, address: Address) -> AsyncIterator[URL]:
    """Pass callbacks on to `receive`; gives the callback URL, and raises `Refused` for no such."""
    app = web.Application()
    app.add_routes(callback_routes(address.path, receive))
    app.on_response_prepare.append(_close_connection)
    # A request that cannot be read is one line of talk, and not a traceback for whoever sends it.
    log = BoundedLog(logging.getLogger(LOGGED))
    runner = web.AppRunner(app, access_log=None, logger=log, shutdown_timeout=_LAST_WORDS)
    await runner.setup()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        server = cast("web.Server", runner.server)
        try:
            listening = accepting(server, address.host, address.port)
            port = await stack.enter_async_context(listening)
        except OSError as error:
            where = f"{address.host}, port {address.port}"
            raise Refused(f"cannot listen on {where}: {error.strerror}") from None
        yield URL.build(scheme="http", host=address.host, port=port, path=address.path)
