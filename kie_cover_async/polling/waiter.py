"""The loop of one wait: poll, decide, call back, until an end or the deadline."""

import asyncio
import logging
from inspect import isawaitable
from math import inf

from kie_cover_async.cancel_scope import Timeout
from kie_cover_async.errors import KieCoverError
from kie_cover_async.events import CoverPolled, StateChanged, notify
from kie_cover_async.models import CoverDetails
from kie_cover_async.schedule import LearningSchedule
from kie_cover_async.transport import Transport

from .coalescer import PolledRecord, PollOutcome
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
        self._options = options
        self._expects_callback = expects_callback and options.timeout != 0
        self._timeout = Timeout()
        self._state = WaitState(watch.task_id, options, asyncio.get_running_loop().time())
        self._clock_runs = False

    async def run(self) -> CoverDetails:
        """Return the details of the finished cover.

        Raises:
            CoverFailedError: The job failed.
            CoverTimeoutError: The time is up.
            KieCoverError: An error that no retry can fix.
        """
        end, state, watch = None, self._state, self._watch
        try:
            with self._timeout, watch:
                if self._expects_callback:
                    self._plan_for_callback()
                # `is_ended`: an `on_update` may have suppressed the cancellation.
                while end is None and not (state.is_single_poll_over or self._timeout.is_ended):
                    # Nothing is urgent before the clock runs: there is no deadline yet.
                    on_sent = None if self._clock_runs else self._start_clock
                    urgent_at = state.urgent_at if self._clock_runs else inf
                    outcome = await watch.next_outcome(state.next_poll_at, urgent_at, on_sent)
                    end = await self._take(outcome, self._timeout)
        except TimeoutError:
            # A TimeoutError raised by `on_update`, say, is not ours.
            if not self._timeout.is_ended:
                raise
        if end is None:
            end = await self._after_deadline()
        if isinstance(end, KieCoverError):
            raise end
        return end

    @property
    def polls(self) -> int:
        """How many outcomes the wait has received."""
        return self._state.polls

    def _start_clock(self) -> None:
        self._clock_runs = True
        self._state.started = asyncio.get_running_loop().time()
        if self._options.timeout:  # with 0 there is one poll, however long it takes
            self._timeout.reschedule(self._state.deadline)

    def _plan_for_callback(self) -> None:
        self._start_clock()
        self._state.min_interval = self._watch.min_interval
        self._state.begin_with_min_interval(self._state.started)

    async def _after_deadline(self) -> WaitEnd:
        """Return how a wait ends when its time is up, or when its only poll did not end it."""
        state, unread, end = self._state, self._watch.unread, None
        if isinstance(unread, PolledRecord) and ends_wait(unread.details):
            # Another caller's poll was answered while `on_update` ran.
            end = await self._take(unread, self._timeout)
        elif self._timeout.late > _FROZEN and not state.was_polled_past_deadline:
            end = await self._last_poll()
        return end or state.timed_out(asyncio.get_running_loop().time())

    async def _last_poll(self) -> WaitEnd | None:
        """Poll a last time, within the time of one request, queueing included.

        The loop was blocked or the process stopped, and the job may have ended long ago.
        """
        now = asyncio.get_running_loop().time()
        timeout = Timeout(now + self._transport.http_client.timeout.seconds)
        # An earlier outcome of another caller's poll is too old.
        self._watch.unread = None
        try:
            with timeout:
                outcome = await self._watch.next_outcome(now, now)
                return await self._take(outcome, timeout)
        except TimeoutError:
            if not timeout.is_ended:
                raise
        return None

    async def _take(self, outcome: PollOutcome, timeout: Timeout) -> WaitEnd | None:
        """Decide what an outcome means, and report it; return how the wait ends, if it does."""
        state = self._state
        now = asyncio.get_running_loop().time()
        previous = state.details
        state.min_interval, state.sent_at = self._watch.min_interval, self._watch.sent_at
        end = state.on_outcome(outcome, now, self._transport.polls.limiter.pressure)
        if end is not None:
            # A finished cover must not be lost to a deadline while `on_update` runs.
            timeout.reschedule(None)
        self._report(outcome, now, previous)
        if isinstance(outcome, PolledRecord):
            if end is not None:
                self._on_end(outcome.details)
            on_update = self._options.on_update
            if on_update is not None and isawaitable(update := on_update(outcome.details)):
                await update
        return end

    def _on_end(self, details: CoverDetails) -> None:
        if isinstance(self._options.schedule, LearningSchedule):
            _let_learn(self._options.schedule, details)
        # A job that ended before the wait began may have been called back to another process.
        if self._watch.expects_callback and (self._state.polls > 1 or self._expects_callback):
            _log.info("cover %s has ended without a callback", self._state.task_id)

    def _report(self, outcome: PollOutcome, now: float, previous: CoverDetails | None) -> None:
        state = self._state
        details = outcome.details if isinstance(outcome, PolledRecord) else None
        error = None if isinstance(outcome, PolledRecord) else outcome
        previous_state = None if previous is None else previous.state
        has_changed = details is not None and details.state is not previous_state
        if has_changed or _log.isEnabledFor(logging.DEBUG):
            level = logging.INFO if has_changed else logging.DEBUG
            seen = error if details is None else details.state.value
            _log.log(level, "cover %s at %.1f s: %s", state.task_id, state.age(now), seen)
        observers = self._transport.observers
        if observers:
            age = state.age(now)
            polled = CoverPolled(
                task_id=state.task_id, wait=self, age=age, details=details, error=error
            )
            notify(observers, polled)
            if has_changed and details is not None:
                changed = StateChanged(
                    task_id=state.task_id,
                    wait=self,
                    age=age,
                    previous_state=previous_state,
                    details=details,
                )
                notify(observers, changed)


def _let_learn(learner: LearningSchedule, details: CoverDetails) -> None:
    # An error of the schedule must not cost the caller a finished cover.
    try:
        learner.learn(details)
    except Exception:  # noqa: BLE001 - the schedule may be the caller's code
        _log.exception("the schedule failed to learn from cover %s", details.task_id)
