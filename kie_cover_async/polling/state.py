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
from kie_cover_async.validation import callable_validator, number_validator, validate_number

from .coalescer import PolledRecord, PollOutcome

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
    made; `next_poll_at` is when to poll again. `sent_at` is when the poll was sent whose outcome is
    received: after the loop was blocked or the process stopped, an answer may be much older than
    the moment when it is read.
    While a callback is expected, polls are at least `min_interval` seconds apart.
    """

    def __init__(self, task_id: str, options: WaitOptions, started: float) -> None:
        self.task_id: str = task_id
        self.options: WaitOptions = options
        self.started: float = started
        self.details: CoverDetails | None = None
        self.polls: int = 0
        self.last_error: KieCoverError | None = None
        self.next_poll_at: float = started
        self.min_interval: float = 0.0
        self.sent_at: float = inf
        self._created_at = inf
        self._failures = 0
        self._unreadable = 0
        self._success_seen_at: float | None = None

    def age(self, now: float) -> float:
        """Return the seconds since the job was created, as far as that is known."""
        return now - min(self._created_at, self.started)

    @property
    def is_single_poll_over(self) -> bool:
        """Whether this is a wait of one poll, and that was made."""
        return self.options.timeout == 0 and self.polls > 0

    @property
    def deadline(self) -> float:
        """When the time is up."""
        return inf if self.options.timeout is None else self.started + self.options.timeout

    @property
    def was_polled_past_deadline(self) -> bool:
        """Whether the latest outcome is that of a poll sent when the time was up."""
        return self.deadline <= self.sent_at < inf

    @property
    def urgent_at(self) -> float:
        """From when a poll must not stay in a queue, or the time would be up."""
        return self.deadline - min(_URGENT_BEFORE, _URGENT_SHARE * (self.options.timeout or 0.0))

    def on_outcome(self, outcome: PollOutcome, now: float, pressure: float) -> WaitEnd | None:
        """Return what the wait ends with; if `None`, it goes on, and `next_poll_at` is set."""
        self.polls += 1
        if isinstance(outcome, PolledRecord):
            return self._on_record(outcome, now, pressure)
        return self._on_error(outcome, now, pressure)

    def begin_with_min_interval(self, now: float) -> None:
        """Plan the first poll for when the callback should have come."""
        self._poll_in(self.min_interval, now)

    def timed_out(self, now: float) -> CoverTimeoutError:
        """Return the error for a wait whose time is up."""
        error = CoverTimeoutError(
            task_id=self.task_id, polls=self.polls, waited=now - self.started, details=self.details
        )
        error.__cause__ = self.last_error
        return error

    def _on_record(self, record: PolledRecord, now: float, pressure: float) -> WaitEnd | None:
        details = self.details = record.details
        self._failures = self._unreadable = 0
        self.last_error = None
        self._note_age(record)
        if details.state.is_failure:
            return CoverFailedError(task_id=self.task_id, details=details)
        if details.is_success:
            return details
        if details.state is CoverState.SUCCESS:
            return self._without_images(details, now)
        self._success_seen_at = None
        self._poll_in(self._interval(now, pressure), now)
        return None

    def _without_images(self, details: CoverDetails, now: float) -> WaitEnd | None:
        if self._success_seen_at is None:
            self._success_seen_at = now
        if self._sent_at(now) - self._success_seen_at >= _IMAGES_GRACE:
            return CoverFailedError(task_id=self.task_id, details=details)
        self._poll_in(_IMAGES_INTERVAL, now)
        return None

    def _on_error(self, error: KieCoverError, now: float, pressure: float) -> WaitEnd | None:
        self._unreadable = self._unreadable + 1 if isinstance(error, InvalidResponseError) else 0
        no_record = isinstance(error, TaskNotFoundError)
        self.last_error = error
        if no_record and self.details is None:
            self._failures = 0
            self._poll_in(self._interval(now, pressure), now)
            is_over = self._sent_at(now) - self.started >= self.options.not_found_grace
            return error if is_over else None
        # A record that was seen exists: an answer without it is a passing fault.
        if self._unreadable >= _MOST_UNREADABLE or not (error.transient or no_record):
            return error
        self._poll_in(self._pause(error), now, failed=True)
        return None

    def _sent_at(self, now: float) -> float:
        """Return when the poll was sent whose outcome is received now."""
        # One that was joined in flight was sent before this wait began.
        return max(self.started, min(self.sent_at, now))

    def _pause(self, error: KieCoverError) -> float:
        if isinstance(error, RateLimitedError):
            return 0.0  # the rate limiter is paused, for all
        self._failures += 1
        return self.options.retry.pause(self._failures)

    def _interval(self, now: float, pressure: float) -> float:
        interval = self.options.schedule.delay(self.age(now), pressure)
        validate_number("schedule.delay()", interval, at_least=0)
        return max(interval, self.min_interval)

    def _note_age(self, record: PolledRecord) -> None:
        # The server's clock shows whole seconds, so the largest age of all poll results is nearest.
        created, served = record.details.create_time, record.served_at
        if created is not None and served is not None and served - created <= _OLDEST:
            created_at = record.received_at - (served - created).total_seconds()
            self._created_at = min(self._created_at, created_at)

    def _poll_in(self, pause: float, now: float, *, failed: bool = False) -> None:
        """Plan the next poll; after the last one, near the deadline, repeat only a failed poll."""
        last = self.deadline - min(_LAST_POLL, _LAST_POLL_SHARE * (self.options.timeout or 0.0))
        next_poll_at = now + pause
        if now < last:
            self.next_poll_at = min(next_poll_at, last)
        else:
            self.next_poll_at = next_poll_at if failed else inf
