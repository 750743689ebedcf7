"""What stands before the service, as Cloudflare does: it reads requests, notes them, lets faults
happen, and adds the header fields.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from email.utils import formatdate
from random import Random

from aiohttp import web
from attrs import define, field, frozen

from kie_cover_async.emulator import accepted, answers
from kie_cover_async.emulator.answers import JSON_TYPE, Answer
from kie_cover_async.emulator.delivery import deliver
from kie_cover_async.emulator.faults import Fault, FaultPlan
from kie_cover_async.emulator.images import png
from kie_cover_async.emulator.jobs import Duration, Moment, drawn
from kie_cover_async.emulator.origin import Connection
from kie_cover_async.emulator.service import Call, Service, read_call


@frozen(kw_only=True)
class ReceivedRequest:
    """One request as it arrived.

    `endpoint` is one of `CoverEmulator.ENDPOINTS`, or empty for a path the API does not have;
    `task_id` is the job's id, on `generate` the song's. `received` is in `loop.time()`, `peer` the
    client's address and port. Requests with the same `connection` came over the same one.
    `fault` is what went wrong with the answer on purpose, by a rule or by the job's script.
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


@define(kw_only=True)
class Gateway:
    service: Service
    faults: FaultPlan
    dice: Random
    latency: Duration = field(validator=accepted.duration)
    clock_offset: float = field(validator=accepted.shift)
    image_size: int = field(validator=accepted.number_of_times)
    keep_requests: bool = field(validator=accepted.yes_or_no)
    requests: list[ReceivedRequest] = field(factory=list)
    polls: Counter[str | None] = field(factory=Counter)

    def now(self) -> Moment:
        loop_time = asyncio.get_running_loop().time()
        # By which the loop's clock is ahead of the machine's: nothing, or what a test leapt over.
        leapt = loop_time - time.monotonic()
        return Moment(loop_time, time.time() + leapt + self.clock_offset)

    async def serve_api(
        self, request: web.BaseRequest, connection: Connection
    ) -> web.StreamResponse:
        now = self.now()
        body = await request.read()
        call = read_call(request.method, request.path, request.query, request.headers, body)
        planned = self.faults.choose(call.endpoint, call.task_id)
        answer, fault = self.service.answer(call, planned, now)
        self._note(request, connection, call, fault, body=body, received=now.loop)
        return await self._deliver(request, connection, answer, fault)

    async def serve_image(
        self, request: web.BaseRequest, connection: Connection
    ) -> web.StreamResponse:
        received = self.now().loop
        authorization = request.headers.get("Authorization")
        task_id = self.service.images.get(request.path)
        fault = self.faults.choose("image", task_id)
        call = Call("image", authorization or "", task_id)
        body = await request.read()
        self._note(request, connection, call, fault, body=body, received=received)
        if authorization is not None:
            return await self._deliver(request, connection, answers.image_refused(403), fault)
        if task_id is None:
            return await self._deliver(request, connection, answers.image_refused(404), fault)
        image = png(request.path, self.image_size)
        return await self._deliver(request, connection, answers.image(image), fault)

    def _note(
        self,
        request: web.BaseRequest,
        connection: Connection,
        call: Call,
        fault: Fault | None,
        *,
        body: bytes,
        received: float,
    ) -> None:
        if call.endpoint == "record-info":
            self.polls[call.task_id] += 1
        if not self.keep_requests:
            return
        seen = ReceivedRequest(
            endpoint=call.endpoint,
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=body,
            task_id=call.task_id,
            received=received,
            connection=connection.number,
            peer=connection.peer,
            fault=fault,
        )
        self.requests.append(seen)

    async def _deliver(
        self,
        request: web.BaseRequest,
        connection: Connection,
        answer: Answer,
        fault: Fault | None,
    ) -> web.StreamResponse:
        pause = drawn(self.latency, self.dice) + (fault.delay if fault else 0.0)
        if pause > 0:
            await asyncio.sleep(pause)
        wall_time = self.now().wall
        if fault is not None:
            answer = fault.spoil(answer, wall_time)
        headers = self._headers(request, answer, wall_time)
        answer = Answer(answer.body, answer.status, headers, answer.is_text)
        return await deliver(request, connection.transport, answer, fault)

    def _headers(
        self, request: web.BaseRequest, answer: Answer, wall_time: float
    ) -> dict[str, str]:
        headers = {
            "Date": formatdate(wall_time, usegmt=True),
            "Content-Type": JSON_TYPE,
            "Server": "cloudflare",
            "Cf-Ray": f"{self.dice.getrandbits(64):016x}-FRA",
        }
        if answer.is_text and "JSESSIONID" not in request.headers.get("Cookie", ""):
            session = f"{self.dice.getrandbits(128):032X}"
            headers["Set-Cookie"] = f"JSESSIONID={session}; Path=/; HttpOnly"
        return {**headers, **answer.headers}
