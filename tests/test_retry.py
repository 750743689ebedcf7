import attrs
import pytest

from kie_cover_async import (
    AuthenticationError,
    DownloadError,
    InvalidResponseError,
    MaintenanceError,
    RateLimitedError,
    RetryPolicy,
    ServerError,
    TaskNotFoundError,
    TransportError,
)
from kie_cover_async.retry import LONGEST_PAUSE

POLICY = RetryPolicy()
BOUNDS = [0.5, 1, 2, 4, 8, 16, 20, 20]
DRAWS = 400


def refusal(retry_after=None, **facts):
    return RateLimitedError(code=429, retry_after=retry_after, retryable=True, **facts)


def server_error(**facts):
    return ServerError(code=500, **facts)


@pytest.mark.parametrize(("failures", "bound"), [*enumerate(BOUNDS, 1)])
def test_pause(failures, bound):
    """A pause is anything from nothing to a bound that doubles from failure to failure."""
    pauses = [POLICY.pause(failures) for _ in range(DRAWS)]
    assert 0 <= min(pauses) < bound * 0.1
    assert bound * 0.9 < max(pauses) <= bound


@pytest.mark.parametrize("failures", [100, 10**6])
def test_a_long_streak_pauses_no_longer(failures):
    """However often it failed, the longest delay is the bound, and found in no time."""
    assert 10 < max(POLICY.pause(failures) for _ in range(50)) <= 20


def test_before_any_failure():
    """Nothing has failed yet: the first bound holds."""
    assert max(POLICY.pause(0) for _ in range(50)) <= 0.5


def test_a_first_delay_above_the_longest():
    """The longest delay has the last word."""
    assert max(RetryPolicy(max_delay=0.02).pause(1) for _ in range(50)) <= 0.02


@pytest.mark.parametrize(("refusals", "bound"), [*enumerate(BOUNDS, 1)])
def test_pause_without_a_word_from_the_server(refusals, bound):
    """The pause grows as a retry's bound does; jitter lengthens it and never shortens it."""
    pauses = [POLICY.shared_pause(refusals, None) for _ in range(DRAWS)]
    assert bound <= min(pauses) < bound + 0.1
    assert bound + 0.4 < max(pauses) <= bound + 0.5


@pytest.mark.parametrize("retry_after", [0.0, 0.3, 7.0, 119.0])
@pytest.mark.parametrize("refusals", [1, 8])
def test_hold_for_as_long_as_the_server_asks(refusals, retry_after):
    """It is at least what was asked for, jitter on top, however many refusals there were."""
    pauses = [POLICY.shared_pause(refusals, retry_after) for _ in range(DRAWS)]
    assert retry_after <= min(pauses) < retry_after + 0.1
    assert retry_after + 0.4 < max(pauses) <= retry_after + 0.5


@pytest.mark.parametrize("retry_after", [120.0, 120.1, 3600.0, 1e300, float("inf")])
def test_shared_pause_is_capped(retry_after):
    """No single refusal stops a rate limiter for more than two minutes."""
    assert {POLICY.shared_pause(1, retry_after) for _ in range(20)} == {120.0}
    assert LONGEST_PAUSE == 120.0


@pytest.mark.parametrize("refusals", [1, 50])
def test_a_hold_of_our_own_is_capped_too(refusals):
    """So are the pauses of a policy that would wait longer."""
    patient = RetryPolicy(initial_delay=1000, max_delay=1000)
    assert patient.shared_pause(refusals, None) == 120.0


@pytest.mark.parametrize(
    "error",
    [
        server_error(retryable=True),
        MaintenanceError(code=455, retryable=True),
        TransportError(reason="reset", retryable=True),
        InvalidResponseError(path="$", found="b''", expected="JSON", retryable=True),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_safe_is_repeated(error):
    """A failure that is safe to repeat is, up to the attempts, after the pause that is its turn."""
    for tries, bound in ((1, 0.5), (2, 1), (3, 2)):
        pauses = [POLICY.next_pause(error, tries) for _ in range(DRAWS)]
        assert bound * 0.9 < max(pauses) <= bound
    assert POLICY.next_pause(error, 4) is None
    assert POLICY.next_pause(error, 5) is None


@pytest.mark.parametrize(
    "error",
    [
        server_error(),
        server_error(maybe_accepted=True),
        TransportError(reason="no answer"),
        RateLimitedError(code=433),
        AuthenticationError(code=401),
        TaskNotFoundError(code=200),
    ],
    ids=str,
)
def test_what_is_not_safe_is_not_repeated(error):
    """Transient or not: where the call may not be repeated, it is not."""
    assert POLICY.next_pause(error, 1) is None


@pytest.mark.parametrize("retry_after", [None, 0.0, 7.0, 120.0])
def test_a_refusal_is_repeated_without_a_pause_of_its_own(retry_after):
    """It is the rate limiter that is paused, for all who use it."""
    assert [POLICY.next_pause(refusal(retry_after), tries) for tries in (1, 2, 3, 4)] == [
        0.0,
        0.0,
        0.0,
        None,
    ]


@pytest.mark.parametrize("retry_after", [120.1, 3600.0, float("inf")])
def test_a_refusal_for_too_long_is_not_waited_for(retry_after):
    """A single call that would have to wait past the longest pause ends with the refusal."""
    assert POLICY.next_pause(refusal(retry_after), 1) is None


def busy_host(retry_after):
    return DownloadError(reason="busy", retry_after=retry_after, retryable=True)


@pytest.mark.parametrize("retry_after", [0.0, 7.0, 119.9, 120.0])
def test_a_host_of_images_has_the_time_it_asks_for(retry_after):
    """No pause is shorter, whichever it is, and none is longer than the longest pause."""
    pauses = [POLICY.next_pause(busy_host(retry_after), tries) for tries in (1, 2, 3)]
    assert all(retry_after <= pause <= min(retry_after + 0.5, 120.0) for pause in pauses)
    assert POLICY.next_pause(busy_host(retry_after), 4) is None


@pytest.mark.parametrize("retry_after", [120.1, 3600.0, float("inf")])
def test_a_host_that_asks_for_too_long_is_not_waited_for(retry_after):
    """A download that would have to wait past the longest pause ends with what the host said."""
    assert POLICY.next_pause(busy_host(retry_after), 1) is None


def test_a_host_that_asks_for_nothing():
    """A download that failed otherwise is repeated after the pause that is its turn."""
    assert 0.9 < max(POLICY.next_pause(busy_host(None), 2) for _ in range(DRAWS)) <= 1


def test_one_attempt_is_no_repetition():
    """The attempts count the first one."""
    once = RetryPolicy(max_attempts=1)
    assert once.next_pause(server_error(retryable=True), 1) is None
    assert once.next_pause(refusal(), 1) is None


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("max_attempts", 0, ValueError),
        ("max_attempts", -1, ValueError),
        ("max_attempts", 2.0, TypeError),
        ("max_attempts", True, TypeError),
        ("max_attempts", None, TypeError),
        ("initial_delay", 0, ValueError),
        ("initial_delay", float("nan"), ValueError),
        ("initial_delay", "0.5", TypeError),
        ("max_delay", 0, ValueError),
        ("max_delay", float("inf"), ValueError),
        ("max_delay", 10**400, ValueError),
        ("max_delay", None, TypeError),
    ],
)
def test_a_bad_setting_is_named(name, value, error):
    """A setting that cannot be used is refused by its name."""
    with pytest.raises(error, match=f"^{name} must be a (finite|whole) number"):
        RetryPolicy(**{name: value})


def test_a_policy_is_a_value():
    """Policies of the same settings are equal, and none can be changed."""
    assert RetryPolicy(max_attempts=4, initial_delay=0.5, max_delay=20) == POLICY
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        POLICY.max_attempts = 7
    with pytest.raises(TypeError, match="positional"):
        RetryPolicy(4)
