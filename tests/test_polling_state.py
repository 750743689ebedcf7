from datetime import timedelta
from math import inf

import pytest
from support.scripted_polls import (
    BARE,
    COVER,
    FAILED,
    GENERATING,
    ID,
    NOT_FOUND,
    PENDING,
    RESET,
    UNAUTHORISED,
    UNHEARD_OF,
    UNREADABLE,
    ScriptedTransport,
    record,
    refused,
)

from kie_cover_async import RetryPolicy
from kie_cover_async.errors import (
    CoverFailedError,
    CoverTimeoutError,
    ForbiddenError,
    InvalidRequestError,
    MaintenanceError,
    ServerError,
)
from kie_cover_async.polling import WaitOptions
from kie_cover_async.polling.state import WaitState
from kie_cover_async.transport import Answer

NOON = ScriptedTransport.noon


class AgeSchedule:
    """Polls again after the age of the job, and notes its arguments."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, float]] = []

    def delay(self, age: float, pressure: float) -> float:
        self.asked.append((age, pressure))
        return age or 1.0


class CountedRetries(RetryPolicy):
    """Pauses for as many seconds as there were failures."""

    def pause(self, failures: int) -> float:
        return float(failures)


def begun(*, at=0.0, timeout=900.0, grace=90.0, schedule=None) -> WaitState:
    options = WaitOptions(
        timeout=timeout,
        not_found_grace=grace,
        schedule=schedule or AgeSchedule(),
        retry=CountedRetries(),
    )
    state = WaitState(ID, options, started=at)
    state.start_clock(at)
    return state


def seen(details, *, served=None, received_at=0.0) -> Answer:
    return Answer(details, served, received_at)


def created(seconds_before_noon: float):
    return record(2, create_time=NOON - timedelta(seconds=seconds_before_noon))


def apply_result(state: WaitState, result, now: float, pressure: float = 1.0):
    result = result if isinstance(result, (Answer, Exception)) else seen(result)
    return state.on_outcome(result, now, now, pressure, min_interval=0.0)


def test_a_terminal_record_ends_the_wait():
    """A success returns its record; a failure raises an error that has it."""
    assert apply_result(begun(), COVER, 0) is COVER
    failed = apply_result(begun(), FAILED, 0)
    assert isinstance(failed, CoverFailedError)
    assert (failed.task_id, failed.details) == (ID, FAILED)


@pytest.mark.parametrize("details", [PENDING, GENERATING, UNHEARD_OF, record(None)])
def test_an_unfinished_record_is_polled_again(details):
    """A record that is not terminal is polled again when the schedule says."""
    state = begun(at=10)
    assert apply_result(state, details, 17) is None
    assert (state.next_poll_at, state.polls, state.details) == (24, 1, details)


def test_without_a_creation_time_the_age_is_that_of_the_wait():
    """If its creation time is unknown, the job is as old as the wait."""
    state = begun(at=100)
    apply_result(state, GENERATING, 103)
    assert state.age(103) == 3
    assert state.age(107.5) == 7.5


def test_an_age_is_measured_by_the_servers_clock():
    """The age runs from the record's creation to the server's clock, then locally."""
    state = begun(at=100)
    apply_result(state, seen(created(80), served=NOON, received_at=101), 101.5)
    assert state.age(101) == 80
    assert state.age(111.5) == 90.5
    assert state.options.schedule.asked == [(80.5, 1)]


def test_the_largest_age_counts():
    """The server's clock has whole seconds, so the largest measured age is nearest."""
    state = begun()
    for received_at, second in ((0.9, 0), (2.1, 2), (3.8, 3)):
        apply_result(
            state,
            seen(created(80), served=NOON + timedelta(seconds=second), received_at=received_at),
            4,
        )
    assert state.age(2.1) == pytest.approx(82)


@pytest.mark.parametrize(
    "poll_result",
    [
        seen(created(80), served=None),
        seen(GENERATING, served=NOON),
        seen(created(-3600), served=NOON),
        seen(created(61 * 86400), served=NOON),
    ],
    ids=["no clock", "no creation", "created in an hour", "created 61 days ago"],
)
def test_an_implausible_age_is_ignored(poll_result):
    """With missing or absurd times, the job is as old as the wait."""
    state = begun(at=-5)
    assert apply_result(state, poll_result, 2) is None
    assert state.age(2) == 7


def test_an_age_is_never_less_than_the_wait():
    """A job whose record is younger than the wait is as old as the wait."""
    state = begun()
    apply_result(state, seen(created(3), served=NOON, received_at=60), 60)
    assert state.age(60) == 60


def test_the_schedule_gets_the_pressure():
    """The schedule gets the pressure of the rate limiter."""
    state = begun()
    apply_result(state, GENERATING, 2, pressure=3.5)
    assert state.options.schedule.asked == [(2, 3.5)]


@pytest.mark.parametrize(
    ("timeout", "last"), [(900.0, 899.0), (10.0, 9.0), (5.0, 4.5), (0.1, 0.09)]
)
def test_the_last_poll_is_shortly_before_the_deadline(timeout, last):
    """The last poll is a second, or a tenth of a short timeout, before the deadline."""
    state = begun(timeout=timeout)
    apply_result(state, GENERATING, 0.9 * last)
    assert state.next_poll_at == pytest.approx(last)
    for details in (GENERATING, UNHEARD_OF, BARE):
        apply_result(state, details, last)
        assert state.next_poll_at == inf


def test_a_missing_record_at_the_last_poll_ends_polling():
    """If the record is missing at the last poll, there is no other poll."""
    state = begun(timeout=10)
    assert apply_result(state, NOT_FOUND, 9) is None
    assert state.next_poll_at == inf


def test_a_failed_last_poll_is_repeated():
    """A last poll that fails is repeated, because it gave no state."""
    state = begun(timeout=10)
    apply_result(state, RESET, 9)
    apply_result(state, refused(1), 9.5)
    assert state.next_poll_at == 9.5


def test_without_a_timeout_the_schedule_alone_decides():
    """Without a timeout there is no deadline and no last poll."""
    state = begun(timeout=None)
    apply_result(state, GENERATING, 1e6)
    assert (state.deadline, state.next_poll_at) == (inf, 2e6)


PASSING = [
    RESET,
    UNREADABLE,
    refused(1),
    MaintenanceError(code=455),
    ServerError(code=500),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_transient_errors_do_not_end_a_wait(error):
    """A transient error is only the cause of a later timeout error."""
    state = begun()
    assert apply_result(state, error, 5) is None
    assert state.timed_out(6).__cause__ is error


@pytest.mark.parametrize(
    "error", [UNAUTHORISED, ForbiddenError(code=403), InvalidRequestError(code=422)], ids=type
)
def test_permanent_errors_end_a_wait(error):
    """An error that no retry can fix ends a wait, even after a good poll."""
    assert apply_result(begun(), error, 0) is error
    state = begun()
    apply_result(state, GENERATING, 0)
    assert apply_result(state, error, 5) is error


def test_failures_in_a_row_follow_the_retry_policy():
    """Failures in a row are retried at the policy's pace; a good poll ends the streak."""
    state = begun()
    dues = []
    for heard in (RESET, RESET, UNREADABLE, GENERATING, RESET):
        apply_result(state, heard, 100)
        dues.append(state.next_poll_at - 100)
    assert dues == [1, 2, 3, 100, 1]


def test_a_refusal_has_no_pause_of_its_own():
    """After a refusal only the rate limiter pauses; no failure is counted."""
    state = begun()
    for _ in range(5):
        apply_result(state, refused(7), 100)
        assert state.next_poll_at == 100
    apply_result(state, RESET, 100)
    assert state.next_poll_at == 101


def test_ten_unreadable_answers_in_a_row_end_a_wait():
    """The error is that of the last one."""
    state = begun()
    assert [apply_result(state, UNREADABLE, 0) for _ in range(9)] == [None] * 9
    assert apply_result(state, UNREADABLE, 0) is UNREADABLE


@pytest.mark.parametrize("between", [GENERATING, RESET, refused(1)], ids=["seen", "reset", "429"])
def test_any_other_answer_restarts_the_count_of_unreadable_ones(between):
    """After any other answer, the count restarts."""
    state = begun()
    for heard in [*[UNREADABLE] * 9, between, *[UNREADABLE] * 9]:
        assert apply_result(state, heard, 0) is None
    assert apply_result(state, UNREADABLE, 0) is UNREADABLE


def test_a_missing_record_within_the_grace_is_polled_again():
    """No record within the grace means "not yet"."""
    state = begun(at=10)
    assert apply_result(state, NOT_FOUND, 50) is None
    assert state.next_poll_at == 90
    assert apply_result(state, NOT_FOUND, 99.999) is None
    assert apply_result(state, NOT_FOUND, 100) is NOT_FOUND


def test_without_a_grace_a_missing_record_ends_the_wait():
    """Without a grace, the first missing record ends the wait."""
    assert apply_result(begun(grace=0), NOT_FOUND, 0) is NOT_FOUND


def test_a_record_that_disappears_is_a_transient_error():
    """Once a record was seen, an answer without it is a transient error."""
    state = begun(grace=0)
    apply_result(state, GENERATING, 0)
    assert [apply_result(state, NOT_FOUND, now) for now in (1, 100, 800)] == [None] * 3
    assert state.next_poll_at == 803


def test_an_answer_ends_a_failing_streak():
    """An answer without a record ends a streak of failures, too."""
    state = begun()
    for heard in (RESET, RESET, NOT_FOUND, RESET):
        apply_result(state, heard, 10)
    assert state.next_poll_at == 11


def test_success_without_images_fails_after_ten_seconds():
    """It is polled every second for ten seconds, and is then a failure."""
    state = begun()
    for now in range(20, 30):
        assert apply_result(state, BARE, now) is None
        assert state.next_poll_at == now + 1
    failed = apply_result(state, BARE, 30)
    assert isinstance(failed, CoverFailedError)
    assert failed.details is BARE


def test_images_within_ten_seconds_are_a_success():
    """Images within the ten seconds make it a success."""
    state = begun()
    apply_result(state, BARE, 20)
    assert apply_result(state, COVER, 29) is COVER


def test_a_withdrawn_success_restarts_the_ten_seconds():
    """The ten seconds restart if the record returns to an earlier state."""
    state = begun()
    for now, details in ((20, BARE), (25, GENERATING), (31, BARE), (40, BARE)):
        assert apply_result(state, details, now) is None


@pytest.mark.parametrize(
    ("interval", "error"),
    [
        (float("nan"), ValueError),
        (inf, ValueError),
        (-1, ValueError),
        ("5", TypeError),
        (None, TypeError),
    ],
)
def test_an_invalid_interval_is_an_error(interval, error):
    """An interval that is not a number of seconds is an error that shows it."""

    class Nonsense:
        def delay(self, age: float, pressure: float) -> float:
            return interval

    with pytest.raises(error, match=r"schedule.delay\(\) must be a finite number of at least 0"):
        apply_result(begun(schedule=Nonsense()), GENERATING, 0)


def test_a_timeout_error_has_time_polls_and_last_state():
    """It has the time waited, the number of polls and the last state."""
    state = begun(at=100)
    for heard in (RESET, NOT_FOUND, GENERATING):
        apply_result(state, heard, 110)
    error = state.timed_out(1000)
    assert isinstance(error, CoverTimeoutError)
    assert isinstance(error, TimeoutError)
    assert (error.task_id, error.polls, error.waited, error.details) == (ID, 3, 900, GENERATING)
    assert error.__cause__ is None
    assert "last seen GENERATING" in str(error)


def test_a_timeout_error_without_results_has_its_cause():
    """Without any result there are no details, and the last error is the cause."""
    state = begun()
    apply_result(state, RESET, 0)
    apply_result(state, NOT_FOUND, 0)
    error = state.timed_out(5)
    assert error.details is None
    assert error.__cause__ is NOT_FOUND
    assert "last seen nothing" in str(error)


def test_the_timeout_error_names_an_unknown_flag():
    """An undocumented flag is named, so that it can be reported."""
    state = begun()
    apply_result(state, UNHEARD_OF, 0)
    assert "an unknown flag 17" in str(state.timed_out(5))
