"""Requests within their limits, retried as the policy allows, and reported to the observers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from inspect import isawaitable
from typing import Generic, NoReturn, TypeVar

from attrs import define, field, frozen

from kie_cover_async.api import Request, parse_response
from kie_cover_async.errors import ApiError, ClientClosedError, KieCoverError, RateLimitedError
from kie_cover_async.events import (
    Observers,
    RequestFinished,
    RequestsPaused,
    RetryScheduled,
    as_observers,
    notify,
)
from kie_cover_async.fair_queue import QueueEntry
from kie_cover_async.retry import RetryPolicy
from kie_cover_async.validation import instance_validator

from .connections import OnSending
from .http_client import HttpClient
from .limits import MIN_SLOT_AGE, SLOT_EXPIRES_AT, OpenCalls, Throttle

_log = logging.getLogger(__name__)

_UNANSWERED = (
    "%s for %s was sent, and ended by %s without an answer: the request may have been accepted"
)

T = TypeVar("T")


@define(eq=False, repr=False)
class Answer(Generic[T]):
    """The value that an answer of the API holds, and when it was given."""

    value: T
    served_at: datetime | None
    """The server's clock."""
    received_at: float
    """The `loop.time()`."""


@frozen(kw_only=True, eq=False)
class Transport:
    """What every request passes: a place, a slot, the HTTP client, the parser of its answer."""

    http_client: HttpClient
    polls: Throttle
    submits: Throttle
    retry: RetryPolicy = field(validator=instance_validator(RetryPolicy))
    observers: Observers = field(default=(), converter=as_observers)
    open_calls: OpenCalls = field(factory=OpenCalls)
    sessions: AsyncExitStack = field(factory=AsyncExitStack)  # closed when no call is left

    def __reduce__(self) -> NoReturn:
        # The pickle would contain the key.
        raise TypeError("a CoverClient must not be pickled or copied deeply: make another one")

    async def send(
        self,
        request: Request[T],
        before_sending: Callable[[], object] = lambda: None,
        entry: QueueEntry | None = None,
        attempt: int = 1,
        on_sending: OnSending | None = None,
    ) -> Answer[T] | KieCoverError:
        """Send one request when its limits allow it; return the outcome: errors are not raised.

        The request's time does not include the time in queues. `before_sending` is called after the
        queues, and `on_sending` is awaited before the first byte of a submit.

        Raises:
            QueueEntryWithdrawnError: The entry was withdrawn.
        """
        if self.open_calls.closed:
            # The call was ended, but an `on_update` has suppressed the cancellation.
            return ClientClosedError(task_id=request.task_id)
        throttle = self.submits if request.endpoint.is_submit else self.polls
        places, limiter = throttle
        time = asyncio.get_running_loop().time
        called_at = time() if self.observers else 0.0
        if not places.try_acquire():
            await places.acquire(entry := entry or QueueEntry())
        outcome: Answer[T] | KieCoverError
        response = None
        try:
            slot = limiter.try_acquire()
            slot_at = await limiter.acquire(entry) if slot is None else slot
            before_sending()
            if throttle is self.submits:
                SLOT_EXPIRES_AT.set(slot_at + max(limiter.interval, MIN_SLOT_AGE))
            response = await self.http_client.request(request, on_sending)
            outcome = Answer(parse_response(request, response), response.served_at, time())
            limiter.accepted(slot_at)
        except KieCoverError as error:
            outcome = error
            # Only an answer of the API shows that it did or did not refuse.
            if isinstance(error, RateLimitedError):
                self._pause(throttle, error, slot_at)
            elif isinstance(error, ApiError):
                limiter.accepted(slot_at)
        finally:
            places.release()
        if self.observers:
            finished = RequestFinished(
                endpoint=request.endpoint.name,
                method=request.method,
                task_id=request.task_id,
                attempt=attempt,
                http_status=None if response is None else response.status,
                queue_time=slot_at - called_at,
                duration=time() - slot_at,
                error=None if isinstance(outcome, Answer) else outcome,
            )
            notify(self.observers, finished)
        return outcome

    async def call(
        self,
        request: Request[T],
        *,
        about: str = "",
        retry: RetryPolicy | None = None,
        on_sending: Callable[[], Awaitable[object] | object] | None = None,
    ) -> T:
        """Make a single call: `send`, repeated as the retry policy allows.

        Args:
            request: The request.
            about: Names the call in a warning if a submit is cancelled, or ended by a bug in an
                external session, before its answer was read.
            retry: Is used instead of the transport's own policy.
            on_sending: Called before the first byte of each attempt of a submit, and awaited.
        """
        attempt, is_unanswered = 1, False

        async def on_first_byte() -> None:
            nonlocal is_unanswered
            if on_sending is not None and isawaitable(noted := on_sending()):
                await noted
            is_unanswered = True

        try:
            with self.open_calls.scope(request.task_id):
                while True:
                    outcome = await self.send(request, attempt=attempt, on_sending=on_first_byte)
                    is_unanswered = False
                    if isinstance(outcome, Answer):
                        return outcome.value
                    attempt = await self.back_off_or_raise(outcome, attempt, retry)
        except ClientClosedError as error:
            error.maybe_accepted = is_unanswered
            raise
        except BaseException as error:
            if is_unanswered:
                _log.warning(_UNANSWERED, request.endpoint.name, about, type(error).__name__)
            raise

    async def back_off_or_raise(
        self, error: KieCoverError, attempt: int, retry: RetryPolicy | None = None
    ) -> int:
        """Sleep until the next attempt and return its number, or raise the error of the last."""
        delay = (retry or self.retry).next_pause(error, attempt)
        if delay is None:
            raise error
        _log.info("repeated in %.1f s, after attempt %d: %s", delay, attempt, error)
        scheduled = RetryScheduled(task_id=error.task_id, attempt=attempt, delay=delay, error=error)
        notify(self.observers, scheduled)
        await asyncio.sleep(delay)
        return attempt + 1

    async def aclose(self) -> None:
        """End running calls with `ClientClosedError`, and close the session if it is ours."""
        self.open_calls.close()
        try:
            await self.open_calls.wait_for_others()
        finally:
            self.sessions.push_async_callback(self.http_client.aclose)
            await self.sessions.aclose()
        self.open_calls.end_own_calls()

    def _pause(self, throttle: Throttle, error: RateLimitedError, slot_at: float) -> None:
        refusals = throttle.limiter.refused(slot_at)
        seconds = self.retry.shared_pause(refusals, error.retry_after)
        throttle.limiter.pause(seconds)
        kind = "submits" if throttle is self.submits else "polls"
        _log.info("refused for too many requests: all %s pause for %.1f s", kind, seconds)
        notify(self.observers, RequestsPaused(kind=kind, seconds=seconds, error=error))
