"""The API as a waiting client sees it, without a network: looks that answer by script."""

import asyncio
from collections.abc import Callable, Hashable
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import Any

from virtual_time import now

from kie_cover_async.budget import RequestBudget
from kie_cover_async.errors import (
    AuthenticationError,
    InvalidResponseError,
    KieCoverError,
    RateLimitedError,
    TaskNotFoundError,
    TransportError,
)
from kie_cover_async.looks import OnSent, Sighting
from kie_cover_async.models import CoverDetails, CoverResponse

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
    """One reply for each look, the last one again and again; or a function from the time to one.

    A reply of `NEVER` is none. A refusal holds the budget, if there is one, as the transport would.
    The server's clock shows `noon` when the loop's shows 0, and whole seconds only.
    """

    noon = datetime(2026, 1, 15, 12, tzinfo=UTC)

    def __init__(
        self,
        *replies: Reply,
        by_time: Callable[[float], Reply] | None = None,
        latency: float = 0.0,
        budget: RequestBudget | None = None,
        has_clock: bool = True,
    ) -> None:
        self._replies = chain(replies, repeat(replies[-1])) if replies else None
        self._by_time = by_time
        self._budget = budget
        self.latency, self.has_clock = latency, has_clock
        self.looked_at: list[float] = []

    async def look(self, task_id: str, on_sent: OnSent, flow: Hashable = None) -> Sighting:
        assert task_id == ID
        if self._budget is not None:
            await self._budget.acquire(flow)
        on_sent()
        self.looked_at.append(now())
        reply = self._by_time(now()) if self._by_time else next(self._replies)
        await asyncio.sleep(self.latency)
        return await self._answer(reply)

    async def _answer(self, reply: Reply) -> Sighting:
        if reply is NEVER:
            await asyncio.Event().wait()
        if isinstance(reply, RateLimitedError) and self._budget is not None:
            self._budget.hold(reply.retry_after)
        if isinstance(reply, KieCoverError):
            raise reply.copy()
        if isinstance(reply, BaseException):
            raise reply
        return Sighting(reply, self._clock(), now())

    def _clock(self) -> datetime | None:
        return self.noon + timedelta(seconds=int(now())) if self.has_clock else None
