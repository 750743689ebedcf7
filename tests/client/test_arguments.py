import aiohttp
import pytest

from kie_cover_async import CoverClient, InvalidTaskIdError, RateLimiter

KEY = "a-key-never-shown"
NO_IDS = ["", " ", "a b", "a\nb", "\t", "\ud800", None, 5, b"id", ["id"]]
NO_URLS = ["", "example.com", "ftp://example.com", "http://", "/path"]
NO_TEXTS = [None, 5, b"http://example.com"]
NO_SECONDS = [-1, -0.001, float("nan"), float("inf")]
NO_NUMBERS = ["5", True, [1]]


async def observing(event: object) -> None: ...


class Observing:
    """A class with an async `__call__`; calling the class itself is a plain call."""

    def __init__(self, event: object = None) -> None: ...

    async def __call__(self, event: object) -> None: ...


CONSTRUCTOR = [
    *[
        ({name: value}, error)
        for name in ("request_timeout", "submit_timeout", "submit_connect_timeout")
        for values, error in (([0, *NO_SECONDS], ValueError), ([None, *NO_NUMBERS], TypeError))
        for value in values
    ],
    *[
        ({name: value}, error)
        for name in ("max_concurrent_requests", "max_concurrent_submits")
        for values, error in (((0, -1), ValueError), ((1.5, None, True, "5"), TypeError))
        for value in values
    ],
    *[({"allow_image_networks": [value]}, ValueError) for value in ("", "home", "198.18.0.5/15")],
    *[({"allow_image_networks": [value]}, TypeError) for value in (None, 5, b"\n\0\0\1")],
    *[
        ({"allow_image_networks": value}, TypeError)
        for value in (None, 5, "198.18.0.0/15", b"::/3")
    ],
    *[({"base_url": value}, ValueError) for value in ("api.kie.ai", "ftp://a", "https://")],
    ({"base_url": 5}, TypeError),
    ({"base_url": "http://api.kie.ai"}, ValueError),
    ({"base_url": "https://me:password@api.kie.ai"}, ValueError),
    *[({"user_agent": value}, ValueError) for value in ("", "a\r\nb", "é")],
    ({"user_agent": 5}, TypeError),
    ({"session": "a session"}, TypeError),
    ({"session": aiohttp.ClientSession}, TypeError),
    *[({"schedule": value}, TypeError) for value in (None, 5, object())],
    *[({"retry": value}, TypeError) for value in (None, 5, {"max_attempts": 5})],
    *[
        ({name: value}, TypeError)
        for name in ("rate_limiter", "submit_rate_limiter")
        for value in (5, (10, 1.0), RateLimiter)
    ],
    *[
        ({"observer": value}, TypeError)
        for value in (5, "print", b"print", observing, Observing(), [print, 5], [observing])
    ],
]

WAITING = [
    *[({"timeout": value}, ValueError) for value in NO_SECONDS],
    *[({"timeout": value}, TypeError) for value in NO_NUMBERS],
    *[({"not_found_grace": value}, ValueError) for value in NO_SECONDS],
    *[({"not_found_grace": value}, TypeError) for value in [None, *NO_NUMBERS]],
    *[({"schedule": value}, TypeError) for value in (5, "often", object())],
    *[({"on_update": value}, TypeError) for value in (5, "print", [])],
]

A_SONG = {"music_task_id": "song", "callback_url": "http://a"}

VERBS = [
    *[
        (verb, {"task_id": value}, InvalidTaskIdError)
        for verb in ("get_cover_details", "wait_for_cover")
        for value in NO_IDS
    ],
    *[
        (verb, A_SONG | {"music_task_id": value}, InvalidTaskIdError)
        for verb in ("generate_cover", "generate_and_wait")
        for value in NO_IDS
    ],
    *[
        (verb, A_SONG | {"callback_url": value}, ValueError if value is None else error)
        for verb in ("generate_cover", "generate_and_wait")
        for values, error in ((NO_URLS, ValueError), (NO_TEXTS, TypeError))
        for value in values
    ],
    *[("wait_for_cover", {"task_id": "id", **named}, error) for named, error in WAITING],
    *[("generate_and_wait", {**A_SONG, **named}, error) for named, error in WAITING],
    *[("wait_for_covers", {"task_ids": ["id"], **named}, error) for named, error in WAITING],
    *[
        (verb, {"task_ids": value}, TypeError)
        for verb in ("check_covers", "wait_for_covers")
        for value in ("id", b"id", 5, None)
    ],
    *[
        ("wait_for_covers", {"task_ids": ["id"], "max_concurrent_waits": value}, error)
        for value, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError), (None, TypeError))
    ],
    ("generate_and_wait", A_SONG | {"on_task_id": 5}, TypeError),
    *[("get_download_url", {"image_url": value}, ValueError) for value in NO_URLS],
    *[("get_download_url", {"image_url": value}, TypeError) for value in NO_TEXTS],
]


@pytest.mark.parametrize(("named", "error"), CONSTRUCTOR)
def test_an_invalid_setting_is_rejected(named, error):
    """The error names the invalid setting and does not show the key."""
    [name] = named
    with pytest.raises(error, match=rf"^{name}[a-z_.]* must (be|have) ") as caught:
        CoverClient(KEY, **named)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "observer", [None, print, [].append, Observing, (), [print, [].append], {print}, iter([print])]
)
def test_plain_callables_are_observers(observer):
    """Any callable that is not async is an observer, even a class."""
    CoverClient(KEY, observer=observer)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        *[(value, ValueError) for value in ("", "a b", "a\r\nb", "é")],
        *[(value, TypeError) for value in (5, b"a-key")],
    ],
)
def test_an_invalid_key_is_rejected_and_not_shown(key, error):
    """A key is a non-empty str of printable ASCII; another is not shown."""
    with pytest.raises(error, match="api_key") as caught:
        CoverClient(key)
    assert not key or str(key) not in str(caught.value)


def test_a_missing_key_is_rejected(monkeypatch):
    """Without a key, given or in the environment, no client is made."""
    monkeypatch.delenv("KIE_API_KEY", raising=False)
    with pytest.raises(ValueError, match="api_key must be given"):
        CoverClient()


async def test_key_and_base_url_default_to_the_environment(monkeypatch, emulate):
    """Key and base URL come from the environment if they are not given."""
    emulator = await emulate(api_key="a-key-from-outside")
    monkeypatch.setenv("KIE_API_KEY", "a-key-from-outside")
    monkeypatch.setenv("KIE_BASE_URL", emulator.url)
    async with CoverClient() as client:
        assert await client.get_credits() == emulator.credits


@pytest.mark.parametrize(("verb", "arguments", "error"), VERBS)
async def test_an_invalid_argument_is_rejected_before_sending(
    emulator, client, verb, arguments, error
):
    """An invalid argument raises before any request is sent."""
    with pytest.raises(error):
        await getattr(client, verb)(**arguments)
    assert emulator.requests == []


async def test_a_rejected_argument_is_named(client):
    """The error has the argument, the given value and what is accepted."""
    with pytest.raises(InvalidTaskIdError, match=r"^music_task_id must be a non-empty .*'a b'"):
        await client.generate_cover("a b", callback_url="http://a")
    with pytest.raises(ValueError, match=r"^callback_url must be an absolute .*'nowhere'"):
        await client.generate_cover("song", callback_url="nowhere")
    with pytest.raises(TypeError, match=r"^on_update must be callable, not 'print'$"):
        await client.wait_for_cover("id", on_update="print")
    with pytest.raises(ValueError, match=r"^timeout must be .* at least 0, not -1"):
        await client.wait_for_cover("id", timeout=-1)
