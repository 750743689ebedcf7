"""Named fakes of the transport: waits over a scripted API, without a network or JSON."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

from kie_cover_async.api import Request
from kie_cover_async.api.suno import SUNO
from kie_cover_async.cancel_scope import SharedTimeout
from kie_cover_async.errors import (
    AuthenticationError,
    InvalidResponseError,
    KieCoverError,
    RateLimitedError,
    TaskNotFoundError,
    TransportError,
)
from kie_cover_async.events import Observer
from kie_cover_async.fair_queue import QueueEntry
from kie_cover_async.models import CoverDetails, CoverResponse
from kie_cover_async.polling.coalescer import PollCoalescer
from kie_cover_async.rate_limiter import ConcurrencyLimiter, RateLimiter
from kie_cover_async.transport import Answer, Throttle
from support.virtual_time import now

ID = "21aee3c3c2a01fa5e030b3799fa4dd56"


def record(flag: int | str | None, *images: str, **more: Any) -> CoverDetails:
    return CoverDetails(
        task_id=ID, success_flag=flag, response=CoverResponse(images=images), **more
    )


PENDING = record(0)
GENERATING = record(2)
COVER = record(1, "https://images.example/1.png")
BARE = record(1)
FAILED = record(3, error_code=500, error_message="no luck")
UNHEARD_OF = record(17)

RESET = TransportError(reason="reset")
UNREADABLE = InvalidResponseError(path="$.data", found="[]", expected="an object")
NOT_FOUND = TaskNotFoundError(code=200, msg="success")
UNAUTHORISED = AuthenticationError(code=401)

Reply = CoverDetails | BaseException | None
NEVER = None


def refused(seconds: float) -> RateLimitedError:
    return RateLimitedError(code=429, retry_after=seconds)


class FakeTransport:
    """What polls and waits use of a `Transport`: each request waits for a slot, then is answered.

    :param answer: returns the record of a task id and the server's clock, or raises.
    """

    def __init__(
        self,
        answer: Callable[[str], Awaitable[tuple[CoverDetails, datetime | None]]],
        rate_limiter: RateLimiter | None = None,
        *,
        observers: Iterable[Observer] = (),
        request_timeout: float = 10.0,
    ) -> None:
        self._answer = answer
        self.polls = Throttle(ConcurrencyLimiter(10_000), rate_limiter or RateLimiter.unlimited())
        self.observers = tuple(observers)
        self.http_client = SimpleNamespace(timeout=SharedTimeout(request_timeout))
        self.slots: list[float] = []
        self.queued: list[float] = []

    @property
    def rate_limiter(self) -> RateLimiter:
        return self.polls.limiter

    async def send(
        self,
        request: Request[CoverDetails],
        before_sending: Callable[[], object],
        entry: QueueEntry,
        attempt: int,
    ) -> Answer[CoverDetails] | KieCoverError:
        called = now()
        self.slots.append(await self.rate_limiter.acquire(entry))
        self.queued.append(now() - called)
        before_sending()
        try:
            details, served_at = await self._answer(request.task_id)
        except KieCoverError as error:
            return error
        return Answer(details, served_at, now())


class ScriptedTransport(FakeTransport):
    """One reply for each poll, the last one again and again; or a function from the time to one.

    A reply of `NEVER` does not come. A refusal pauses the rate limiter, as the transport would,
    for exactly as long as it says. The server's clock shows `noon` when the loop's shows 0, and
    whole seconds only.
    """

    noon = datetime(2026, 1, 15, 12, tzinfo=UTC)

    def __init__(
        self,
        *replies: Reply,
        by_time: Callable[[float], Reply] | None = None,
        latency: float = 0.0,
        rate_limiter: RateLimiter | None = None,
        has_clock: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(self._reply, rate_limiter, **settings)
        self._replies = chain(replies, repeat(replies[-1])) if replies else None
        self._by_time = by_time
        self.latency, self.has_clock = latency, has_clock
        self.polled_at: list[float] = []

    async def _reply(self, task_id: str) -> tuple[CoverDetails, datetime | None]:
        assert task_id == ID
        self.polled_at.append(now())
        reply = self._by_time(now()) if self._by_time else next(self._replies)
        await asyncio.sleep(self.latency)
        if reply is NEVER:
            await asyncio.Event().wait()
        if isinstance(reply, RateLimitedError):
            self.rate_limiter.pause(reply.retry_after)
        if isinstance(reply, KieCoverError):
            raise reply.copy()
        if isinstance(reply, BaseException):
            raise reply
        return reply, self._clock()

    def _clock(self) -> datetime | None:
        return self.noon + timedelta(seconds=int(now())) if self.has_clock else None


def coalescer_of(transport: FakeTransport) -> PollCoalescer:
    return PollCoalescer(transport, SUNO)
