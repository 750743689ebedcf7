"""The HMAC over a callback's task id and timestamp: signing and verifying."""

import hmac
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

from attrs import field, frozen

from kie_cover_async.api.callback import parse_callback
from kie_cover_async.errors import SignatureError
from kie_cover_async.validation import validate_number, validate_task_id

SIGNATURE_HEADER: Final = "X-Webhook-Signature"
TIMESTAMP_HEADER: Final = "X-Webhook-Timestamp"
DEFAULT_TOLERANCE: Final = 300.0
"""Seconds: the vendor documents no tolerance; this is the usual one."""

Keys = str | Iterable[str]
Headers = Mapping[Any, Any] | Iterable[tuple[str | bytes, str | bytes]]

_UNIX_SECONDS = re.compile(r"\d{1,20}", re.ASCII)
_DIGEST_SIZE = 32


def verify_signature(
    headers: Headers,
    body: bytes | str | Mapping[str, Any],
    keys: Keys,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    now: float | None = None,
) -> None:
    """Raise `SignatureError` unless one of `keys` has signed the callback.

    Only the body's task id and the timestamp are signed, so a verified callback is still only a
    reason to poll.

    Args:
        headers: A mapping or an iterable of pairs; names in any case, `str` or `bytes`.
        body: The body as it was posted, or already parsed as JSON.
        keys: One key, or several while keys are being changed.
        tolerance: How many seconds the timestamp may differ from now, either way.
        now: Unix seconds, instead of the system clock's.

    Raises:
        InvalidResponseError: The body has no task id.
        SignatureError: The signature is missing, malformed, stale, or made with another key.
    """
    keyring = parse_keys(keys)
    validate_number("tolerance", tolerance, at_least=0)
    if now is not None:
        validate_number("now", now)
    verify_task_id(parse_callback(body).task_id, headers, keyring, tolerance=tolerance, now=now)


def sign_callback(task_id: str, key: str, *, timestamp: int | None = None) -> dict[str, str]:
    """Return the two headers that sign a callback for `task_id`, for tests of your service.

    `timestamp` is in Unix seconds; `None` is now.
    """
    validate_task_id("task_id", task_id)
    if timestamp is not None:
        validate_number("timestamp", timestamp, at_least=0, whole=True)
    stamp = str(int(time.time()) if timestamp is None else timestamp)
    signature = _sign(task_id, _encode_key(key), stamp).decode()
    return {TIMESTAMP_HEADER: stamp, SIGNATURE_HEADER: signature}


def is_key(text: str) -> bool:
    """Return whether *text* can be a key: printable, not empty, no whitespace around it.

    Other texts are mostly keys with the line break or the byte order mark of their file.
    """
    return text != "" and text.isprintable() and text == text.strip()


@frozen
class Keyring:
    """The accepted keys (two during a rotation), never shown in a repr and never pickled."""

    secrets: tuple[bytes, ...] = field(repr=False)

    def __reduce__(self) -> NoReturn:
        # A pickle would contain the keys.
        raise TypeError("a CallbackInbox with keys cannot be pickled or copied deeply")


def parse_keys(keys: Keys) -> Keyring:
    """Return one key, or several, as a keyring; no error shows a key."""
    if isinstance(keys, bytes) or not isinstance(keys, Iterable):
        raise TypeError(f"keys must be a str or an iterable of str, not a {type(keys).__name__}")
    secrets = tuple(_encode_key(key) for key in ([keys] if isinstance(keys, str) else keys))
    if not secrets:
        raise ValueError("keys must have at least one key; None is for callbacks without signature")
    return Keyring(secrets)


def verify_task_id(
    task_id: str,
    headers: Headers,
    keyring: Keyring,
    *,
    tolerance: float,
    now: float | None = None,
) -> None:
    """Raise `SignatureError` unless a key has signed this id within `tolerance` seconds of `now`.

    Only a genuine signature is reported as stale.
    """
    timestamps, signatures = _signature_headers(headers)
    stamp, signature = _single_value(timestamps, task_id), _single_value(signatures, task_id)
    if not _UNIX_SECONDS.fullmatch(stamp) or not _is_base64_digest(signature):
        raise SignatureError(task_id=task_id, reason="is malformed")
    # Every key is tried, so that the duration does not reveal which one matched.
    matches = [
        hmac.compare_digest(_sign(task_id, key, stamp), signature.encode())
        for key in keyring.secrets
    ]
    if not any(matches):
        raise SignatureError(task_id=task_id, reason="does not match")
    if abs((time.time() if now is None else now) - int(stamp)) > tolerance:
        raise SignatureError(task_id=task_id, reason="is stale")


def _sign(task_id: str, key: bytes, timestamp: str) -> bytes:
    """Return the standard Base64 of HMAC-SHA256 over `taskId.timestamp`."""
    return b64encode(hmac.digest(key, f"{task_id}.{timestamp}".encode(), "sha256"))


def _encode_key(key: object) -> bytes:
    if not isinstance(key, str):
        raise TypeError(f"keys must be str, not a {type(key).__name__}")
    if not is_key(key):
        raise ValueError(
            "keys must be printable texts, not empty and without whitespace around them "
            "(they are not shown here)"
        )
    return key.encode()


def _signature_headers(headers: Headers) -> tuple[list[object], list[object]]:
    """Return the values of the timestamp and signature headers, whose names may be in any case."""
    found: dict[str, list[object]] = {TIMESTAMP_HEADER.lower(): [], SIGNATURE_HEADER.lower(): []}
    for name, value in _header_pairs(headers):
        found.get(_header_text(name).lower(), []).append(value)
    timestamps, signatures = found.values()
    return timestamps, signatures


def _header_pairs(headers: Headers) -> list[tuple[object, object]]:
    # By duck typing: the headers of some frameworks are not registered as mappings.
    items = headers.items() if hasattr(headers, "items") else headers
    try:
        return [(name, value) for name, value in items]
    except (TypeError, ValueError):
        # The message leaves the headers out: they may hold secrets.
        raise TypeError(
            f"headers must be a mapping or an iterable of pairs, not this {type(headers).__name__}"
        ) from None


def _header_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _single_value(values: list[object], task_id: str) -> str:
    if not values:
        raise SignatureError(task_id=task_id, reason="is missing")
    # Of two values, it would be unclear which one counts: both are malformed.
    return _header_text(values[0]) if len(values) == 1 else ""


def _is_base64_digest(signature: str) -> bool:
    try:
        return len(b64decode(signature, validate=True)) == _DIGEST_SIZE
    except ValueError:
        return False
