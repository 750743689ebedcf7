"""The callback URLs of songs: their tokens, and which are accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kie_cover_async import InvalidTaskIdError
from kie_cover_async.callbacks import SongCallbackUrls
from kie_cover_async.validation import is_one_word

BASE = "https://example.com/covers"
OLD, NEW = "an old secret of the ledger", "a new secret of the ledger"


def token_of(url):
    base, _, token = url.rpartition("/")
    assert base == BASE
    return token


@given(st.text(min_size=1).filter(is_one_word))
def test_the_token_names_its_song(song):
    """The URL of any id has a token that needs no encoding, and leads back to the id."""
    urls = SongCallbackUrls(BASE, [NEW])
    token = token_of(urls(song))
    assert token.replace("-", "").replace("_", "").replace(".", "").isalnum()
    assert token.isascii()
    assert urls.song_of(token) == song


def test_every_secret_is_accepted_and_the_first_one_signs():
    """After a rotation, URLs that the old secret made are still accepted."""
    before, after = SongCallbackUrls(BASE, [OLD]), SongCallbackUrls(f"{BASE}/", [NEW, OLD])
    assert after.song_of(token_of(before("a"))) == "a"
    assert before.song_of(token_of(after("a"))) is None
    assert SongCallbackUrls(BASE, [NEW]).song_of(token_of(after("a"))) == "a"


def test_any_other_token_is_of_no_song():
    """Each character counts, the song cannot be replaced, and no text is an error."""
    urls = SongCallbackUrls(BASE, [NEW])
    token = token_of(urls("song"))
    other = token_of(urls("gnos"))
    changed = [token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :] for n in range(50)]
    mixed = other.partition(".")[0] + token[token.index(".") :]
    odd = ["", ".", "..", "a", "\xe4", "\udc80", token + "=", f" {token}", "_w.x", "IA.x"]
    for each in (*changed, token[:-1], mixed, *odd):
        assert urls.song_of(each) is None, each


def test_no_secret_is_shown():
    """Neither the repr nor an error has one."""
    assert repr(SongCallbackUrls(BASE, [NEW, OLD])) == f"<SongCallbackUrls {BASE}/… of 2 secrets>"
    with pytest.raises(ValueError, match="at least 16 characters") as caught:
        SongCallbackUrls(BASE, [NEW, "short"])
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "secrets", "error", "says"),
    [
        ("ftp://example.com", [NEW], ValueError, "base_url must be an absolute http"),
        (f"{BASE}?a=b", [NEW], ValueError, "base_url must have no query"),
        (f"{BASE}#a", [NEW], ValueError, "base_url must have no query and no fragment"),
        (BASE, [], ValueError, "at least one secret"),
        (BASE, [b"bytes" * 9], ValueError, "secrets must be str"),
        (BASE, NEW, TypeError, "secrets must be a sequence of str, not a str"),
        (BASE, None, TypeError, "secrets must be a sequence of str, not a NoneType"),
    ],
)
def test_unusable_arguments_are_errors(base_url, secrets, error, says):
    """The error names the argument."""
    with pytest.raises(error, match=says):
        SongCallbackUrls(base_url, secrets)


def test_an_invalid_song_is_an_error():
    """It is the same error as for a submit."""
    with pytest.raises(InvalidTaskIdError):
        SongCallbackUrls(BASE, [NEW])("two words")
