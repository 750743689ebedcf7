"""Which callbacks a job gets, and when, without sending any."""

from collections import Counter
from functools import partial
from math import inf, nan
from random import Random

import pytest
from attrs import asdict, evolve

from kie_cover_async.emulator import CallbackPlan, CoverEmulator
from kie_cover_async.emulator.callbacks import Course, Posting

SONGS = range(2000)
FORGED = Posting("forged", 0.0)


def courses(plan, seconds=10.0):
    return [plan.course(Random(f"a-seed/{song}"), seconds) for song in SONGS]


def kinds(course):
    return [posting.kind for posting in course.from_end]


def share(are_such):
    return sum(are_such) / len(SONGS)


about = partial(pytest.approx, abs=0.03)


def test_by_default_each_job_has_one_callback():
    """By default each job has one callback, at its end."""
    assert set(courses(CallbackPlan())) == {Course((), (Posting("genuine", 0.0),))}


def test_lost_callbacks_are_never_sent():
    """Lost callbacks are never sent, and nothing else changes."""
    plan = CallbackPlan(lost=0.2, delay=(0, 1))
    some, everything = courses(plan), courses(evolve(plan, lost=0.0))
    assert share(course.from_end == () for course in some) == about(0.2)
    assert all(
        course in {Course((), ()), whole} for course, whole in zip(some, everything, strict=True)
    )


def test_a_share_of_1_affects_every_job():
    """With a share of 1, every callback is lost."""
    assert set(courses(CallbackPlan(lost=1.0, duplicated=1.0))) == {Course((), ())}


def test_duplicated_callbacks_are_sent_twice():
    """A duplicated callback is sent again after `duplicate_after`."""
    duplicated = courses(CallbackPlan(duplicated=0.3, duplicate_after=(2, 4)))
    repeated = [course.from_end[1] for course in duplicated if len(course.from_end) == 2]
    assert len(repeated) / len(SONGS) == about(0.3)
    assert {again.kind for again in repeated} == {"repeated"}
    assert all(2 <= again.after <= 4 for again in repeated)


def test_late_callbacks_are_overtaken():
    """Late callbacks have an additional delay, so that others overtake them."""
    late = courses(CallbackPlan(delay=1, late=0.25, late_by=10))
    assert Counter(course.from_end[0].after for course in late).keys() == {1, 11}
    assert share(course.from_end[0].after == 11 for course in late) == about(0.25)


def test_a_delay_may_be_a_callable():
    """A delay may be drawn by a callable, from the job's own random numbers."""
    plan = CallbackPlan(delay=lambda dice: float(dice.randint(3, 4)))
    assert {course.from_end[0].after for course in courses(plan)} == {3.0, 4.0}


def test_wrong_signatures_are_permanent():
    """A callback with a wrong signature has it each time it is sent."""
    wrong = courses(CallbackPlan(wrong_signature=0.4, duplicated=1.0))
    seen = {tuple(kinds(course)) for course in wrong}
    assert seen == {("genuine", "repeated"), ("wrong-signature", "wrong-signature")}
    assert share("wrong-signature" in kinds(course) for course in wrong) == about(0.4)


def test_forged_callbacks_come_before_after_or_instead():
    """A forged callback comes before the end, after the genuine one, or instead of it."""
    forged = courses(CallbackPlan(forged=0.6, delay=5))
    before = [course for course in forged if course.from_creation]
    after = [course for course in forged if kinds(course) == ["genuine", "forged"]]
    instead = [course for course in forged if kinds(course) == ["forged"]]
    for each in (before, after, instead):
        assert len(each) / len(SONGS) == about(0.2)
    assert all(0 <= early.after <= 10 for course in before for early in course.from_creation)
    assert {early.kind for course in before for early in course.from_creation} == {"forged"}
    assert all(5 <= course.from_end[1].after <= 6 for course in after)
    assert {course.from_end for course in instead} == {(Posting("forged", 5.0),)}


def test_shares_are_independent():
    """Which jobs one share affects does not depend on the others."""
    plan = CallbackPlan(lost=0.2)
    lost = [not kinds(course) for course in courses(plan)]
    more = courses(evolve(plan, duplicated=0.5, late=0.5, wrong_signature=0.5, delay=(1, 2)))
    assert [not kinds(course) for course in more] == lost


def test_early_forgeries_of_jobs_that_end_by_polls():
    """If the end of a job is not known, its early forgery is sent immediately."""
    early = courses(CallbackPlan(forged=1.0), seconds=0.0)
    assert {course.from_creation for course in early} == {(), (FORGED,)}


SHARES = ("late", "lost", "duplicated", "wrong_signature", "forged")
SPANS = ("delay", "late_by", "duplicate_after")


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("value", [-0.1, 1.1, nan, inf])
def test_an_invalid_share_is_rejected(name, value):
    """A share is a number from 0 to 1; the error names the field and the value."""
    with pytest.raises(ValueError, match=f"{name} must be a share from 0 to 1, not {value!r}"):
        CallbackPlan(**{name: value})


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize("value", [-1, nan, inf, (2, 1), (-1, 1), (0, inf), (0, nan)])
def test_an_invalid_duration_is_rejected(name, value):
    """Durations are not negative, and ranges are ascending."""
    with pytest.raises(ValueError, match=rf"{name} must be seconds, a range .* that draws them"):
        CallbackPlan(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("response_timeout", 0, "a number of seconds above 0"),
        ("response_timeout", inf, "a number of seconds above 0"),
        ("retry_interval", -1, "a number of seconds, 0 or more"),
        ("max_attempts", 0, "a whole number of at least 1"),
    ],
)
def test_a_number_out_of_bounds_is_rejected(name, value, accepted):
    """Each number has its bounds, which the error states."""
    with pytest.raises(ValueError, match=f"{name} must be {accepted}, not {value!r}"):
        CallbackPlan(**{name: value})


@pytest.mark.parametrize("name", [*SHARES, *SPANS, "response_timeout", "retry_interval"])
@pytest.mark.parametrize("value", ["1", True, None, (1,), (1, 2, 3), ("1", 2)])
def test_a_value_of_another_type_is_a_type_error(name, value):
    """A value that is not a number raises `TypeError`."""
    with pytest.raises(TypeError, match=f"^{name} must be "):
        CallbackPlan(**{name: value})


@pytest.mark.parametrize("value", [1.0, "3", True])
def test_max_attempts_is_a_whole_number(value):
    """The number of attempts is an int."""
    with pytest.raises(TypeError, match="max_attempts must be a whole number"):
        CallbackPlan(max_attempts=value)


def test_allow_remote_is_a_bool():
    """`allow_remote` is True or False."""
    with pytest.raises(TypeError, match="allow_remote must be True or False, not 'no'"):
        CallbackPlan(allow_remote="no")


REFUSED_KEYS = [
    "",
    " ",
    "secret\n",
    " secret",
    "\tsecret",
    "\ufeffsecret",
    "secret\ud800",
    b"secret",
]


@pytest.mark.parametrize("setting", ["api_key", "callback_key"])
@pytest.mark.parametrize("value", REFUSED_KEYS)
def test_key_with_whitespace_around_it_is_refused(setting, value):
    """A key is printable and without whitespace around it; a rejected key is not shown."""
    error = TypeError if isinstance(value, bytes) else ValueError
    with pytest.raises(error, match=r"key must be a printable text, not empty and") as caught:
        CoverEmulator(**{setting: value})
    assert "secret" not in str(caught.value)


def test_plans_are_values():
    """A plan can be made again from its dict."""
    plan = CallbackPlan(lost=0.2, delay=(1, 2))
    assert CallbackPlan(**asdict(plan)) == plan
