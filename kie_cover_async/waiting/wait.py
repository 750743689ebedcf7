"""The loop around the decisions: looks, listens, and keeps the deadline."""

import asyncio
import logging
from inspect import isawaitable
from typing import Any

from attrs import frozen

from kie_cover_async.budget import RequestBudget
from kie_cover_async.deadline import Timeout
from kie_cover_async.errors import KieCoverError
from kie_cover_async.events import CoverChanged, CoverLooked, Observer, tell
from kie_cover_async.looks import Ear, Heard, Sighting
from kie_cover_async.models import CoverDetails, CoverState
from kie_cover_async.schedule import Learner

from .state import Outcome, WaitState, WaitTerms

_log = logging.getLogger(__name__)

# Seconds. A deadline that comes so late was not only waiting for its turn.
_FROZEN = 0.1


@frozen(eq=False)
class Wait:
    """One wait, from its first look to its end.

    One that `awaits_call` looks first when a callback has come, or should have.
    """

    ear: Ear
    terms: WaitTerms
    budget: RequestBudget
    observer: Observer | None = None
    awaits_call: bool = False
    request_timeout: float = 30.0

    async def run(self) -> CoverDetails:
        """The cover's details.

        Raises `CoverFailedError`, `CoverTimeoutError`, or the error that no repetition can mend.
        """
        state = WaitState(self.ear.task_id, self.terms, asyncio.get_running_loop().time())
        scope, outcome = Timeout(None), None
        try:
            async with scope:
                with self.ear:
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
        while not (outcome or self.terms.timeout == 0 or scope.expired()):
            heard = await self.ear.listen_until(state.due) or await self._look(state)
            outcome = await self._judged(heard, state, scope)
        return outcome

    async def _at_the_deadline(self, state: WaitState, late: float) -> Outcome:
        """Return how the wait ends, if the scope has ended it without an outcome."""
        news, outcome = self.ear.news, None
        # Another's poll may have been answered while `on_update` ran.
        if isinstance(news, Sighting) and _tells_the_end(news.details):
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
                return await self._judged(await self.ear.look(hurry_at=now), state, scope)
        except TimeoutError:
            if not scope.expired():
                raise
        return None

    async def _look(self, state: WaitState) -> Heard:
        return await self.ear.look(hurry_at=state.hurry_at)

    async def _first_heard(self, state: WaitState, scope: Timeout) -> Heard:
        if not self.awaits_call or self.terms.timeout == 0:
            return await self._first_look(state, scope)
        if self.terms.timeout is not None:
            scope.reschedule(state.deadline)
        state.rest = self.ear.rest
        state.begin_with_rest(state.started)
        return await self.ear.listen_until(state.due) or await self._look(state)

    async def _first_look(self, state: WaitState, scope: Timeout) -> Heard:
        def start_the_clock() -> None:
            state.started = asyncio.get_running_loop().time()
            if self.terms.timeout:
                scope.reschedule(state.deadline)

        return await self.ear.look(start_the_clock)

    async def _judged(self, heard: Heard, state: WaitState, scope: Timeout) -> Outcome | None:
        now = asyncio.get_running_loop().time()
        before = state.details.state if state.details else None
        state.rest, state.asked = self.ear.rest, self.ear.asked_at
        outcome = state.hear(heard, now, self.budget.pressure)
        if outcome is not None:
            # What is known by now is not to be lost to a deadline while `on_update` runs.
            scope.reschedule(None)
        self._report(heard, state, now, before)
        if isinstance(heard, Sighting):
            if outcome is not None:
                self._ended(heard.details, state)
            await self._update(heard.details)
        return outcome

    def _ended(self, details: CoverDetails, state: WaitState) -> None:
        if isinstance(self.terms.schedule, Learner):
            _teach(self.terms.schedule, details)
        # What has ended before the wait began may have been called of to another process.
        if state.rest and (state.looks > 1 or self.awaits_call):
            _log.info("cover %s has ended, and no callback was heard", state.task_id)

    async def _update(self, details: CoverDetails) -> None:
        if self.terms.on_update is not None:
            result = self.terms.on_update(details)
            if isawaitable(result):
                await result

    def _report(
        self, heard: Heard, state: WaitState, now: float, before: CoverState | None
    ) -> None:
        age = state.age(now)
        details, error = (heard.details, None) if isinstance(heard, Sighting) else (None, heard)
        changed = details is not None and details.state is not before
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
        tell(self.observer, CoverLooked(error=error, **facts))
        if changed:
            tell(self.observer, CoverChanged(before=before, **facts))


def _teach(learner: Learner, details: CoverDetails) -> None:
    """What it raises must not cost anybody the cover that is there."""
    try:
        learner.learn(details)
    except Exception:  # noqa: BLE001 - the schedule may be somebody else's code
        _log.exception("the schedule failed to learn from cover %s", details.task_id)


def _tells_the_end(details: CoverDetails) -> bool:
    return details.is_success or details.state.is_failure
