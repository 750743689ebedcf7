"""Callbacks over aiohttp.web: the body is read within limits, and the answer reveals little."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from kie_cover_async.cancel_scope import Timeout
from kie_cover_async.errors import InvalidResponseError, SignatureError

_log = logging.getLogger(__name__)

# Bytes. A genuine callback has some hundreds.
_MAX_BODY = 65_536
# Seconds. The vendor's own timeout is 15.
_BODY_TIMEOUT = 10.0
# Seconds in which a message is logged once.
_LOG_PERIOD = 30.0

Receive = Callable[[Any, bytes], object]


def callback_routes(path: str, receive: Receive) -> list[web.RouteDef]:
    """Return the one route to which callbacks are posted."""
    log = BoundedLog(_log)

    async def handle(request: web.Request) -> web.Response:
        status = await _status(request, receive, log)
        response = web.Response(status=status, text=status.phrase)
        if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            response.force_close()
        return response

    return [web.post(path, handle)]


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
    try:
        receive(request.headers, body)
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
