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
def test_a_pause_is_below_a_doubling_bound(failures, bound):
    """A pause is between zero and a bound that doubles with each failure."""
    pauses = [POLICY.pause(failures) for _ in range(DRAWS)]
    assert 0 <= min(pauses) < bound * 0.1
    assert bound * 0.9 < max(pauses) <= bound


@pytest.mark.parametrize("failures", [100, 10**6])
def test_a_long_streak_has_the_maximum_delay(failures):
    """After any number of failures, the bound is the maximum delay."""
    assert 10 < max(POLICY.pause(failures) for _ in range(50)) <= 20


def test_without_failures_the_initial_delay_is_the_bound():
    """Before any failure, the first bound applies."""
    assert max(POLICY.pause(0) for _ in range(50)) <= 0.5


def test_the_maximum_bounds_the_initial_delay():
    """An initial delay above the maximum is reduced to it."""
    assert max(RetryPolicy(max_delay=0.02).pause(1) for _ in range(50)) <= 0.02


@pytest.mark.parametrize(("refusals", "bound"), [*enumerate(BOUNDS, 1)])
def test_a_pause_without_retry_after_grows_with_refusals(refusals, bound):
    """It grows like a retry's bound; jitter only lengthens it."""
    pauses = [POLICY.shared_pause(refusals, None) for _ in range(DRAWS)]
    assert bound <= min(pauses) < bound + 0.1
    assert bound + 0.4 < max(pauses) <= bound + 0.5


@pytest.mark.parametrize("retry_after", [0.0, 0.3, 7.0, 119.0])
@pytest.mark.parametrize("refusals", [1, 8])
def test_a_pause_is_at_least_the_retry_after(refusals, retry_after):
    """The pause is at least the Retry-After, plus jitter, after any number of refusals."""
    pauses = [POLICY.shared_pause(refusals, retry_after) for _ in range(DRAWS)]
    assert retry_after <= min(pauses) < retry_after + 0.1
    assert retry_after + 0.4 < max(pauses) <= retry_after + 0.5


@pytest.mark.parametrize("retry_after", [120.0, 120.1, 3600.0, 1e300, float("inf")])
def test_shared_pause_is_capped(retry_after):
    """No refusal pauses a rate limiter for more than two minutes."""
    assert {POLICY.shared_pause(1, retry_after) for _ in range(20)} == {120.0}
    assert LONGEST_PAUSE == 120.0


@pytest.mark.parametrize("refusals", [1, 50])
def test_a_pause_without_retry_after_is_capped(refusals):
    """The cap also bounds a policy with longer delays."""
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
def test_a_retryable_failure_is_retried(error):
    """A retryable failure is retried after its pause, up to the maximum of attempts."""
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
def test_a_failure_that_is_not_retryable_is_not_retried(error):
    """A failure that is not retryable ends the call, even if transient."""
    assert POLICY.next_pause(error, 1) is None


@pytest.mark.parametrize("retry_after", [None, 0.0, 7.0, 120.0])
def test_a_refusal_is_retried_without_its_own_pause(retry_after):
    """The rate limiter pauses instead, for all its users."""
    assert [POLICY.next_pause(refusal(retry_after), tries) for tries in (1, 2, 3, 4)] == [
        0.0,
        0.0,
        0.0,
        None,
    ]


@pytest.mark.parametrize("retry_after", [120.1, 3600.0, float("inf")])
def test_a_retry_after_above_the_cap_ends_the_call(retry_after):
    """A call that would wait longer than the cap raises the refusal."""
    assert POLICY.next_pause(refusal(retry_after), 1) is None


def busy_host(retry_after):
    return DownloadError(reason="busy", retry_after=retry_after, retryable=True)


@pytest.mark.parametrize("retry_after", [0.0, 7.0, 119.9, 120.0])
def test_a_download_waits_for_the_retry_after(retry_after):
    """Every pause is at least the Retry-After and at most the cap."""
    pauses = [POLICY.next_pause(busy_host(retry_after), tries) for tries in (1, 2, 3)]
    assert all(retry_after <= pause <= min(retry_after + 0.5, 120.0) for pause in pauses)
    assert POLICY.next_pause(busy_host(retry_after), 4) is None


@pytest.mark.parametrize("retry_after", [120.1, 3600.0, float("inf")])
def test_a_retry_after_above_the_cap_ends_a_download(retry_after):
    """A download that would wait longer than the cap raises the host's answer."""
    assert POLICY.next_pause(busy_host(retry_after), 1) is None


def test_a_download_without_retry_after_has_the_usual_pause():
    """Another failed download is retried after the policy's pause."""
    assert 0.9 < max(POLICY.next_pause(busy_host(None), 2) for _ in range(DRAWS)) <= 1


def test_attempts_include_the_first():
    """With one attempt, no request is repeated."""
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
    """The error for an invalid setting names it."""
    with pytest.raises(error, match=f"^{name} must be a (finite|whole) number"):
        RetryPolicy(**{name: value})


def test_a_policy_is_a_value():
    """Policies with the same settings are equal and immutable."""
    assert RetryPolicy(max_attempts=4, initial_delay=0.5, max_delay=20) == POLICY
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        POLICY.max_attempts = 7
    with pytest.raises(TypeError, match="positional"):
        RetryPolicy(4)
