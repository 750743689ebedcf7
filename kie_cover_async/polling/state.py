"""The state of one wait, and its decisions; nothing here awaits."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from math import inf

from attrs import field, frozen
from attrs.validators import optional

from kie_cover_async.errors import (
    CoverFailedError,
    CoverTimeoutError,
    InvalidResponseError,
    KieCoverError,
    RateLimitedError,
    TaskNotFoundError,
)
from kie_cover_async.models import CoverDetails, CoverState
from kie_cover_async.retry import RetryPolicy
from kie_cover_async.schedule import Schedule
from kie_cover_async.settings import validate_schedule
from kie_cover_async.transport import Answer
from kie_cover_async.validation import callable_validator, number_validator, validate_number

from .coalescer import PollOutcome

OnUpdate = Callable[[CoverDetails], Awaitable[object] | object]
WaitEnd = CoverDetails | KieCoverError

# Beyond two months, for which the vendor keeps records, a createTime is absurd.
_OLDEST = timedelta(days=60)
_MOST_UNREADABLE = 10
# A success may be reported a moment before its images.
_IMAGES_GRACE, _IMAGES_INTERVAL = 10.0, 1.0
# The last poll comes this many seconds before the deadline, at most this share of the timeout.
_LAST_POLL, _LAST_POLL_SHARE = 1.0, 0.1
# From so many seconds before the deadline a queued poll is urgent, or from this share of
# the timeout: well before the last poll, since urgent polls queue with each other.
_URGENT_BEFORE, _URGENT_SHARE = 10.0, 0.2


@frozen(kw_only=True)
class WaitOptions:
    """The arguments of one wait. Times are in seconds; a `timeout` of `None` is forever."""

    timeout: float | None = field(validator=optional(number_validator(at_least=0)))
    not_found_grace: float = field(validator=number_validator(at_least=0))
    schedule: Schedule = field(converter=validate_schedule)
    retry: RetryPolicy
    on_update: OnUpdate | None = field(default=None, validator=callable_validator)


def ends_wait(details: CoverDetails) -> bool:
    """Return whether the job failed, or succeeded and has its images."""
    return details.is_success or details.state.is_failure


class WaitState:
    """The state of one wait: it decides, and does nothing else.

    Times are `loop.time()`. `started` is when the clock started, and until then when the wait was
    made; `next_poll_at` is when to poll again. `sent_at` is when the poll of the latest outcome was
    sent: after the loop was blocked or the process stopped, an answer may be much older than the
    moment when it is read.
    """

    def __init__(self, task_id: str, options: WaitOptions, started: float) -> None:
        self.task_id: str = task_id
        self.options: WaitOptions = options
        self.started: float = started
        self.details: CoverDetails | None = None
        self.polls: int = 0
        self.last_error: KieCoverError | None = None
        self.next_poll_at: float = started
        self.deadline: float = inf
        self.sent_at: float = -inf
        self._min_interval = 0.0
        self._created_at = inf
        self._failures = 0
        self._unreadable = 0
        self._success_seen_at = inf

    def start_clock(self, now: float) -> None:
        """Let the timeout count from now."""
        self.started = now
        self.deadline = inf if self.options.timeout is None else now + self.options.timeout

    def age(self, now: float) -> float:
        """Return the seconds since the job was created, as far as that is known."""
        return now - min(self._created_at, self.started)

    @property
    def is_single_poll_over(self) -> bool:
        """Whether this is a wait of one poll, and that was made."""
        return self.options.timeout == 0 and self.polls > 0

    @property
    def urgent_at(self) -> float:
        """From when a poll must not stay in a queue, or the time would be up."""
        return self.deadline - min(_URGENT_BEFORE, _URGENT_SHARE * (self.options.timeout or 0.0))

    def on_outcome(
        self, outcome: PollOutcome, sent_at: float, now: float, pressure: float, min_interval: float
    ) -> WaitEnd | None:
        """Return what the wait ends with; if `None`, it goes on, and `next_poll_at` is set.

        `sent_at` is when the poll was sent. The next one comes after `min_interval` seconds at the
        least, unless it repeats a failed one.
        """
        self.polls += 1
        # One that was joined in flight was sent before this wait began.
        self.sent_at = max(self.started, min(sent_at, now))
        self._min_interval = min_interval
        if isinstance(outcome, KieCoverError):
            return self._on_error(outcome, now, pressure)
        self._note_age(outcome)
        return self._on_details(outcome.value, now, pressure)

    def poll_in(self, pause: float, now: float, *, failed: bool = False) -> None:
        """Plan the next poll; after the last one, near the deadline, repeat only a failed poll."""
        last = self.deadline - min(_LAST_POLL, _LAST_POLL_SHARE * (self.options.timeout or 0.0))
        next_poll_at = now + pause
        if now < last:
            self.next_poll_at = min(next_poll_at, last)
        else:
            self.next_poll_at = next_poll_at if failed else inf

    def timed_out(self, now: float) -> CoverTimeoutError:
        """Return the error for a wait whose time is up."""
        error = CoverTimeoutError(
            task_id=self.task_id, polls=self.polls, waited=now - self.started, details=self.details
        )
        error.__cause__ = self.last_error
        return error

    def _on_details(self, details: CoverDetails, now: float, pressure: float) -> WaitEnd | None:
        self.details, self.last_error = details, None
        self._failures = self._unreadable = 0
        if details.is_success:
            return details
        if details.state is CoverState.SUCCESS:
            self._success_seen_at = min(self._success_seen_at, now)
            if self.sent_at - self._success_seen_at < _IMAGES_GRACE:
                self.poll_in(_IMAGES_INTERVAL, now)
                return None
        elif not details.state.is_failure:
            self._success_seen_at = inf
            self._poll_on_schedule(now, pressure)
            return None
        return CoverFailedError(task_id=self.task_id, details=details)

    def _on_error(self, error: KieCoverError, now: float, pressure: float) -> WaitEnd | None:
        self._unreadable = self._unreadable + 1 if isinstance(error, InvalidResponseError) else 0
        no_record = isinstance(error, TaskNotFoundError)
        self.last_error = error
        if no_record and self.details is None:
            self._failures = 0
            self._poll_on_schedule(now, pressure)
            is_over = self.sent_at - self.started >= self.options.not_found_grace
            return error if is_over else None
        # A record that was seen exists: an answer without it is a passing fault.
        if self._unreadable >= _MOST_UNREADABLE or not (error.transient or no_record):
            return error
        pause = 0.0  # after a refusal the rate limiter is paused, for all
        if not isinstance(error, RateLimitedError):
            self._failures += 1
            pause = self.options.retry.pause(self._failures)
        self.poll_in(pause, now, failed=True)
        return None

    def _poll_on_schedule(self, now: float, pressure: float) -> None:
        interval = self.options.schedule.delay(self.age(now), pressure)
        validate_number("schedule.delay()", interval, at_least=0)
        self.poll_in(max(interval, self._min_interval), now)

    def _note_age(self, answer: Answer[CoverDetails]) -> None:
        # The server's clock shows whole seconds, so the largest age of all poll results is nearest.
        created, served = answer.value.create_time, answer.served_at
        if created is not None and served is not None and served - created <= _OLDEST:
            created_at = answer.received_at - (served - created).total_seconds()
            self._created_at = min(self._created_at, created_at)
