import asyncio
import copy
import json
import random
import runpy
from datetime import timedelta
from itertools import pairwise
from math import inf, log, nan
from pathlib import Path
from statistics import fmean

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pickling import pickled
from support.scripted_polls import COVER, GENERATING, FakeTransport, ScriptedTransport, coalescer_of
from support.virtual_time import now

from kie_cover_async import AdaptiveSchedule, ExponentialSchedule, RateLimiter, Schedule
from kie_cover_async.emulator import CoverEmulator
from kie_cover_async.polling import WaitOptions
from kie_cover_async.polling.task_watch import TaskWatch
from kie_cover_async.polling.waiter import Waiter
from kie_cover_async.retry import RetryPolicy
from kie_cover_async.schedule import LearningSchedule

NOON = ScriptedTransport.noon


def ended(taken: float, created=NOON):
    """The record of a cover that took so many seconds."""
    complete = created + timedelta(seconds=taken)
    return attrs.evolve(COVER, create_time=created, complete_time=complete)


def trained(*durations: float, jitter=0.0, **settings) -> AdaptiveSchedule:
    schedule = AdaptiveSchedule(jitter=jitter, **settings)
    for taken in durations:
        schedule.learn(ended(taken))
    return schedule


def ages(schedule, until):
    """When a wait that begins with the job polls, by the job's age; the last is past `until`."""
    seen = [0.0]
    while seen[-1] < until:
        seen.append(seen[-1] + schedule.delay(seen[-1], 1))
    return seen


def polls_between(schedule, young, old):
    return sum(young <= age < old for age in ages(schedule, old))


def lag(schedule, taken):
    """Seconds from the end of a cover that took so long to the poll that sees it."""
    return ages(schedule, taken)[-1] - taken


# What it knows, and where it therefore polls.


def test_an_untrained_schedule_uses_the_prior():
    """Before it has learned, it polls most often when most covers are expected to end."""
    schedule = AdaptiveSchedule(jitter=0)
    assert [polls_between(schedule, age, age + 20) for age in (1, 30, 130)] == [1, 4, 3]


def test_equal_durations_are_found_with_few_polls():
    """If every cover takes 47 s, the end is seen soon with few polls."""
    schedule = trained(*[47] * 400)
    assert lag(schedule, 47) < 0.5
    assert lag(schedule, 47.4) < 0.5
    assert len(ages(schedule, 47.4)) <= 6
    assert polls_between(schedule, 48, 88) <= 7


def test_few_polls_are_made_between_two_known_durations():
    """Between two known durations it polls as rarely as possible."""
    schedule = trained(*[30, 120] * 200)
    assert lag(schedule, 30.1) < 1
    assert lag(schedule, 120.1) < 0.5
    assert {schedule.delay(age) for age in range(32, 105)} == {15}


def test_equal_times_are_one_short_block():
    """Many equal times form one short block, which later times do not lengthen."""
    for count in (20, 50, 200):
        schedule = trained(*[30] * count, *[120] * count)
        assert schedule.delay(30.01) < schedule.delay(32) / 3


def test_covers_faster_than_any_before_are_noticed():
    """It also polls at ages at which no cover has ended yet."""
    schedule = trained(*[60] * 400, max_delay=1000)
    assert lag(schedule, 5) < 45
    for _ in range(400):
        schedule.learn(ended(5))
    assert lag(schedule, 5) < 0.5


def test_intervals_grow_beyond_the_longest_known_time():
    """Beyond all known times, intervals grow with the age, up to the maximum."""
    schedule = trained(*range(20, 60), max_delay=30)
    delays = [schedule.delay(age, 1) for age in (146.1, 300, 600, 900, 1400, 5e6, 1e300)]
    assert delays == pytest.approx([9.51, 13.57, 19.12, 23.39, 29.13, 30, 30], abs=0.01)


@pytest.mark.parametrize("age", [-1e300, -5, -0.0])
def test_a_negative_age_is_zero(age):
    """A job from the future counts as new."""
    schedule = trained(*[60] * 400, max_delay=1000)
    assert schedule.delay(age) == schedule.delay(0) == pytest.approx(44.9, abs=0.1)


def test_the_last_400_times_are_stored():
    """Older times are dropped."""
    schedule = trained(*[100.0] * 400, *[20.0] * 399)
    assert schedule.dump_state() == {"generation_times": [100.0] + [20.0] * 399}


@pytest.mark.parametrize(
    "details",
    [
        COVER,
        attrs.evolve(COVER, create_time=NOON),
        attrs.evolve(COVER, complete_time=NOON),
        ended(-0.001),
        ended(3600),
        ended(8 * 3600 + 47),
        ended(5e9),
    ],
)
def test_implausible_times_are_ignored(details):
    """Times that are missing, out of order or an hour apart are ignored."""
    schedule = AdaptiveSchedule()
    schedule.learn(details)
    assert schedule.dump_state() == {"generation_times": []}


@pytest.mark.parametrize("taken", [0, 0.25, 3599.999])
def test_plausible_times_are_recorded(taken):
    """Any duration from zero to an hour is recorded."""
    assert trained(taken).dump_state() == {"generation_times": [taken]}


def test_the_estimate_is_updated_every_twentieth():
    """With many known times, one more changes nothing; a twentieth more does."""
    schedule = AdaptiveSchedule(max_delay=60, jitter=0)
    schedule.load_state({"generation_times": [47] * 400})
    before = schedule.delay(20)
    for _ in range(19):
        schedule.learn(ended(21))
    assert schedule.delay(20) == before
    schedule.learn(ended(21))
    assert schedule.delay(20) < before


# What it costs.

DURATIONS = {
    "lognormal": lambda chance: chance.lognormvariate(log(47), 0.35),
    "uniform": lambda chance: chance.uniform(20, 150),
    "bimodal": lambda chance: chance.gauss(*chance.choice([(30, 3), (120, 12)])),
}


def lag_and_polls(schedule, durations):
    """Means for each cover."""
    lags, polls = [], []
    for taken in durations:
        *earlier, last = ages(schedule, taken)
        lags.append(last - taken)
        polls.append(len(earlier) + 1)
        if isinstance(schedule, LearningSchedule):
            schedule.learn(ended(taken))
    return fmean(lags[300:]), fmean(polls[300:])


@pytest.mark.parametrize(
    ("name", "max_delay", "poll_cost", "share"),
    [
        ("lognormal", 6, 0.185, 0.58),
        ("uniform", 6, 0.14, 0.72),
        ("bimodal", 6, 0.09, 0.40),
        ("lognormal", 15, 0.45, 0.36),
        ("uniform", 15, 0.48, 0.56),
        ("bimodal", 15, 0.34, 0.30),
    ],
)
def test_learning_saves_lag(name, max_delay, poll_cost, share):
    """With no more polls than an exponential schedule makes, covers are seen much sooner.

    The maximum of 6 s is the default one.
    """
    chance = random.Random(7)
    durations = [DURATIONS[name](chance) for _ in range(1500)]
    usual = ExponentialSchedule(max_delay=max_delay, jitter=0)
    usual_lag, usual_polls = lag_and_polls(usual, durations)
    own_lag, own_polls = lag_and_polls(AdaptiveSchedule(poll_cost=poll_cost, jitter=0), durations)
    assert own_polls <= usual_polls
    assert own_lag <= share * usual_lag


def test_jitter_costs_little_lag():
    """A jitter of a tenth costs little lag."""
    chance = random.Random(7)
    durations = [DURATIONS["lognormal"](chance) for _ in range(1500)]
    exact, _ = lag_and_polls(AdaptiveSchedule(jitter=0), durations)
    random.seed(7)  # the schedule draws from there
    jittered, _ = lag_and_polls(AdaptiveSchedule(), durations)
    assert jittered == pytest.approx(exact, rel=0.05)


# What bounds it.

SECONDS = st.floats(0, 3599)
HISTORIES = st.lists(SECONDS, max_size=60) | st.lists(st.sampled_from([30.0, 120.0]), max_size=420)
AGES = st.floats(-10, 400) | st.floats(allow_nan=False)
PRESSURES = st.floats(1, 1e3) | st.floats(min_value=1)


SETTINGS = st.fixed_dictionaries(
    {
        "poll_cost": st.floats(1e-9, 1e9),
        "min_delay": st.floats(1e-3, 1),
        "max_delay": st.floats(1, 1e3),
        "jitter": st.floats(0, 0.99),
    }
)


@given(HISTORIES, AGES, PRESSURES, SETTINGS)
def test_no_interval_leaves_its_bounds(history, age, pressure, settings):
    """For any state, age and setting, the delay is between minimum and maximum."""
    delay = trained(*history, **settings).delay(age, pressure)
    assert settings["min_delay"] <= delay <= settings["max_delay"]


@given(HISTORIES, AGES, PRESSURES, PRESSURES)
def test_pressure_never_shortens_an_interval(history, age, one, other):
    """More pressure never makes an interval shorter."""
    schedule = trained(*history, min_delay=1e-3, max_delay=1e6)
    calm, full = sorted([one, other])
    assert schedule.delay(age, calm) <= schedule.delay(age, full) * (1 + 1e-9)


def test_pressure_multiplies_the_poll_cost():
    """A pressure of four has the effect of four times the poll cost."""
    dear, cheap = (
        AdaptiveSchedule(poll_cost=1.2, jitter=0),
        AdaptiveSchedule(poll_cost=0.3, jitter=0),
    )
    for age in range(0, 300, 7):
        assert cheap.delay(age, 4.0) == pytest.approx(dear.delay(age))


def test_jitter_spreads_intervals_within_the_bounds():
    """Intervals are spread by a tenth to both sides, but never beyond their bounds."""
    schedule = AdaptiveSchedule()
    exact = AdaptiveSchedule(jitter=0).delay(40)
    delays = [schedule.delay(40) for _ in range(400)]
    assert exact * 0.9 <= min(delays) < exact * 0.92
    assert exact * 1.08 < max(delays) <= exact * 1.1
    assert len({AdaptiveSchedule(max_delay=4.0).delay(0) for _ in range(50)}) == 1
    assert len({AdaptiveSchedule(min_delay=8.0).delay(40) for _ in range(50)}) == 1


# What is saved and loaded.


@given(HISTORIES)
def test_state_is_saved_and_loaded(history):
    """The state survives JSON, and the other schedule polls at the same times."""
    teacher, pupil = trained(*history), trained(5.0, 6.0)
    pupil.load_state(json.loads(json.dumps(teacher.dump_state())))
    assert pupil.dump_state() == teacher.dump_state()
    fresh = AdaptiveSchedule(jitter=0)
    fresh.load_state(teacher.dump_state())
    assert [pupil.delay(age) for age in range(0, 200, 3)] == [
        fresh.delay(age) for age in range(0, 200, 3)
    ]


@given(st.lists(SECONDS, max_size=20))
def test_a_loaded_schedule_polls_like_the_saved_one(history):
    """A schedule with loaded state polls at the times of the saved one."""
    teacher, pupil = trained(*history), AdaptiveSchedule(jitter=0)
    pupil.load_state(teacher.dump_state())
    assert [pupil.delay(age) for age in range(0, 200, 3)] == [
        teacher.delay(age) for age in range(0, 200, 3)
    ]


def test_the_state_is_a_copy():
    """Changing the saved or the loaded dict changes no schedule."""
    schedule = trained(47.0)
    saved = schedule.dump_state()
    saved["generation_times"].append(1.0)
    assert schedule.dump_state() == {"generation_times": [47.0]}
    schedule.load_state(saved)
    saved["generation_times"].append(2.0)
    schedule.learn(ended(3.0))
    assert schedule.dump_state() == {"generation_times": [47.0, 1.0, 3.0]}


def test_loading_keeps_the_latest_400_times():
    """Of too many times the latest are kept; an empty list resets the schedule."""
    schedule = trained(47.0)
    schedule.load_state({"generation_times": list(range(500)), "more": "of a later version"})
    assert schedule.dump_state() == {"generation_times": list(range(100, 500))}
    schedule.load_state({"generation_times": []})
    assert schedule.delay(20) == AdaptiveSchedule(jitter=0).delay(20)


TIMES = r'state\["generation_times"\]'


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (None, TypeError, "state must be a mapping, not None"),
        ([47.0], TypeError, r"state must be a mapping, not \[47.0\]"),
        ({}, TypeError, f"{TIMES} must be a list of seconds, not None"),
        ({"generation_times": "47"}, TypeError, f"{TIMES} must be a list of seconds, not '47'"),
        ({"generation_times": 47}, TypeError, f"{TIMES} must be a list of seconds, not 47"),
        ({"generation_times": [1, "2"]}, TypeError, rf"{TIMES}\[1\] must be .* not '2'"),
        ({"generation_times": [True]}, TypeError, rf"{TIMES}\[0\] must be .* not True"),
        ({"generation_times": [None]}, TypeError, rf"{TIMES}\[0\] must be .* not None"),
        ({"generation_times": [1, 2, -1]}, ValueError, rf"{TIMES}\[2\] must be .* not -1"),
        ({"generation_times": [3600.0]}, ValueError, rf"{TIMES}\[0\] must be .* not 3600.0"),
        ({"generation_times": [nan]}, ValueError, rf"{TIMES}\[0\] must be .* not nan"),
        ({"generation_times": [inf]}, ValueError, rf"{TIMES}\[0\] must be .* not inf"),
        ({"generation_times": [10**400]}, ValueError, rf"{TIMES}\[0\] must be"),
    ],
)
def test_invalid_state_is_rejected(state, error, message):
    """A state of another form is rejected; the error says what is wrong and where."""
    schedule = trained(47.0)
    with pytest.raises(error, match=f"^{message}"):
        schedule.load_state(state)
    assert schedule.dump_state() == {"generation_times": [47.0]}


# As an object.


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("poll_cost", 0, ValueError),
        ("poll_cost", nan, ValueError),
        ("poll_cost", "0.3", TypeError),
        ("min_delay", 0, ValueError),
        ("min_delay", None, TypeError),
        ("max_delay", 0, ValueError),
        ("max_delay", inf, ValueError),
        ("max_delay", True, TypeError),
        ("jitter", -0.1, ValueError),
        ("jitter", 1, ValueError),
    ],
)
def test_a_bad_setting_is_named(name, value, error):
    """The error for an invalid setting names it and says what is accepted."""
    with pytest.raises(error, match=f"^{name} must be a finite number (above|of at least) 0"):
        AdaptiveSchedule(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_delay": 20}, "max_delay must be at least min_delay, which is 20, not 15.0"),
        ({"max_delay": 0.1}, "max_delay must be at least min_delay, which is 0.25, not 0.1"),
    ],
)
def test_bounds_in_the_wrong_order_are_named(settings, message):
    """A maximum below the minimum is rejected, even if one is the default."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        AdaptiveSchedule(**settings)
    assert AdaptiveSchedule(min_delay=15).delay(0) == 15


def test_the_repr_shows_only_settings():
    """The repr shows the settings, and not the recorded times."""
    text = "AdaptiveSchedule(poll_cost=0.3, min_delay=0.25, max_delay=15.0, jitter=0.1)"
    assert repr(trained(47.0, jitter=0.1)) == text


@pytest.mark.parametrize("again", [copy.deepcopy, pickled])
def test_a_copy_has_the_same_times(again):
    """A copy has the recorded times, and learns separately from then on."""
    schedule = trained(*range(30, 60))
    other = again(schedule)
    assert other.delay(40) == schedule.delay(40)
    other.learn(ended(47.0))
    assert len(other.dump_state()["generation_times"]) == 31
    assert len(schedule.dump_state()["generation_times"]) == 30


def test_it_is_a_learning_schedule():
    """It is a schedule, and it learns."""
    schedule = AdaptiveSchedule()
    assert isinstance(schedule, Schedule)
    assert isinstance(schedule, LearningSchedule)


# Under a busy rate limiter.


class FixedInterval:
    """Polls again after as many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def delay(self, age: float, pressure: float) -> float:
        return self.seconds


class IgnoringPressure:
    """Another schedule, as it would be without any pressure."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def delay(self, age: float, pressure: float) -> float:
        return self.schedule.delay(age, 1.0)


class SimulatedCovers:
    """Two new covers and at most ten polls a second, all waited for concurrently."""

    def __init__(self, schedule, count: int = 300) -> None:
        chance = random.Random(3)
        self.lives = [(place / 2, DURATIONS["lognormal"](chance)) for place in range(count)]
        self.options = WaitOptions(
            timeout=None, not_found_grace=90, schedule=schedule, retry=RetryPolicy()
        )
        self.api = FakeTransport(self.answer, RateLimiter(10))
        self.shared = coalescer_of(self.api)
        self.lags: list[float] = []

    @property
    def sent(self) -> list[float]:
        return self.api.slots

    @property
    def queued(self) -> list[float]:
        return self.api.queued

    async def answer(self, task_id):
        created, taken = self.lives[int(task_id)]
        created += self.began
        create_time = NOON + timedelta(seconds=created)
        details = attrs.evolve(GENERATING, create_time=create_time)
        if now() >= created + taken:
            details = ended(taken, create_time)
        return details, NOON + timedelta(seconds=int(now()))

    async def wait(self, place: int) -> None:
        await asyncio.sleep(self.lives[place][0])
        watch = TaskWatch(self.shared, None, str(place))
        await Waiter(self.api, watch, self.options, expects_callback=False).run()
        self.lags.append(now() - self.began - sum(self.lives[place]))

    async def mean_lag(self) -> float:
        self.began = now()
        await asyncio.gather(*map(self.wait, range(len(self.lives))))
        return fmean(self.lags[len(self.lags) // 4 :])


def trained_schedule():
    chance = random.Random(4)
    return trained(*[DURATIONS["lognormal"](chance) for _ in range(400)], max_delay=60.0)


@pytest.mark.virtual_time
async def test_at_the_vendors_limits_it_beats_fixed_intervals():
    """At the vendor's limits its lag is a third less than that of any fixed interval."""
    covers = SimulatedCovers(trained_schedule())
    fixed = [await SimulatedCovers(FixedInterval(seconds)).mean_lag() for seconds in (11, 12.5, 14)]
    assert await covers.mean_lag() <= 0.65 * min(fixed)
    assert all(late - early > 0.0999 for early, late in pairwise(covers.sent))


@pytest.mark.virtual_time
async def test_pressure_keeps_the_queue_short():
    """Under pressure there are fewer polls, so that the queue stays short."""
    covers, other = (
        SimulatedCovers(trained_schedule()),
        SimulatedCovers(IgnoringPressure(trained_schedule())),
    )
    lag, other_lag = await covers.mean_lag(), await other.mean_lag()
    assert lag < other_lag
    assert fmean(covers.queued) < 0.5 * fmean(other.queued)


@pytest.mark.virtual_time
async def test_finished_waits_are_learned():
    """Every finished wait records how long its cover took."""
    schedule = AdaptiveSchedule()
    covers = SimulatedCovers(schedule, count=20)
    await covers.mean_lag()
    durations = sorted(taken for _, taken in covers.lives)
    learned = sorted(schedule.dump_state()["generation_times"])
    assert learned == pytest.approx(durations, abs=1e-5)


# What the documentation shows.

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "remember_times.py"


async def test_the_example_restores_times_in_the_next_run(monkeypatch, tmp_path, capsys):
    """The example that stores times in a file restores those of earlier runs."""
    main = runpy.run_path(str(EXAMPLE))["main"]
    memory = tmp_path / "cover-times.json"
    async with CoverEmulator(generation_time=0.0) as emulator:
        monkeypatch.setenv("KIE_API_KEY", "example-key")
        monkeypatch.setenv("KIE_BASE_URL", emulator.url)
        for count in (1, 2):
            await asyncio.to_thread(main, emulator.add_job(), memory)
            known = json.loads(memory.read_text(encoding="utf-8"))
            assert len(known["generation_times"]) == count
    assert capsys.readouterr().out.count("http") == 4
