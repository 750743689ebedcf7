"""`SongCallbackUrls`: a callback URL for each song, which only the holder of a secret can make."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Sequence
from typing import Protocol

from kie_cover_async.validation import (
    is_one_word,
    short_repr,
    validate_http_url,
    validate_task_id,
)

_MIN_SECRET_LENGTH = 16


class SongTokens(Protocol):
    """Knows the tokens at the end of callback URLs; `SongCallbackUrls` is one."""

    def song_of(self, token: str) -> str | None:
        """Return the song whose token this is, or `None`."""


class SongCallbackUrls:
    """Makes a callback URL for each song, whose last part is the song and an HMAC-SHA256 of it::

        secrets = await archive.ledger.callback_secrets()
        urls = SongCallbackUrls("https://example.com/covers", secrets)
        make_covers(client, archive, songs, callback_url=urls, inbox=inbox)

    A request to such a URL shows that its sender knows the URL, which was sent with the submit of
    that song only. A signature does not show that: its headers can be sent to another URL again.

    Args:
        base_url: The URL of the route, without the token.
        secrets: At least one, of 16 characters or more. The first one makes new URLs; URLs that
            the others made are accepted, too. These are not the account's `webhookHmacKey`.

    Example:
        >>> from kie_cover_async.callbacks import SongCallbackUrls
        >>> urls = SongCallbackUrls("https://example.com/covers", ["a secret of the ledger"])
        >>> urls("song-a").removeprefix("https://example.com/covers/")
        'c29uZy1h.kP81lt_Si7EeS_oImTiha2vGSZSht0Mu4Kn33FG3oxE'
        >>> urls.song_of(_), urls.song_of("c29uZy1i.kP81lt_Si7EeS_oImTiha2vGSZSht0Mu4Kn33FG3oxE")
        ('song-a', None)
    """

    def __init__(self, base_url: str, secrets: Sequence[str]) -> None:
        url = validate_http_url("base_url", base_url)
        if url.raw_query_string or url.raw_fragment:
            raise ValueError(f"base_url must have no query and no fragment: {short_repr(base_url)}")
        self._base_url = str(url).rstrip("/")
        self._secrets = _parse_secrets(secrets)

    def __repr__(self) -> str:
        return f"<SongCallbackUrls {self._base_url}/… of {len(self._secrets)} secrets>"

    def __call__(self, music_task_id: str) -> str:
        """Return the callback URL of a song."""
        validate_task_id("music_task_id", music_task_id)
        return f"{self._base_url}/{_token(music_task_id, self._secrets[0])}"

    def song_of(self, token: str) -> str | None:
        """Return the song for which one of the secrets has made this token, or `None`."""
        song = _decode_song(token)
        if song is None:
            return None
        # Every secret is tried, so that the duration does not reveal which one matched.
        matches = [
            hmac.compare_digest(_token(song, secret).encode(), token.encode())
            for secret in self._secrets
        ]
        return song if any(matches) else None


def _token(music_task_id: str, secret: bytes) -> str:
    song = music_task_id.encode()
    return f"{_encode(song)}.{_encode(hmac.digest(secret, song, 'sha256'))}"


def _decode_song(token: str) -> str | None:
    encoded, _, _ = token.partition(".")
    try:
        song = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except ValueError:
        return None
    return song if token.isascii() and is_one_word(song) else None


def _encode(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _parse_secrets(secrets: object) -> tuple[bytes, ...]:
    if isinstance(secrets, (str, bytes)) or not isinstance(secrets, Iterable):
        raise TypeError(f"secrets must be a sequence of str, not a {type(secrets).__name__}")
    texts = tuple(secrets)
    if not all(isinstance(each, str) and len(each) >= _MIN_SECRET_LENGTH for each in texts):
        raise ValueError(
            f"secrets must be str of at least {_MIN_SECRET_LENGTH} characters (not shown here)"
        )
    if not texts:
        raise ValueError("secrets must have at least one secret")
    return tuple(each.encode() for each in texts)
