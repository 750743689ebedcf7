"""What the emulator does not accept is refused when it is said, and not when it is met."""

from math import inf, nan

import pytest

from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault, Limits

NO_SHARES = (-0.1, 1.1, nan)
NO_SECONDS = (-1, nan, inf)

SETTINGS = [
    *[("port", value, ValueError) for value in (-1, 65536)],
    *[("port", value, TypeError) for value in ("8080", 80.0, None, True)],
    ("image_port", -1, ValueError),
    ("api_key", "", ValueError),
    ("api_key", 5, TypeError),
    *[("generation_time", value, ValueError) for value in (-1, (2, 1), nan)],
    *[("generation_time", value, TypeError) for value in ("2-8", None, [1, 2])],
    *[("visible_after", value, ValueError) for value in NO_SECONDS],
    *[("failure_rate", value, ValueError) for value in NO_SHARES],
    *[("failure_rate", value, TypeError) for value in ("half", None)],
    *[("stuck_rate", value, ValueError) for value in NO_SHARES],
    ("credits", -1, ValueError),
    ("price", "a quarter", TypeError),
    ("latency", -1, ValueError),
    *[("unknown_songs", value, TypeError) for value in ("a-song", 5)],
    ("duplicate_reveals_task_id", "no", TypeError),
    ("callbacks", {"lost": 1.0}, TypeError),
    *[("limits", value, TypeError) for value in (True, (10, 1.0))],
    *[("clock_offset", value, ValueError) for value in (nan, inf, -inf)],
    *[("image_size", value, error) for value, error in ((0, ValueError), (1.5, TypeError))],
    ("keep_requests", "no", TypeError),
]

SCRIPTS = [
    *[("seconds", value, ValueError) for value in NO_SECONDS],
    ("visible_after", "soon", TypeError),
    ("images", -1, ValueError),
    ("images", 1.0, TypeError),
]

WINDOWS = [
    *[(value, TypeError) for value in (10, "ten", [10, 1.0], (10,), (10, 1.0, 2.0))],
    *[(value, TypeError) for value in ((1.5, 1.0), (True, 1.0), (10, "1"), (10, None))],
    *[((number, 1.0), ValueError) for number in (0, -1)],
    *[((10, seconds), ValueError) for seconds in (0, -1, nan, inf)],
]

FAULTS = [
    ("count", 0, ValueError),
    ("count", 1.5, TypeError),
    *[("rate", value, ValueError) for value in NO_SHARES],
    ("after", -1, ValueError),
    ("after", "then", TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), SETTINGS)
def test_an_invalid_setting_is_named(name, value, error):
    """The error names the setting, and what it accepts."""
    with pytest.raises(error, match=f"^{name} must be "):
        CoverEmulator(**{name: value})


def test_failing_and_stuck_shares_add_up_to_1():
    """Failing and stuck jobs are shares of one whole."""
    CoverEmulator(failure_rate=0.3, stuck_rate=0.7)
    message = "^failure_rate and stuck_rate must be at most 1 together, not 0.5 and 0.6$"
    with pytest.raises(ValueError, match=message):
        CoverEmulator(failure_rate=0.5, stuck_rate=0.6)


@pytest.mark.parametrize(("name", "value", "error"), SCRIPTS)
def test_an_invalid_field_of_a_script_is_named(name, value, error):
    """The error names the field of the script."""
    with pytest.raises(error, match=f"^{name} must be "):
        CoverScript(**{name: value})


@pytest.mark.parametrize("name", ["polls", "submits"])
@pytest.mark.parametrize(("value", "error"), WINDOWS)
def test_an_invalid_limit_is_named(name, value, error):
    """The error names the limit, which is a number of requests and seconds."""
    with pytest.raises(error, match=rf"^{name} must be \(number, seconds\)"):
        Limits(**{name: value})


async def test_another_object_is_not_a_script(caller):
    """A list of statuses and a fault are not scripts."""
    with pytest.raises(TypeError, match="must be a CoverScript, not"):
        caller.emulator.add_job(["success"])
    with pytest.raises(TypeError, match="must be a CoverScript, not"):
        caller.emulator.script_song("a-song", Fault.stall())


@pytest.mark.parametrize("age", NO_SECONDS)
async def test_a_negative_age_is_rejected(caller, age):
    """The age of a job is a finite number, 0 or more."""
    with pytest.raises(ValueError, match=r"^age must be a number of seconds, 0 or more"):
        caller.emulator.add_job(age=age)


@pytest.mark.parametrize(("name", "value", "error"), FAULTS)
def test_an_invalid_count_or_rate_is_named(name, value, error):
    """The error names the argument that selects requests."""
    with pytest.raises(error, match=f"^{name} must be "):
        CoverEmulator().fault(Fault.stall(), **{name: value})


def test_another_object_is_not_a_fault():
    """A fault is made by one of its class methods."""
    with pytest.raises(TypeError, match=r"^fault must be a Fault, not 'stall'"):
        CoverEmulator().fault("stall")


@pytest.mark.parametrize(
    ("make", "name"), [(Fault.slow, "seconds"), (Fault.rate_limited, "retry_after")]
)
@pytest.mark.parametrize("value", NO_SECONDS)
def test_invalid_seconds_of_a_fault_are_named(make, name, value):
    """Seconds are finite and not negative."""
    with pytest.raises(ValueError, match=f"^{name} must be a number of seconds, 0 or more"):
        make(**{name: value})
