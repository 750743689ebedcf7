"""What a `CallbackBus` accepts; none of this needs a server."""

import sys

import pytest

from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.fleet import CallbackBus


def test_missing_extra_is_named(monkeypatch):
    """Without redis-py the error says what to install."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ImportError, match=r"install the extra `redis` .*, or pip install 'redis"):
        CallbackBus("redis://localhost", CallbackInbox())


@pytest.mark.parametrize("name", ["", "a}b", "n" * 101, None])
def test_unusable_name_is_rejected(name):
    """The name becomes part of a key in Redis."""
    with pytest.raises(ValueError, match="name must be a text of 1 to 100 characters"):
        CallbackBus("redis://localhost", CallbackInbox(), name=name)


def test_other_url_is_rejected():
    """A URL must have one of the schemes of redis-py."""
    with pytest.raises(ValueError, match="url must begin with redis://"):
        CallbackBus("localhost:6379", CallbackInbox())


@pytest.mark.parametrize("inbox", [None, CallbackInbox, "inbox"])
def test_other_inbox_is_rejected(inbox):
    """The bus must see what the inbox receives, so it must be a `CallbackInbox`."""
    with pytest.raises(TypeError, match="inbox must be a CallbackInbox, not"):
        CallbackBus("redis://localhost", inbox)


def test_repr_shows_no_url():
    """A repr ends up in logs, and the URL may have a password."""
    bus = CallbackBus("redis://:secret@localhost", CallbackInbox(), name="covers")
    inbox = "<CallbackInbox of unsigned callbacks, 0 ids awaited>"
    assert repr(bus) == f"CallbackBus(…, {inbox}, name='covers')"


async def test_closing_without_opening_does_nothing():
    """A bus that was never opened has nothing to close."""
    await CallbackBus("redis://localhost", CallbackInbox()).__aexit__()
