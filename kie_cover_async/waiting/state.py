"""What one wait knows, and what follows from it: decisions, and nothing that awaits."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from math import inf

from attrs import define, field, frozen
from attrs.validators import optional

from kie_cover_async.arguments import checked, checked_callable, number
from kie_cover_async.errors import (
    CoverFailedError,
    CoverTimeoutError,
    InvalidResponseError,
    KieCoverError,
    RateLimitedError,
    TaskNotFoundError,
)
from kie_cover_async.looks import Heard, Sighting
from kie_cover_async.models import CoverDetails, CoverState
from kie_cover_async.retry import RetryPolicy
from kie_cover_async.schedule import Schedule
from kie_cover_async.settings import a_schedule

OnUpdate = Callable[[CoverDetails], Awaitable[object] | object]
Outcome = CoverDetails | KieCoverError

# Beyond two months, for which the vendor keeps records, a createTime is absurd.
_OLDEST = timedelta(days=60)
_MOST_UNREADABLE = 10
# A success may be told a moment before its images.
_IMAGES_GRACE, _IMAGES_INTERVAL = 10.0, 1.0
# The last look comes this many seconds before the deadline, at most this share of the timeout.
_LAST_LOOK, _LAST_LOOK_SHARE = 1.0, 0.1
# From so many seconds before the deadline a look in a queue hurries, or from this share of the
# timeout: well before the last look, since those that hurry queue with each other.
_HURRY, _HURRY_SHARE = 10.0, 0.2


@frozen(kw_only=True)
class WaitTerms:
    """What one wait was asked to do. Times are in seconds; a `timeout` of `None` is for ever."""

    timeout: float | None = field(validator=optional(checked(at_least=0)))
    not_found_grace: float = field(validator=checked(at_least=0))
    schedule: Schedule = field(converter=a_schedule)
    retry: RetryPolicy
    on_update: OnUpdate | None = field(default=None, validator=checked_callable)


@define(eq=False)
class WaitState:
    """What one wait knows, and what follows from it. Decides, and touches nothing.

    Times are `loop.time()`. `started` is when the first look left; `due` is when to look again.
    `asked` is when the look left whose answer is heard: after the loop was blocked or the process
    stopped, an answer may be much older than the moment in which it is heard.
    While a callback is expected, `rest` is how many seconds to leave between looks at least.
    """

    task_id: str
    terms: WaitTerms
    started: float
    details: CoverDetails | None = None
    looks: int = 0
    last_error: KieCoverError | None = None
    due: float = inf
    rest: float = 0.0
    asked: float = inf
    _born: float = inf
    _failures: int = 0
    _unreadable: int = 0
    _bare_since: float | None = None

    def age(self, now: float) -> float:
        """Seconds since the job was created, as far as anybody could tell."""
        return now - min(self._born, self.started)

    @property
    def deadline(self) -> float:
        """When time is up."""
        return inf if self.terms.timeout is None else self.started + self.terms.timeout

    @property
    def heard_past_deadline(self) -> bool:
        """Whether the latest answer is to a look that left when time was up."""
        return self.deadline <= self.asked < inf

    @property
    def hurry_at(self) -> float:
        """From when a look is not to stay in a queue, or time would be up."""
        return self.deadline - min(_HURRY, _HURRY_SHARE * (self.terms.timeout or 0.0))

    def hear(self, heard: Heard, now: float, pressure: float) -> Outcome | None:
        """What the wait ends with, or `None`: then it goes on, and `due` is set anew."""
        self.looks += 1
        if isinstance(heard, Sighting):
            return self._saw(heard, now, pressure)
        return self._missed(heard, now, pressure)

    def begin_with_rest(self, now: float) -> None:
        """Plan the first look for when the callback should have come."""
        self._look_in(self.rest, now)

    def timed_out(self, now: float) -> CoverTimeoutError:
        """The error for a wait whose time is up."""
        error = CoverTimeoutError(
            task_id=self.task_id, looks=self.looks, waited=now - self.started, details=self.details
        )
        error.__cause__ = self.last_error
        return error

    def _saw(self, sighting: Sighting, now: float, pressure: float) -> Outcome | None:
        details = self.details = sighting.details
        self._failures = self._unreadable = 0
        self.last_error = None
        self._note_age(sighting)
        if details.state.is_failure:
            return CoverFailedError(task_id=self.task_id, details=details)
        if details.is_success:
            return details
        if details.state is CoverState.SUCCESS:
            return self._without_images(details, now)
        self._bare_since = None
        self._look_in(self._interval(now, pressure), now)
        return None

    def _without_images(self, details: CoverDetails, now: float) -> Outcome | None:
        if self._bare_since is None:
            self._bare_since = now
        if self._asked(now) - self._bare_since >= _IMAGES_GRACE:
            return CoverFailedError(task_id=self.task_id, details=details)
        self._look_in(_IMAGES_INTERVAL, now)
        return None

    def _missed(self, error: KieCoverError, now: float, pressure: float) -> Outcome | None:
        self._unreadable = self._unreadable + 1 if isinstance(error, InvalidResponseError) else 0
        missing = isinstance(error, TaskNotFoundError)
        self.last_error = error
        if missing and self.details is None:
            self._failures = 0
            self._look_in(self._interval(now, pressure), now)
            is_over = self._asked(now) - self.started >= self.terms.not_found_grace
            return error if is_over else None
        # A record that was seen is there: an answer without it is a fault of the moment.
        if self._unreadable >= _MOST_UNREADABLE or not (error.transient or missing):
            return error
        self._look_in(self._pause(error), now, failed=True)
        return None

    def _asked(self, now: float) -> float:
        """Return when the look left whose answer is heard now."""
        # One that was joined in flight left before this wait began.
        return max(self.started, min(self.asked, now))

    def _pause(self, error: KieCoverError) -> float:
        if isinstance(error, RateLimitedError):
            return 0.0  # it is the budget that waits, for all
        self._failures += 1
        return self.terms.retry.pause(self._failures)

    def _interval(self, now: float, pressure: float) -> float:
        interval = self.terms.schedule.delay(self.age(now), pressure)
        number("schedule.delay()", interval, at_least=0)
        return max(interval, self.rest)

    def _note_age(self, sighting: Sighting) -> None:
        # The server's clock shows whole seconds, so the largest age of all sightings is nearest.
        created, served = sighting.details.create_time, sighting.served_at
        if created is not None and served is not None and served - created <= _OLDEST:
            born = sighting.heard_at - (served - created).total_seconds()
            self._born = min(self._born, born)

    def _look_in(self, pause: float, now: float, *, failed: bool = False) -> None:
        """Plan the next look; a last one falls shortly before the deadline, until one succeeds."""
        last = self.deadline - min(_LAST_LOOK, _LAST_LOOK_SHARE * (self.terms.timeout or 0.0))
        due = now + pause
        if now < last:
            self.due = min(due, last)
        else:
            self.due = due if failed else inf
