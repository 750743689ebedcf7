"""The loop of one wait: poll, decide, call back, until an end or the deadline."""

import asyncio
import logging
from inspect import isawaitable
from typing import Any

from kie_cover_async.cancel_scope import Timeout
from kie_cover_async.errors import KieCoverError
from kie_cover_async.events import CoverPolled, StateChanged, notify
from kie_cover_async.models import CoverDetails
from kie_cover_async.schedule import LearningSchedule
from kie_cover_async.transport import Answer, Transport

from .coalescer import PollOutcome
from .state import WaitEnd, WaitOptions, WaitState, ends_wait
from .task_watch import TaskWatch

_log = logging.getLogger(__name__)

# Seconds. If a deadline is later than this, the loop was blocked or the process stopped.
_FROZEN = 0.1


class Waiter:
    """One wait, from its first poll to its end.

    With `expects_callback` the first poll comes when a callback has come, or should have.
    """

    def __init__(
        self,
        transport: Transport,
        watch: TaskWatch,
        options: WaitOptions,
        *,
        expects_callback: bool,
    ) -> None:
        self._transport = transport
        self._watch = watch
        watch.on_first_sent = self._start_clock
        self._awaits_callback = expects_callback and watch.expects_callback and options.timeout != 0
        self._timeout = Timeout()
        self.state: WaitState = WaitState(watch.task_id, options, asyncio.get_running_loop().time())

    async def run(self) -> CoverDetails:
        """Return the details of the finished cover.

        Raises:
            CoverFailedError: The job failed.
            CoverTimeoutError: The time is up.
            KieCoverError: An error that no retry can fix.
        """
        end, state, watch = None, self.state, self._watch
        with self._timeout, watch:
            if self._awaits_callback:
                watch.on_first_sent = None
                self._start_clock()
                state.poll_in(watch.min_interval, state.started)
            # `is_ended`: an `on_update` may have suppressed the cancellation.
            while end is None and not (state.is_single_poll_over or self._timeout.is_ended):
                outcome = await watch.next_outcome(state.next_poll_at, state.urgent_at)
                end = await self._take(outcome, self._timeout)
        if end is None:
            end = await self._after_deadline()
        if isinstance(end, KieCoverError):
            raise end
        return end

    def _start_clock(self) -> None:
        self.state.start_clock(asyncio.get_running_loop().time())
        if self.state.options.timeout:  # with 0 there is one poll, however long it takes
            self._timeout.reschedule(self.state.deadline)

    async def _after_deadline(self) -> WaitEnd:
        """Return how a wait ends when its time is up, or when its only poll did not end it."""
        state, unread, end = self.state, self._watch.unread, None
        if isinstance(unread, Answer) and ends_wait(unread.value):
            # Another caller's poll was answered while `on_update` ran.
            end = await self._take(unread, self._timeout)
        elif self._timeout.late > _FROZEN and state.sent_at < state.deadline:
            end = await self._last_poll()
        return end or state.timed_out(asyncio.get_running_loop().time())

    async def _last_poll(self) -> WaitEnd | None:
        """Poll a last time, within the time of one request, queueing included.

        The loop was blocked or the process stopped, and the job may have ended long ago.
        """
        now = asyncio.get_running_loop().time()
        # An earlier outcome of another caller's poll is too old.
        self._watch.unread = None
        with Timeout(now + self._transport.http_client.timeout.seconds) as timeout:
            outcome = await self._watch.next_outcome(now, now)
            return await self._take(outcome, timeout)
        return None

    async def _take(self, outcome: PollOutcome, timeout: Timeout) -> WaitEnd | None:
        """Decide what an outcome means, and report it; return how the wait ends, if it does."""
        state, watch = self.state, self._watch
        now = asyncio.get_running_loop().time()
        previous, pressure = state.details, self._transport.polls.limiter.pressure
        end = state.on_outcome(outcome, watch.sent_at, now, pressure, watch.min_interval)
        if end is not None:
            # A finished cover must not be lost to a deadline while `on_update` runs.
            timeout.reschedule(None)
        self._report(outcome, now, previous)
        if isinstance(outcome, Answer):
            if end is not None:
                self._on_end(outcome.value)
            on_update = self.state.options.on_update
            if on_update is not None and isawaitable(update := on_update(outcome.value)):
                await update
        return end

    def _on_end(self, details: CoverDetails) -> None:
        schedule = self.state.options.schedule
        if isinstance(schedule, LearningSchedule):
            # An error of the schedule must not cost the caller a finished cover.
            try:
                schedule.learn(details)
            except Exception:  # noqa: BLE001 - the schedule may be the caller's code
                _log.exception("the schedule failed to learn from cover %s", details.task_id)
        # A job that ended before the wait began may have been called back to another process.
        if self._watch.expects_callback and (self.state.polls > 1 or self._awaits_callback):
            _log.info("cover %s has ended without a callback", self.state.task_id)

    def _report(self, outcome: PollOutcome, now: float, previous: CoverDetails | None) -> None:
        error = outcome if isinstance(outcome, KieCoverError) else None
        details = None if isinstance(outcome, KieCoverError) else outcome.value
        previous_state = None if previous is None else previous.state
        has_changed = details is not None and details.state is not previous_state
        age = self.state.age(now)
        level = logging.INFO if has_changed else logging.DEBUG
        seen = error if details is None else details.state.value
        _log.log(level, "cover %s at %.1f s: %s", self.state.task_id, age, seen)
        if observers := self._transport.observers:
            facts: dict[str, Any] = {"task_id": self.state.task_id, "wait": self, "age": age}
            notify(observers, CoverPolled(**facts, details=details, error=error))
            if has_changed and details is not None:
                changed = StateChanged(**facts, previous_state=previous_state, details=details)
                notify(observers, changed)
