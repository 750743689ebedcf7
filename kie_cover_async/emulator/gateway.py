"""The HTTP side, as Cloudflare is for the API: reads requests, applies faults, sends answers."""

import asyncio
import gzip
import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from email.utils import formatdate
from random import Random
from typing import Any, NamedTuple

from aiohttp import HttpVersion11, web
from aiohttp.web_protocol import RequestHandler
from attrs import define, evolve, field, frozen

from . import market, suno, values
from .faults import Answer, Fault, FaultPlan
from .images import png
from .jobs import Instant
from .service import UNKNOWN, Call, Endpoint, Service
from .values import Duration, draw

ENDPOINTS = suno.ENDPOINTS | market.ENDPOINTS

Request = web.BaseRequest
Response = web.StreamResponse

_HOST = "127.0.0.1"
_JSON_TYPE = "application/json;charset=UTF-8"
_NO_LINGER = struct.pack("ii", 1, 0)


@frozen
class Connection:
    number: int
    transport: asyncio.Transport
    peer: tuple[str, int]


class _Incoming(NamedTuple):
    request: Request
    connection: Connection
    now: Instant
    body: bytes


@frozen(kw_only=True)
class ReceivedRequest:
    """One request as it arrived.

    `endpoint` is one of `CoverEmulator.ENDPOINTS`, or empty for a path that the API does not have;
    `task_id` is the job's id, or the song's on a submit. `received` is in `loop.time()`, `peer`
    the client's address and port. Requests with the same `connection` arrived over the same one.
    `fault` is the fault of the answer, by a rule or by the job's script.
    """

    endpoint: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    task_id: str | None
    received: float
    connection: int
    peer: tuple[str, int]
    fault: Fault | None


@define
class Gateway:
    service: Service
    seed: int | str
    latency: Duration = field(validator=values.duration)
    clock_offset: float = field(validator=values.offset)
    image_size: int = field(validator=values.count)
    keep_requests: bool = field(validator=values.boolean)
    faults: FaultPlan = field(init=False)
    rng: Random = field(init=False)
    requests: list[ReceivedRequest] = field(factory=list, init=False)
    polls: Counter[str | None] = field(factory=Counter, init=False)

    def __attrs_post_init__(self) -> None:
        self.faults = FaultPlan(Random(f"{self.seed}/faults"))
        self.rng = Random(f"{self.seed}/answers")

    def now(self) -> Instant:
        loop_time = asyncio.get_running_loop().time()
        # A test's loop may be ahead of the machine's clock.
        ahead = loop_time - time.monotonic()
        return Instant(loop_time, time.time() + ahead + self.clock_offset)

    async def serve_api(self, request: Request, connection: Connection) -> Response:
        incoming = _Incoming(request, connection, self.now(), await request.read())
        endpoint = ENDPOINTS.get((request.method, request.path), UNKNOWN)
        call = _parse_call(endpoint, request, incoming.body)
        fault = self.faults.choose(endpoint.name, call.task_id, endpoint.kind)
        answer = self.service.answer(endpoint, call, fault, incoming.now)
        if endpoint.kind == "poll":
            self.polls[call.task_id] += 1
        fault = fault or answer.fault
        self._record(incoming, endpoint.name, call.task_id, fault)
        return await self._respond(incoming, answer, fault)

    async def serve_image(self, request: Request, connection: Connection) -> Response:
        incoming = _Incoming(request, connection, self.now(), await request.read())
        task_id = self.service.images.get(request.path)
        fault = self.faults.choose("image", task_id)
        self._record(incoming, "image", task_id, fault)
        status = 403 if "Authorization" in request.headers else 404 if task_id is None else 200
        image = png(request.path, self.image_size) if status == 200 else b""
        content_type = "image/png" if image else "text/plain"
        answer = Answer(image, status, {"Content-Type": content_type}, is_text=False)
        return await self._respond(incoming, answer, fault)

    def _record(
        self, incoming: _Incoming, endpoint: str, task_id: str | None, fault: Fault | None
    ) -> None:
        if not self.keep_requests:
            return
        request = incoming.request
        received = ReceivedRequest(
            endpoint=endpoint,
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=incoming.body,
            task_id=task_id,
            received=incoming.now.loop,
            connection=incoming.connection.number,
            peer=incoming.connection.peer,
            fault=fault,
        )
        self.requests.append(received)

    async def _respond(self, incoming: _Incoming, answer: Answer, fault: Fault | None) -> Response:
        delay = draw(self.latency, self.rng) + (fault.delay if fault else 0.0)
        if delay > 0:
            await asyncio.sleep(delay)
        wall_time = self.now().wall
        if fault is not None:
            answer = fault.apply_to(answer, wall_time)
        headers = self._headers(incoming.request, answer, wall_time)
        answer = _compress(incoming.request, evolve(answer, headers=headers))
        return await _send(incoming.request, incoming.connection.transport, answer, fault)

    def _headers(self, request: Request, answer: Answer, wall_time: float) -> dict[str, str]:
        headers = {
            "Date": formatdate(wall_time, usegmt=True),
            "Content-Type": _JSON_TYPE,
            "Server": "cloudflare",
            "Cf-Ray": f"{self.rng.getrandbits(64):016x}-FRA",
        }
        if answer.is_text and "JSESSIONID" not in request.headers.get("Cookie", ""):
            session = f"{self.rng.getrandbits(128):032X}"
            headers["Set-Cookie"] = f"JSESSIONID={session}; Path=/; HttpOnly"
        return {**headers, **answer.headers}


def _parse_call(endpoint: Endpoint, request: Request, body: bytes) -> Call:
    authorization = request.headers.get("Authorization", "")
    if request.method == "GET":
        return Call(authorization, request.query.get("taskId"))
    fields = task_id = _json_object(body)
    for name in endpoint.id_path:
        task_id = task_id.get(name) if isinstance(task_id, dict) else None
    return Call(authorization, task_id if isinstance(task_id, str) else None, fields)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _compress(request: Request, answer: Answer) -> Answer:
    accepted = request.headers.get("Accept-Encoding", "")
    if not (answer.is_text and answer.body and "gzip" in accepted):
        return answer
    headers = {**answer.headers, "Content-Encoding": "gzip"}
    return evolve(answer, body=gzip.compress(answer.body, 1, mtime=0), headers=headers)


async def _send(
    request: Request, transport: asyncio.Transport, answer: Answer, fault: Fault | None
) -> Response:
    """Return the response; for a reset or a stall, break off and wait to be cancelled.

    The handler is cancelled when its connection is lost.
    """
    if fault is None or fault.connection is None:
        response = web.Response(body=answer.body, status=answer.status, headers=answer.headers)
        if answer.is_text and request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        return response
    if fault.midway:
        await _write_half(request, answer)
    if fault.connection == "reset":
        _reset(transport)
    while True:
        await asyncio.get_running_loop().create_future()


async def _write_half(request: Request, answer: Answer) -> None:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = max(1, len(answer.body))
    with suppress(ConnectionError):  # the client has left already
        await response.prepare(request)
        await response.write(answer.body[: len(answer.body) // 2])


def _reset(transport: asyncio.Transport) -> None:
    """Close the connection without lingering, which sends a TCP reset."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


Serve = Callable[[Request, Connection], Awaitable[Response]]


class Origin(web.Server):
    """One listening socket on 127.0.0.1; `serve` gets each request with its connection."""

    def __init__(self, serve: Serve, numbers: Iterator[int]) -> None:
        # Cancelling handlers ends a stall: when the client leaves, and in close().
        super().__init__(self._handle, handler_cancellation=True, access_log=None)
        self._open: dict[RequestHandler, Connection] = {}
        self._serve = serve
        self._numbers = numbers
        self._is_closed = False
        self._socket: socket.socket | None = None
        self._runner = web.ServerRunner(self)

    async def listen(self, port: int) -> int:
        """Listen on the port, or a free one for 0, and return it."""
        self._socket = socket.create_server((_HOST, port), backlog=1024)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()
        return int(self._socket.getsockname()[1])

    async def close(self) -> None:
        self._is_closed = True
        if self._socket is not None:
            await self._stop_accepting(self._socket)
        for site in self._runner.sites:
            await site.stop()
        for connection in self._open.values():
            connection.transport.abort()
        await self._runner.cleanup()
        if self._socket is not None:
            # The site closes it only if starting was not cancelled.
            self._socket.close()

    async def _stop_accepting(self, listening: socket.socket) -> None:
        # asyncio loses a connection whose server is closed between accepting and making it: accept
        # no new one, and let the last one be made.
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

    async def _handle(self, request: Request) -> Response:
        return await self._serve(request, self._open[request.protocol])
