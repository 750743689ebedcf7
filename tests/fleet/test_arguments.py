"""What a `SharedRateLimiter` accepts; none of this needs a server."""

import sys

import pytest

from kie_cover_async.fleet import SharedRateLimiter


def test_missing_extra_is_named(monkeypatch):
    """Without redis-py the error says what to install."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ImportError, match=r"install the extra `redis` .*, or pip install 'redis"):
        SharedRateLimiter("redis://localhost")


@pytest.mark.parametrize("name", ["", "a}b", "n" * 101, None])
def test_unusable_name_is_rejected(name):
    """The name becomes part of a key in Redis."""
    with pytest.raises(ValueError, match="name must be a text of 1 to 100 characters"):
        SharedRateLimiter("redis://localhost", name=name)


@pytest.mark.parametrize("url", ["localhost:6379", "http://h", "", None])
def test_other_urls_are_rejected(url):
    """A URL must have one of the schemes of redis-py."""
    with pytest.raises(ValueError, match="url must begin with redis://, rediss:// or unix://"):
        SharedRateLimiter(url)


@pytest.mark.parametrize(
    "url", ["redis://:secret@h:port", "redis://:secret@h:6379?db=x&health_check_interval=y"]
)
def test_error_about_a_url_shows_no_password(url):
    """A URL that redis-py cannot read may have a password."""
    with pytest.raises(ValueError, match="redis-py") as caught:
        SharedRateLimiter(url)
    assert "secret" not in str(caught.value)


def test_repr_shows_no_url():
    """A repr ends up in logs, and the URL may have a password."""
    limiter = SharedRateLimiter("redis://:secret@localhost", 19, per=10.0, name="submits")
    assert repr(limiter) == "SharedRateLimiter(…, 19, per=10, name='submits')"
