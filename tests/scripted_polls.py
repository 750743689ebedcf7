"""The API as a waiting client sees it, without a network: polls that answer by script."""

import asyncio
from collections.abc import Callable, Hashable
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import Any

from virtual_time import now

from kie_cover_async.errors import (
    AuthenticationError,
    InvalidResponseError,
    KieCoverError,
    RateLimitedError,
    TaskNotFoundError,
    TransportError,
)
from kie_cover_async.models import CoverDetails, CoverResponse
from kie_cover_async.polling import OnSent, PollResult
from kie_cover_async.rate_limiter import RateLimiter

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


class ScriptedApi:
    """One reply for each poll, the last one again and again; or a function from the time to one.

    A reply of `NEVER` is none. A refusal pauses the rate limiter, if there is one, as the transport
    would. The server's clock shows `noon` when the loop's shows 0, and whole seconds only.
    """

    noon = datetime(2026, 1, 15, 12, tzinfo=UTC)

    def __init__(
        self,
        *replies: Reply,
        by_time: Callable[[float], Reply] | None = None,
        latency: float = 0.0,
        rate_limiter: RateLimiter | None = None,
        has_clock: bool = True,
    ) -> None:
        self._replies = chain(replies, repeat(replies[-1])) if replies else None
        self._by_time = by_time
        self._rate_limiter = rate_limiter
        self.latency, self.has_clock = latency, has_clock
        self.polled_at: list[float] = []

    async def poll(self, task_id: str, on_sent: OnSent, flow: Hashable = None) -> PollResult:
        assert task_id == ID
        if self._rate_limiter is not None:
            await self._rate_limiter.acquire(flow)
        on_sent()
        self.polled_at.append(now())
        reply = self._by_time(now()) if self._by_time else next(self._replies)
        await asyncio.sleep(self.latency)
        return await self._answer(reply)

    async def _answer(self, reply: Reply) -> PollResult:
        if reply is NEVER:
            await asyncio.Event().wait()
        if isinstance(reply, RateLimitedError) and self._rate_limiter is not None:
            self._rate_limiter.pause(reply.retry_after)
        if isinstance(reply, KieCoverError):
            raise reply.copy()
        if isinstance(reply, BaseException):
            raise reply
        return PollResult(reply, self._clock(), now())

    def _clock(self) -> datetime | None:
        return self.noon + timedelta(seconds=int(now())) if self.has_clock else None
