"""Calls under a rate limiter, repeated as the policy allows, and told to the observer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import NoReturn, TypeVar

from attrs import field, frozen

from kie_cover_async.api import Request, Response, parse_response
from kie_cover_async.errors import (
    ApiError,
    ClientClosedError,
    KieCoverError,
    RateLimitedError,
)
from kie_cover_async.events import Observer, RequestFinished, RequestsPaused, RetryScheduled, tell
from kie_cover_async.fair_queue import QueueEntry
from kie_cover_async.rate_limiter import ConcurrencyLimiter, RateLimiter
from kie_cover_async.retry import RetryPolicy
from kie_cover_async.validation import checked_kind, checked_plain_callable

from .http_client import HttpClient, UnfitSessionError
from .lifetime import Lifetime

_log = logging.getLogger(__name__)

T = TypeVar("T")


@frozen(kw_only=True, eq=False)
class Transport:
    """What every call goes through: a place in flight, then the rate limiter, then the HTTP
    client.
    """

    http_client: HttpClient
    rate_limiter: RateLimiter = field(validator=checked_kind(RateLimiter))
    retry: RetryPolicy = field(validator=checked_kind(RetryPolicy))
    in_flight: ConcurrencyLimiter
    observer: Observer | None = field(default=None, validator=checked_plain_callable)
    lifetime: Lifetime = field(factory=Lifetime)
    sessions: AsyncExitStack = field(factory=AsyncExitStack)  # closed when no call is left

    def __reduce__(self) -> NoReturn:
        # The key would go along, to wherever pickles are kept.
        raise TypeError("a CoverClient is not to be pickled or copied deeply: make another one")

    async def send(
        self,
        request: Request[T],
        *,
        entry: QueueEntry | None = None,
        on_sent: Callable[[], object],
    ) -> tuple[T, Response]:
        """One request, when the rate limiter allows it; waiting for that costs none of its time."""
        if self.lifetime.closed:
            # Ended, and still here: an `on_update` has kept the cancellation to itself.
            raise ClientClosedError(task_id=request.task_id)
        asked = asyncio.get_running_loop().time()
        await self.in_flight.acquire(entry)
        try:
            granted = await self.rate_limiter.acquire(entry)
            on_sent()
            response = await self.http_client.request(request)
            value = parse_response(request, response)
        except KieCoverError as error:
            self._refused(error, granted)
            self._tell_done(request, granted, granted - asked, error)
            raise
        finally:
            self.in_flight.release()
        self.rate_limiter.accepted(granted)
        if self.observer is not None:
            self._tell_done(request, granted, granted - asked, None)
        return value, response

    async def repeated(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The attempt's value, after as many failures as the retry policy lets pass."""
        tries = 1
        while True:
            try:
                return await attempt()
            except KieCoverError as error:
                pause = self.retry.next_pause(error, tries)
                if pause is None:
                    raise
                self._tell_retry(error, tries, pause)
            await asyncio.sleep(pause)
            tries += 1

    async def call(self, request: Request[T], *, about: str = "") -> T:
        """A single call from end to end: rate limiter, request, reading, repetitions.

        `about` is named in a warning where a call that is paid for is cancelled, or ends by a bug
        of an external session, and its answer was never read.
        """
        unanswered = False

        def on_sent() -> None:
            nonlocal unanswered
            unanswered = True

        async def attempt() -> T:
            nonlocal unanswered
            try:
                value, _ = await self.send(request, on_sent=on_sent)
                return value
            except (KieCoverError, UnfitSessionError):
                unanswered = False
                raise

        try:
            with self.lifetime.call():
                return await self.repeated(attempt)
        except ClientClosedError as error:
            error.maybe_accepted = unanswered and not request.repeatable
            raise
        except BaseException as error:
            if unanswered and not request.repeatable:
                _log.warning(
                    "%s for %s was begun, and ended by %s without an answer: "
                    "the request may have been accepted",
                    request.endpoint,
                    about,
                    type(error).__name__,
                )
            raise

    async def aclose(self) -> None:
        """End running calls with `ClientClosedError`, and close the session if it is ours."""
        self.lifetime.close()
        try:
            await self.lifetime.others_gone()
        finally:
            self.sessions.push_async_callback(self.http_client.aclose)
            await self.sessions.aclose()
        self.lifetime.end_own_calls()

    def _refused(self, error: KieCoverError, granted: float) -> None:
        if isinstance(error, RateLimitedError):
            self._pause(error, granted)
        elif isinstance(error, ApiError):
            self.rate_limiter.accepted(granted)

    def _pause(self, error: RateLimitedError, granted: float) -> None:
        seconds = self.retry.shared_pause(self.rate_limiter.refused(granted), error.retry_after)
        self.rate_limiter.pause(seconds)
        _log.info("refused for too many requests: all requests stop for %.1f s", seconds)
        if self.observer is not None:
            tell(self.observer, RequestsPaused(seconds=seconds, error=error))

    def _tell_done(
        self, request: Request[T], granted: float, queued: float, error: KieCoverError | None
    ) -> None:
        if self.observer is not None:
            done = RequestFinished(
                endpoint=request.endpoint,
                task_id=request.task_id,
                queue_time=queued,
                duration=self.lifetime.loop().time() - granted,
                error=error,
            )
            tell(self.observer, done)

    def _tell_retry(self, error: KieCoverError, tries: int, pause: float) -> None:
        _log.info("repeated in %.1f s, after try %d: %s", pause, tries, error)
        if self.observer is not None:
            plan = RetryScheduled(task_id=error.task_id, attempt=tries, delay=pause, error=error)
            tell(self.observer, plan)
