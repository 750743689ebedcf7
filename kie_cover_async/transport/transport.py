"""Calls under a budget, repeated as the policy allows, and told to the observer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import NoReturn, TypeVar

from attrs import field, frozen

from kie_cover_async.arguments import checked_kind, checked_plain_callable
from kie_cover_async.budget import InFlightLimit, RequestBudget
from kie_cover_async.errors import (
    ApiError,
    ClientClosedError,
    KieCoverError,
    RateLimitedError,
)
from kie_cover_async.events import BudgetHeld, Observer, RequestDone, RetryPlanned, tell
from kie_cover_async.retry import RetryPolicy
from kie_cover_async.turns import Ticket
from kie_cover_async.wire import Answer, Call, read

from .exchange import Exchange, UnfitSessionError
from .lifetime import Lifetime

_log = logging.getLogger(__name__)

T = TypeVar("T")


@frozen(kw_only=True, eq=False)
class Transport:
    """What every call goes through: a place in flight, then the budget, then the exchange."""

    exchange: Exchange
    budget: RequestBudget = field(validator=checked_kind(RequestBudget))
    retry: RetryPolicy = field(validator=checked_kind(RetryPolicy))
    in_flight: InFlightLimit
    observer: Observer | None = field(default=None, validator=checked_plain_callable)
    lifetime: Lifetime = field(factory=Lifetime)
    sessions: AsyncExitStack = field(factory=AsyncExitStack)  # closed when no call is left

    def __reduce__(self) -> NoReturn:
        # The key would go along, to wherever pickles are kept.
        raise TypeError("a CoverClient is not to be pickled or copied deeply: make another one")

    async def once(
        self,
        call: Call[T],
        *,
        ticket: Ticket | None = None,
        on_sent: Callable[[], object],
    ) -> tuple[T, Answer]:
        """One request, when the budget allows it; waiting for that costs none of its time."""
        if self.lifetime.closed:
            # Ended, and still here: an `on_update` has kept the cancellation to itself.
            raise ClientClosedError(task_id=call.task_id)
        asked = asyncio.get_running_loop().time()
        await self.in_flight.acquire(ticket)
        try:
            granted = await self.budget.acquire(ticket)
            on_sent()
            answer = await self.exchange.send(call)
            value = read(call, answer)
        except KieCoverError as error:
            self._refused(error, granted)
            self._tell_done(call, granted, granted - asked, error)
            raise
        finally:
            self.in_flight.release()
        self.budget.accepted(granted)
        if self.observer is not None:
            self._tell_done(call, granted, granted - asked, None)
        return value, answer

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

    async def call(self, call: Call[T], *, about: str = "") -> T:
        """A single call from end to end: budget, request, reading, repetitions.

        `about` is named in a warning where a call that is paid for is cancelled, or ends by a bug
        of a lent session's, and its answer was never read.
        """
        unanswered = False

        def on_sent() -> None:
            nonlocal unanswered
            unanswered = True

        async def attempt() -> T:
            nonlocal unanswered
            try:
                value, _ = await self.once(call, on_sent=on_sent)
                return value
            except (KieCoverError, UnfitSessionError):
                unanswered = False
                raise

        try:
            with self.lifetime.call():
                return await self.repeated(attempt)
        except ClientClosedError as error:
            error.maybe_accepted = unanswered and not call.repeatable
            raise
        except BaseException as error:
            if unanswered and not call.repeatable:
                _log.warning(
                    "%s for %s was begun, and ended by %s without an answer: "
                    "the request may have been accepted",
                    call.endpoint,
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
            self.sessions.push_async_callback(self.exchange.aclose)
            await self.sessions.aclose()
        self.lifetime.end_own_calls()

    def _refused(self, error: KieCoverError, granted: float) -> None:
        if isinstance(error, RateLimitedError):
            self._hold(error, granted)
        elif isinstance(error, ApiError):
            self.budget.accepted(granted)

    def _hold(self, error: RateLimitedError, granted: float) -> None:
        seconds = self.retry.hold(self.budget.refused(granted), error.retry_after)
        self.budget.hold(seconds)
        _log.info("refused for too many requests: all requests stop for %.1f s", seconds)
        if self.observer is not None:
            tell(self.observer, BudgetHeld(seconds=seconds, error=error))

    def _tell_done(
        self, call: Call[T], granted: float, queued: float, error: KieCoverError | None
    ) -> None:
        if self.observer is not None:
            done = RequestDone(
                endpoint=call.endpoint,
                task_id=call.task_id,
                queued=queued,
                seconds=self.lifetime.loop().time() - granted,
                error=error,
            )
            tell(self.observer, done)

    def _tell_retry(self, error: KieCoverError, tries: int, pause: float) -> None:
        _log.info("repeated in %.1f s, after try %d: %s", pause, tries, error)
        if self.observer is not None:
            plan = RetryPlanned(task_id=error.task_id, tries=tries, pause=pause, error=error)
            tell(self.observer, plan)
