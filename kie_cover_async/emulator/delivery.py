"""Puts an answer on the wire, whole or broken off."""

import asyncio
import gzip
import socket
import struct
from contextlib import suppress
from typing import NoReturn

from aiohttp import HttpVersion11, web

from kie_cover_async.emulator.answers import Answer
from kie_cover_async.emulator.faults import Fault

_LINGER_NOT_AT_ALL = struct.pack("ii", 1, 0)


async def deliver(
    request: web.BaseRequest, transport: asyncio.Transport, answer: Answer, fault: Fault | None
) -> web.StreamResponse:
    """The response to return; for a reset or a stall it never comes, and the handler is cancelled
    when the connection is gone.
    """
    answer = _compressed(request, answer)
    if fault is None or fault.breaks is None:
        return _whole(request, answer)
    if fault.midway:
        await _write_half(request, answer)
    if fault.breaks == "reset":
        _reset(transport)
    return await _silence()


def _compressed(request: web.BaseRequest, answer: Answer) -> Answer:
    accepted = request.headers.get("Accept-Encoding", "")
    if not (answer.is_text and answer.body and "gzip" in accepted):
        return answer
    headers = {**answer.headers, "Content-Encoding": "gzip"}
    return Answer(gzip.compress(answer.body, 1, mtime=0), answer.status, headers)


def _whole(request: web.BaseRequest, answer: Answer) -> web.Response:
    response = web.Response(body=answer.body, status=answer.status, headers=answer.headers)
    if answer.is_text and request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    return response


async def _write_half(request: web.BaseRequest, answer: Answer) -> None:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = max(1, len(answer.body))
    # A client that has just left is no news: what was to be broken off is broken off.
    with suppress(ConnectionError):
        await response.prepare(request)
        await response.write(answer.body[: len(answer.body) // 2])


def _reset(transport: asyncio.Transport) -> None:
    """Ends the connection by a TCP reset, which is what closing without lingering sends."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT_AT_ALL)
    transport.abort()


async def _silence() -> NoReturn:
    """Nothing but cancellation ends it."""
    while True:
        await asyncio.get_running_loop().create_future()
