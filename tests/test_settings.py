import aiohttp
import pytest
from yarl import URL

from kie_cover_async import ExponentialSchedule, __version__
from kie_cover_async.settings import (
    resolve_api_key,
    resolve_base_url,
    resolve_route,
    resolve_user_agent,
    validate_schedule,
    validate_session,
)

SECRET = "sk-3f9c41d7"


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch):
    monkeypatch.delenv("KIE_API_KEY", raising=False)
    monkeypatch.delenv("KIE_BASE_URL", raising=False)
    monkeypatch.delenv("KIE_ROUTE", raising=False)


# The key.


def test_a_given_key_precedes_the_environment(monkeypatch):
    """The environment is read only if no key is given."""
    monkeypatch.setenv("KIE_API_KEY", "from-the-environment")
    assert resolve_api_key(SECRET) == SECRET
    assert resolve_api_key(None) == "from-the-environment"


@pytest.mark.parametrize(("given", "environment"), [(None, None), (None, ""), ("", "from-there")])
def test_a_missing_key_is_rejected(monkeypatch, given, environment):
    """The error for a missing or empty key names both places to set it."""
    if environment is not None:
        monkeypatch.setenv("KIE_API_KEY", environment)
    with pytest.raises(ValueError, match=r"api_key must be given, or .* KIE_API_KEY"):
        resolve_api_key(given)


@pytest.mark.parametrize(
    "key",
    [
        f"{SECRET}\n",
        f"{SECRET}\r\nX-Other: 1",
        f" {SECRET}",
        f"Bearer {SECRET}",
        f"{SECRET}\t",
        f"{SECRET}é",
        f"{SECRET}\x00",
        f"{SECRET}\ud800",
        SECRET.encode(),
        [SECRET],
        {"api_key": SECRET},
        7,
        True,
    ],
)
def test_an_invalid_key_is_not_shown(key):
    """The error says what is wrong with a key without showing it."""
    with pytest.raises((ValueError, TypeError), match="api_key must be ") as caught:
        resolve_api_key(key)
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value, ValueError if isinstance(key, str) else TypeError)
    assert caught.value.__context__ is None


def test_an_invalid_key_of_the_environment_is_not_shown(monkeypatch):
    """A key with the line break of its file is refused from either place."""
    monkeypatch.setenv("KIE_API_KEY", f"{SECRET}\n")
    with pytest.raises(ValueError, match=r"^KIE_API_KEY must be .* line breaks") as caught:
        resolve_api_key(None)
    assert SECRET not in str(caught.value)


# The base URL.


def test_a_given_base_url_precedes_the_environment(monkeypatch):
    """The order is: argument, environment, the vendor's URL."""
    assert resolve_base_url(None, allow_http=False) == URL("https://api.kie.ai")
    monkeypatch.setenv("KIE_BASE_URL", "")
    assert resolve_base_url(None, allow_http=False) == URL("https://api.kie.ai")
    monkeypatch.setenv("KIE_BASE_URL", "https://api.sunoapi.org")
    assert resolve_base_url(None, allow_http=False) == URL("https://api.sunoapi.org")
    assert resolve_base_url("https://h/prefix", allow_http=False) == URL("https://h/prefix")
    assert resolve_base_url(URL("https://h"), allow_http=False) == URL("https://h")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://h/api/v1", "https://h"),
        ("https://h/api/v1/", "https://h"),
        ("https://h//api/v1/api/v1", "https://h"),
        ("https://h/prefix/api/v1", "https://h/prefix"),
        ("https://h/api/v1/prefix", "https://h/api/v1/prefix"),
        ("https://h/api/v10", "https://h/api/v10"),
        ("https://h/my-api/v1", "https://h/my-api/v1"),
    ],
)
def test_api_path_at_the_end_of_a_base_url_is_dropped(monkeypatch, given, used):
    """The path of a call, which begins with the same, isn't doubled, wherever the URL is from."""
    assert resolve_base_url(given, allow_http=False) == URL(used)
    monkeypatch.setenv("KIE_BASE_URL", given)
    assert resolve_base_url(None, allow_http=False) == URL(used)


@pytest.mark.parametrize("given", ["", "h", "ftp://h", "https://", "https://h\n", URL("/path")])
def test_a_given_base_url_is_used_or_rejected(monkeypatch, given):
    """An empty or invalid URL is an error: the key is not sent elsewhere."""
    monkeypatch.setenv("KIE_BASE_URL", "https://api.sunoapi.org")
    with pytest.raises(ValueError, match="base_url must be an absolute http or https URL"):
        resolve_base_url(given, allow_http=False)


@pytest.mark.parametrize("given", [7, False, b"https://h"])
def test_a_base_url_of_another_type_is_rejected(given):
    """A base URL is a str or a `URL`."""
    with pytest.raises(TypeError, match="base_url must be an absolute http or https URL, not"):
        resolve_base_url(given, allow_http=False)


@pytest.mark.parametrize("given", ["ftp://me:{}@h", "https://me:{}@", "https://me:{}@h h"])
def test_a_password_in_an_invalid_base_url_is_not_shown(given):
    """The error masks what may be a password."""
    with pytest.raises(ValueError, match="base_url must be an absolute") as caught:
        resolve_base_url(given.format(SECRET), allow_http=False)
    assert SECRET not in str(caught.value)
    assert "***@" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ("http://api.kie.ai", "be https"),
        ("api.kie.ai", "be an absolute http or https URL"),
        ("https://h?k=v", "have no credentials"),
    ],
)
def test_an_invalid_base_url_of_the_environment_is_rejected(monkeypatch, given, refusal):
    """The same rules apply, and the error names the variable."""
    monkeypatch.setenv("KIE_BASE_URL", given)
    with pytest.raises(ValueError, match=f"^KIE_BASE_URL must {refusal}"):
        resolve_base_url(None, allow_http=False)


@pytest.mark.parametrize("rest", ["u:{}@h", ":{}@h", "{}@h", "h?k={}", "h/?{}", "h#{}"])
def test_a_base_url_with_credentials_or_query_is_rejected(rest):
    """Credentials, a query and a fragment are rejected and not shown."""
    with pytest.raises(ValueError, match="base_url must have no credentials") as caught:
        resolve_base_url(f"https://{rest.format(SECRET)}", allow_http=True)
    assert SECRET not in str(caught.value)


LOOPBACK = [
    "http://127.0.0.1:8080",
    "http://127.255.0.3",
    "http://[::1]:8080",
    "http://localhost",
    "http://LOCALHOST:80/prefix",
]
ELSEWHERE = [
    "http://api.kie.ai",
    "http://10.0.0.1",
    "http://0.0.0.0",
    "http://128.0.0.1",
    "http://localhost.example.com",
    "http://127.0.0.1.example.com",
    "http://127.1",
    "http://2130706433",
    "http://[::2]",
]


@pytest.mark.parametrize("given", LOOPBACK)
def test_plain_http_to_loopback_is_accepted(given):
    """Requests that stay on the machine need not be encrypted."""
    assert resolve_base_url(given, allow_http=False) == URL(given)


@pytest.mark.parametrize("given", ELSEWHERE)
def test_plain_http_elsewhere_is_rejected(given):
    """The key is not sent unencrypted unless the caller allows it."""
    with pytest.raises(ValueError, match=r"base_url must be https, not 'http://.*allow_http=True"):
        resolve_base_url(given, allow_http=False)
    assert resolve_base_url(given, allow_http=True) == URL(given)


# The rest.


def test_the_default_user_agent_has_name_and_version():
    """The default names the package and its version."""
    assert resolve_user_agent(None) == f"kie-cover-async/{__version__}"
    assert resolve_user_agent("my-service/1.0 (cover bot)") == "my-service/1.0 (cover bot)"


@pytest.mark.parametrize("given", ["", "  ", "a\r\nX-Other: 1", "a\n", "ü", "\x00"])
def test_an_invalid_user_agent_is_rejected(given):
    """A user agent is printable ASCII and not empty."""
    with pytest.raises(ValueError, match="user_agent must be printable ASCII, not ") as caught:
        resolve_user_agent(given)
    assert repr(given) in str(caught.value)


@pytest.mark.parametrize("given", [b"agent", 7, ["agent"]])
def test_a_user_agent_of_another_type_is_rejected(given):
    """A user agent is a str."""
    with pytest.raises(TypeError, match="user_agent must be a str, not "):
        resolve_user_agent(given)


async def test_an_external_session_is_returned_unchanged():
    """A session is used as it is; None stays None."""
    async with aiohttp.ClientSession() as session:
        assert validate_session(session) is session
    assert validate_session(None) is None


@pytest.mark.parametrize("given", [7, "session", aiohttp.ClientSession, object()])
def test_an_object_that_is_not_a_session_is_rejected(given):
    """Only an aiohttp session is accepted, not its class."""
    with pytest.raises(TypeError, match=r"session must be an aiohttp\.ClientSession, not "):
        validate_session(given)


async def test_a_session_with_credentials_is_rejected():
    """Its own credentials would replace the key."""
    with pytest.warns(DeprecationWarning, match="auth"):
        session = aiohttp.ClientSession(auth=aiohttp.BasicAuth("user", SECRET))
    async with session:
        with pytest.raises(ValueError, match="session must have no auth") as caught:
            validate_session(session)
    assert SECRET not in str(caught.value)


class OneMinuteSchedule:
    def delay(self, age, pressure):
        return 60.0


class NoSchedule:
    delay = 60.0


@pytest.mark.parametrize("given", [ExponentialSchedule(), OneMinuteSchedule()])
def test_any_object_with_a_delay_is_a_schedule(given):
    """Any object with a method `delay` is a schedule."""
    assert validate_schedule(given) is given
    assert validate_schedule(given).delay(0, 1) > 0


@pytest.mark.parametrize(
    "given",
    [None, 7, NoSchedule(), ExponentialSchedule, OneMinuteSchedule, lambda age, pressure: 60.0],
)
def test_an_object_without_a_delay_is_rejected(given):
    """A number, a function or a class is rejected immediately."""
    with pytest.raises(TypeError, match=r"schedule must have a method delay\(age, pressure\), not"):
        validate_schedule(given)


# The route.


def test_given_route_precedes_the_environment(monkeypatch):
    """Without either, the route is `suno`."""
    assert resolve_route(None).name == "suno"
    monkeypatch.setenv("KIE_ROUTE", "market")
    assert resolve_route(None).name == "market"
    assert resolve_route("suno").name == "suno"
    monkeypatch.setenv("KIE_ROUTE", "")
    assert resolve_route(None).name == "suno"


@pytest.mark.parametrize("given", ["", "Market", "suno ", "4o", 7, b"suno", ["suno"]])
def test_unknown_route_is_rejected(given):
    """The error names both routes."""
    with pytest.raises(ValueError, match=r"^route must be 'suno' or 'market', not "):
        resolve_route(given)


def test_other_route_in_the_environment_is_refused_by_its_name(monkeypatch):
    monkeypatch.setenv("KIE_ROUTE", "marked")
    with pytest.raises(ValueError, match=r"^KIE_ROUTE must be 'suno' or 'market', not 'marked'"):
        resolve_route(None)
