"""Callbacks over aiohttp.web: a body that is read with care, and an answer that says little."""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from kie_cover_async.cancel_scope import Timeout
from kie_cover_async.errors import InvalidResponseError, SignatureError

from .bounded_log import BoundedLog

_log = logging.getLogger(__name__)

# Bytes. A callback has some hundreds.
_LARGEST_BODY = 65_536
# The vendor's own patience is 15 seconds.
_PATIENCE = 10.0

Receive = Callable[[Any, bytes], object]


def callback_routes(path: str, receive: Receive) -> list[web.RouteDef]:
    """The one route on which callbacks are posted."""
    log = BoundedLog(_log)

    async def answer(request: web.Request) -> web.Response:
        status = await _status(request, receive, log)
        response = web.Response(status=status, text=status.phrase)
        if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            response.force_close()
        return response

    return [web.post(path, answer)]


async def _status(request: web.Request, receive: Receive, log: BoundedLog) -> HTTPStatus:
    try:
        with Timeout(asyncio.get_running_loop().time() + _PATIENCE):
            body = await _body(request)
    except TimeoutError:
        return HTTPStatus.REQUEST_TIMEOUT
    except (web.RequestPayloadError, ConnectionError):  # after the latter nobody hears of it
        return HTTPStatus.BAD_REQUEST
    if len(body) > _LARGEST_BODY:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return _received(request, body, receive, log)


async def _body(request: web.Request) -> bytes:
    """Return the body, unpacked, or as much of it as shows that it is too large."""
    if not request.can_read_body:
        # A middleware has read it, and aiohttp keeps what `read`, `text`, `json` and `post` read.
        return await request.read()
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _LARGEST_BODY:
            break
    return bytes(body)


def _received(request: web.Request, body: bytes, receive: Receive, log: BoundedLog) -> HTTPStatus:
    try:
        receive(request.headers, body)
    except InvalidResponseError as error:
        log.info("callback refused, it cannot be read at %s", error.path)
        return HTTPStatus.BAD_REQUEST
    except SignatureError as error:
        # Each reason is bounded by itself, so that none of them hides another.
        refusal = f"callback refused: callback signature {error.reason}; task %s"
        log.info(refusal, error.task_id)
        return HTTPStatus.UNAUTHORIZED
    return HTTPStatus.OK
