"""Callbacks over aiohttp.web: the body is read within limits, and the answer reveals little."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from inspect import isawaitable
from typing import Any

from aiohttp import web

from kie_cover_async.cancel_scope import Timeout
from kie_cover_async.errors import InvalidResponseError, SignatureError

from .song_urls import SongTokens

_log = logging.getLogger(__name__)

# Bytes. A genuine callback has some hundreds.
_MAX_BODY = 65_536
# Seconds. The vendor's own timeout is 15.
_BODY_TIMEOUT = 10.0
# Seconds in which a message is logged once.
_LOG_PERIOD = 30.0

# Called with the headers and the body, and with the song if there are `song_urls`; plain or async.
Receive = Callable[..., object]


def callback_routes(
    path: str, receive: Receive, song_urls: SongTokens | None = None
) -> list[web.RouteDef]:
    """Return the route to which callbacks are posted, and that of the songs' own URLs.

    Args:
        path: The path; that of a song's URL has the song's token as one more part.
        receive: Called with the headers, the body, and at a song's own URL with the song. It may be
            async; an `OSError` of it is answered with 503.
        song_urls: Knows the tokens; `None` is for a route without them.
    """
    log = BoundedLog(_log)

    async def handle(request: web.Request) -> web.Response:
        return _response(await _status(request, receive, log))

    routes = [web.post(path, handle)]
    if song_urls is not None:
        handle_song = partial(_answer_song, receive, song_urls, log)
        routes.append(web.post(f"{path.rstrip('/')}/{{token}}", handle_song))
    return routes


async def _answer_song(
    receive: Receive, song_urls: SongTokens, log: "BoundedLog", request: web.Request
) -> web.Response:
    song = song_urls.song_of(request.match_info["token"])
    if song is None:
        log.info("callback refused: the token at the end of its URL is wrong")
        return _response(HTTPStatus.NOT_FOUND)

    def receive_song(headers: object, body: bytes) -> object:
        return receive(headers, body, song)

    return _response(await _status(request, receive_song, log))


def _response(status: HTTPStatus) -> web.Response:
    response = web.Response(status=status, text=status.phrase)
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        response.force_close()
    return response


async def _status(request: web.Request, receive: Receive, log: "BoundedLog") -> HTTPStatus:
    body = None
    try:
        with Timeout(asyncio.get_running_loop().time() + _BODY_TIMEOUT):
            body = await _read_body(request)
    except (web.RequestPayloadError, ConnectionError):  # the latter: no client gets the answer
        return HTTPStatus.BAD_REQUEST
    if body is None:
        return HTTPStatus.REQUEST_TIMEOUT
    if len(body) > _MAX_BODY:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return await _receive(request, body, receive, log)


async def _receive(
    request: web.Request, body: bytes, receive: Receive, log: "BoundedLog"
) -> HTTPStatus:
    try:
        received = receive(request.headers, body)
        if isawaitable(received):
            await received
    except OSError as error:
        log.warning("callback refused, it cannot be stored: %s", error)
        return HTTPStatus.SERVICE_UNAVAILABLE
    except InvalidResponseError as error:
        log.info("callback refused, it cannot be read at %s", error.path)
        return HTTPStatus.BAD_REQUEST
    except SignatureError as error:
        # Each reason is bounded separately, so that none of them hides another.
        message = f"callback refused: callback signature {error.reason}; task %s"
        log.info(message, error.task_id)
        return HTTPStatus.UNAUTHORIZED
    return HTTPStatus.OK


async def _read_body(request: web.Request) -> bytes:
    """Return the body, decompressed, or as much of it as shows that it is too large."""
    if not request.can_read_body:
        # A middleware has read it; aiohttp keeps the results of `read`, `text`, `json` and `post`.
        return await request.read()
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _MAX_BODY:
            break
    return bytes(body)


class BoundedLog(logging.LoggerAdapter[logging.Logger]):
    """Logs a message once in 30 seconds, then the number of its repetitions in that time.

    Messages are compared before their arguments are merged, so a flood of requests cannot fill the
    log. Use it in an event loop.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger)
        self._repeated: Counter[object] = Counter()

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log the message, or count it if it was logged in the last 30 seconds."""
        if not self.isEnabledFor(level):
            return
        if msg in self._repeated:
            self._repeated[msg] += 1
            return
        self.logger.log(level, msg, *args, **kwargs)
        self._start_period(level, msg, args)

    def _start_period(self, level: int, msg: object, args: tuple[object, ...]) -> None:
        self._repeated[msg] = 0
        loop = asyncio.get_running_loop()
        loop.call_later(_LOG_PERIOD, self._end_period, level, msg, args)

    def _end_period(self, level: int, msg: object, args: tuple[object, ...]) -> None:
        count = self._repeated.pop(msg)
        if count:
            summary = f"{msg} (and {count:,} more in {_LOG_PERIOD:g} s)"
            self.logger.log(level, summary, *args)
            self._start_period(level, msg, args)
