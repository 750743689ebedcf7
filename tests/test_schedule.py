import copy
from itertools import islice, pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pickling import pickled

from kie_cover_async import ExponentialSchedule, Schedule
from kie_cover_async.schedule import LearningSchedule, exponential

EXACT = ExponentialSchedule(jitter=0)


def ages(schedule, eventually):
    """When a wait that begins with the job polls, by the job's age."""
    seen = [0.0]
    while seen[-1] < eventually:
        seen.append(seen[-1] + schedule.delay(seen[-1], 1))
    return seen


# What comes of backoff's generator, whichever of the two distributions is installed.


def test_the_series_begins_with_its_first_value():
    """The value that primes backoff's generator is not part of the series."""
    assert list(islice(exponential(2, 1.5, 15), 8)) == [2, 3, 4.5, 6.75, 10.125, 15, 15, 15]


@pytest.mark.parametrize(
    ("first", "factor", "longest", "series"),
    [
        (0.5, 2, 20, [0.5, 1, 2, 4, 8, 16, 20, 20]),
        (3, 1, 15, [3] * 8),
        (20, 2, 15, [15] * 8),
        (15, 2, 15, [15] * 8),
        (2, 1e300, 15, [2] + [15] * 7),
    ],
)
def test_the_series_never_exceeds_its_maximum(first, factor, longest, series):
    """The series grows up to the maximum and stays there forever."""
    values = exponential(first, factor, longest)
    assert list(islice(values, 8)) == pytest.approx(series, rel=1e-12)
    assert max(islice(values, 400)) <= longest


# When the default schedule polls.


def test_default_polls_of_a_new_job():
    """A wait polls after 2 s, 3 s, 4.5 s, and then every 6 s."""
    assert ages(EXACT, 39) == [0, 2, 5, 9.5, 15.5, 21.5, 27.5, 33.5, 39.5]


@pytest.mark.parametrize(
    ("age", "interval"),
    [
        (-5, 2),
        (0, 2),
        (0.99, 2),
        (1, 3),
        (2, 3),
        (3.49, 3),
        (3.5, 4.5),
        (5, 4.5),
        (7.24, 4.5),
        (7.25, 6),
        (9.5, 6),
        (80, 6),
        (86400, 6),
        (1e300, 6),
    ],
)
def test_the_interval_depends_on_the_age(age, interval):
    """Each interval applies from halfway before its planned poll."""
    assert EXACT.delay(age, 1) == interval


def test_a_resumed_wait_uses_the_long_interval():
    """A wait that is resumed at 80 s does not start at two seconds again."""
    assert EXACT.delay(80, 1) == 6


def test_longer_intervals_start_halfway_too():
    """With a greater maximum, each further interval has its range of ages."""
    schedule = ExponentialSchedule(max_delay=15, jitter=0)
    planned = [0, 2, 5, 9.5, 16.25, 26.375, 41.375, 56.375, 71.375]
    assert ages(schedule, 70) == planned
    delays = [schedule.delay(age, 1) for age in (12.8, 12.9, 16.25, 21.3, 21.4, 26.375, 80)]
    assert delays == [6.75, 10.125, 10.125, 10.125, 15, 15, 15]


@pytest.mark.parametrize(
    ("age", "pressure", "interval"),
    [(0, 1, 2), (0, 1.5, 3), (0, 4, 8), (2, 4, 12), (80, 4, 24), (80, 5, 30), (80, 6, 30)],
)
def test_pressure_stretches_the_intervals_in_proportion(age, pressure, interval):
    """An interval is multiplied by the pressure of the rate limiter, up to 30 s."""
    assert EXACT.delay(age, pressure) == interval
    assert EXACT.delay(age) == EXACT.delay(age, 1)


@pytest.mark.parametrize("pressure", [1, 1.5, 1000])
def test_pressure_does_not_change_intervals_above_30_s(pressure):
    """An interval that is longer than 30 s is neither shortened nor stretched."""
    schedule = ExponentialSchedule(initial_delay=40, max_delay=60, jitter=0)
    assert schedule.delay(80, pressure) == 60
    assert schedule.delay(0, pressure) == min(40 * pressure, 60)


@pytest.mark.parametrize(
    ("pressure", "shortest", "longest"), [(2, 10.8, 12), (4, 21.6, 24), (1000, 27, 30)]
)
def test_stretched_intervals_have_jitter(pressure, shortest, longest):
    """Stretched intervals are spread, too, up to the stretched maximum."""
    delays = [ExponentialSchedule().delay(80, pressure) for _ in range(400)]
    assert shortest <= min(delays) < shortest * 1.05
    assert longest / 1.05 < max(delays) <= longest


def test_a_factor_of_one_is_a_constant_interval():
    """With a factor of 1, the interval is the same at any age."""
    schedule = ExponentialSchedule(initial_delay=5, factor=1, jitter=0)
    assert {schedule.delay(age, 1) for age in (0, 1, 5, 80, 1e6)} == {5}


def test_the_maximum_bounds_the_initial_delay():
    """The maximum also bounds the initial delay."""
    assert ExponentialSchedule(max_delay=0.5, jitter=0).delay(0, 1) == 0.5


def test_slow_growth_stops_at_some_interval():
    """A series that would take days to reach its maximum stops growing."""
    schedule = ExponentialSchedule(initial_delay=1, factor=1.00001, max_delay=15, jitter=0)
    last = schedule.delay(1e9, 1)
    assert last == pytest.approx(1.00001**10_000)
    assert schedule.delay(1e12, 1) == last
    assert 1 <= schedule.delay(100, 1) < schedule.delay(5000, 1) < last


def test_fast_growth_reaches_its_maximum_immediately():
    """A huge factor gives two intervals, and no error."""
    schedule = ExponentialSchedule(factor=1e300, jitter=0)
    assert [schedule.delay(age, 1) for age in (0, 2, 80)] == [2, 6, 6]


@pytest.mark.parametrize(
    "settings",
    [
        {"initial_delay": 0.5, "max_delay": 1e308},
        {"initial_delay": 1, "factor": 2, "max_delay": 1e308},
        {"initial_delay": 1e-300, "factor": 1e200},
        {"initial_delay": 1e308, "factor": 1e308, "max_delay": 1e308},
    ],
)
def test_growth_beyond_all_floats_ends_at_the_maximum(settings):
    """Every accepted setting gives an interval that can be computed."""
    schedule = ExponentialSchedule(**settings, jitter=0)
    assert all(0 < schedule.delay(age, 1) <= schedule.max_delay for age in (0, 1, 1e300, 1e308))
    assert schedule._intervals[-1] == schedule.max_delay


# Jitter.


@pytest.mark.parametrize(
    ("age", "shortest", "longest"),
    [(0, 1.8, 2.2), (2, 2.7, 3.3), (5, 4.05, 4.95), (9.5, 5.4, 6), (80, 5.4, 6)],
)
def test_jitter_spreads_intervals_within_the_maximum(age, shortest, longest):
    """Intervals are spread by a tenth to both sides, but never above the maximum."""
    schedule = ExponentialSchedule()
    delays = [schedule.delay(age, 1) for _ in range(400)]
    assert shortest <= min(delays) < shortest * 1.05
    assert longest / 1.05 < max(delays) <= longest


def test_jittered_polls_keep_the_planned_intervals():
    """A poll that is a little early or late is followed by its planned interval."""
    for _ in range(50):
        gaps = [late - early for early, late in pairwise(ages(ExponentialSchedule(), 12))]
        assert gaps[:4] == pytest.approx([2, 3, 4.5, 6], rel=0.1001)


def test_without_jitter_a_delay_is_exact():
    """Without jitter a delay is exact."""
    assert {EXACT.delay(0, 1) for _ in range(50)} == {2.0}


SETTINGS = st.fixed_dictionaries(
    {
        "initial_delay": st.floats(1e-3, 1e3),
        "factor": st.floats(1, 1e3),
        "max_delay": st.floats(1e-3, 1e3),
        "jitter": st.floats(0, 0.99),
    }
)


@given(SETTINGS, st.floats(-1e6, 1e6), st.floats(1, 1e3))
def test_no_interval_leaves_its_bounds(settings, age, pressure):
    """For any settings and age the delay is within the jitter, and never above the maximum.

    Under pressure it is not shorter, and at most 30 s or the maximum.
    """
    schedule = ExponentialSchedule(**settings)
    max_delay = settings["max_delay"]
    shortest = min(settings["initial_delay"], max_delay) * (1 - settings["jitter"])
    assert shortest * 0.999 <= schedule.delay(age, 1) <= max_delay
    longest = min(max_delay * pressure, max(max_delay, 30))
    assert shortest * 0.999 <= schedule.delay(age, pressure) <= longest


# The earliest second poll.


@pytest.mark.parametrize(
    ("age", "delay"), [(0, 47), (10, 37), (41, 6), (44, 6), (47, 6), (80, 6), (-3, 47)]
)
def test_not_before_delays_the_second_poll(age, delay):
    """Only the first poll is made before that age; then the intervals are as usual."""
    assert ExponentialSchedule(jitter=0, not_before=47).delay(age, 1) == delay


def test_jitter_does_not_undercut_not_before():
    """Jitter never makes a poll earlier than `not_before`."""
    schedule = ExponentialSchedule(jitter=0.9, not_before=47)
    assert all(age + schedule.delay(age, 1) >= 47 for age in range(47) for _ in range(20))


# As a value.


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("initial_delay", 0, ValueError),
        ("initial_delay", -1, ValueError),
        ("initial_delay", float("nan"), ValueError),
        ("initial_delay", "2", TypeError),
        ("factor", 0.99, ValueError),
        ("factor", None, TypeError),
        ("factor", float("inf"), ValueError),
        ("max_delay", 0, ValueError),
        ("max_delay", 10**400, ValueError),
        ("max_delay", True, TypeError),
        ("jitter", -0.1, ValueError),
        ("jitter", 1, ValueError),
        ("jitter", None, TypeError),
        ("not_before", -1, ValueError),
        ("not_before", "47", TypeError),
    ],
)
def test_a_bad_setting_is_named(name, value, error):
    """The error for an invalid setting names it and says what is accepted."""
    with pytest.raises(error, match=f"^{name} must be a finite number (above|of at least) [01]"):
        ExponentialSchedule(**{name: value})


def test_settings_are_keyword_only():
    """No setting is positional."""
    with pytest.raises(TypeError, match="positional"):
        ExponentialSchedule(2.0)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
def test_a_schedule_is_a_value(used, again):
    """A schedule equals its copies, can be a key, and is immutable."""
    schedule = ExponentialSchedule(initial_delay=3, jitter=0)
    if used:
        schedule.delay(0, 1)
    other = again(schedule)
    assert other == schedule
    assert hash(other) == hash(schedule)
    assert other.delay(0, 1) == 3
    assert attrs.evolve(schedule, initial_delay=4).delay(0, 1) == 4
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        schedule.initial_delay = 4


class Listening:
    def delay(self, age, pressure):
        return 1.0

    def learn(self, details):
        self.heard = details


def test_schedules_match_their_protocols():
    """A schedule has `delay`; a learning schedule also has `learn`."""
    assert isinstance(EXACT, Schedule)
    assert not isinstance(EXACT, LearningSchedule)
    listening = Listening()
    assert isinstance(listening, Schedule)
    assert isinstance(listening, LearningSchedule)
    listening.learn("all there is")
    assert (listening.delay(0, 1), listening.heard) == (1.0, "all there is")
