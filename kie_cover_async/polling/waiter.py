"""The loop around the decisions: polls, listens, and keeps the deadline."""

import asyncio
import logging
from inspect import isawaitable
from typing import Any

from attrs import frozen

from kie_cover_async.deadline import Timeout
from kie_cover_async.errors import KieCoverError
from kie_cover_async.events import CoverPolled, Observer, StateChanged, tell
from kie_cover_async.models import CoverDetails, CoverState
from kie_cover_async.rate_limiter import RateLimiter
from kie_cover_async.schedule import Learner

from .coalescer import PollOutcome, PollResult
from .state import Outcome, WaitOptions, WaitState
from .task_watch import TaskWatch

_log = logging.getLogger(__name__)

# Seconds. A deadline that comes so late was not only waiting for its turn.
_FROZEN = 0.1


@frozen(eq=False)
class Waiter:
    """One wait, from its first poll to its end.

    One that `awaits_callback` polls first when a callback has come, or should have.
    """

    watch: TaskWatch
    options: WaitOptions
    rate_limiter: RateLimiter
    observer: Observer | None = None
    awaits_callback: bool = False
    request_timeout: float = 30.0

    async def run(self) -> CoverDetails:
        """The cover's details.

        Raises `CoverFailedError`, `CoverTimeoutError`, or the error that no repetition can mend.
        """
        state = WaitState(self.watch.task_id, self.options, asyncio.get_running_loop().time())
        scope, outcome = Timeout(None), None
        try:
            async with scope:
                with self.watch:
                    outcome = await self._until_the_end(state, scope)
        except TimeoutError:
            # Another's TimeoutError, from `on_update`, say, is none of ours.
            if not scope.expired():
                raise
        outcome = outcome or await self._at_the_deadline(state, scope.late)
        if isinstance(outcome, KieCoverError):
            raise outcome
        return outcome

    async def _until_the_end(self, state: WaitState, scope: Timeout) -> Outcome | None:
        outcome = await self._judged(await self._first_heard(state, scope), state, scope)
        # Expired and still here: an `on_update` has kept the cancellation to itself.
        while not (outcome or self.options.timeout == 0 or scope.expired()):
            result = await self.watch.listen_until(state.next_poll_at) or await self._poll(state)
            outcome = await self._judged(result, state, scope)
        return outcome

    async def _at_the_deadline(self, state: WaitState, late: float) -> Outcome:
        """Return how the wait ends, if the scope has ended it without an outcome."""
        news, outcome = self.watch.news, None
        # Another's poll may have been answered while `on_update` ran.
        if isinstance(news, PollResult) and _tells_the_end(news.details):
            async with Timeout(None) as scope:
                outcome = await self._judged(news, state, scope)
        elif late > _FROZEN and not state.heard_past_deadline:
            outcome = await self._last_poll(state)
        return outcome or state.timed_out(asyncio.get_running_loop().time())

    async def _last_poll(self, state: WaitState) -> Outcome | None:
        """Poll once more, in the time of one request, its queueing included.

        The loop was blocked or the process stopped, and the job may have ended long ago.
        """
        now = asyncio.get_running_loop().time()
        scope = Timeout(now + self.request_timeout)
        try:
            async with scope:
                return await self._judged(await self.watch.poll(prioritize_at=now), state, scope)
        except TimeoutError:
            if not scope.expired():
                raise
        return None

    async def _poll(self, state: WaitState) -> PollOutcome:
        return await self.watch.poll(prioritize_at=state.prioritize_at)

    async def _first_heard(self, state: WaitState, scope: Timeout) -> PollOutcome:
        if not self.awaits_callback or self.options.timeout == 0:
            return await self._first_poll(state, scope)
        if self.options.timeout is not None:
            scope.reschedule(state.deadline)
        state.min_interval = self.watch.min_interval
        state.begin_with_min_interval(state.started)
        return await self.watch.listen_until(state.next_poll_at) or await self._poll(state)

    async def _first_poll(self, state: WaitState, scope: Timeout) -> PollOutcome:
        def start_the_clock() -> None:
            state.started = asyncio.get_running_loop().time()
            if self.options.timeout:
                scope.reschedule(state.deadline)

        return await self.watch.poll(start_the_clock)

    async def _judged(
        self, result: PollOutcome, state: WaitState, scope: Timeout
    ) -> Outcome | None:
        now = asyncio.get_running_loop().time()
        previous_state = state.details.state if state.details else None
        state.min_interval, state.asked = self.watch.min_interval, self.watch.asked_at
        outcome = state.on_result(result, now, self.rate_limiter.pressure)
        if outcome is not None:
            # What is known by now is not to be lost to a deadline while `on_update` runs.
            scope.reschedule(None)
        self._report(result, state, now, previous_state)
        if isinstance(result, PollResult):
            if outcome is not None:
                self._ended(result.details, state)
            await self._update(result.details)
        return outcome

    def _ended(self, details: CoverDetails, state: WaitState) -> None:
        if isinstance(self.options.schedule, Learner):
            _teach(self.options.schedule, details)
        # What has ended before the wait began may have been called of to another process.
        if state.min_interval and (state.polls > 1 or self.awaits_callback):
            _log.info("cover %s has ended, and no callback was heard", state.task_id)

    async def _update(self, details: CoverDetails) -> None:
        if self.options.on_update is not None:
            result = self.options.on_update(details)
            if isawaitable(result):
                await result

    def _report(
        self, result: PollOutcome, state: WaitState, now: float, previous_state: CoverState | None
    ) -> None:
        age = state.age(now)
        details, error = (
            (result.details, None) if isinstance(result, PollResult) else (None, result)
        )
        changed = details is not None and details.state is not previous_state
        level = logging.INFO if changed else logging.DEBUG
        said = error if details is None else details.state.value
        _log.log(level, "cover %s at %.1f s: %s", state.task_id, age, said)
        if self.observer is None:
            return
        facts: dict[str, Any] = {
            "task_id": state.task_id,
            "wait": self,
            "age": age,
            "details": details,
        }
        tell(self.observer, CoverPolled(error=error, **facts))
        if changed:
            tell(self.observer, StateChanged(previous_state=previous_state, **facts))


def _teach(learner: Learner, details: CoverDetails) -> None:
    """What it raises must not cost anybody the cover that is there."""
    try:
        learner.learn(details)
    except Exception:  # noqa: BLE001 - the schedule may be somebody else's code
        _log.exception("the schedule failed to learn from cover %s", details.task_id)


def _tells_the_end(details: CoverDetails) -> bool:
    return details.is_success or details.state.is_failure
