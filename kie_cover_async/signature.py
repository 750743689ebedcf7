"""The HMAC over a callback's task id and timestamp: signing and verifying. It reads no bodies."""

import hmac
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

from attrs import field, frozen

from .errors import SignatureError
from .validation import validate_number, validate_task_id

SIGNATURE_HEADER: Final = "X-Webhook-Signature"
TIMESTAMP_HEADER: Final = "X-Webhook-Timestamp"

Keys = str | Iterable[str]
Headers = Mapping[Any, Any] | Iterable[tuple[str | bytes, str | bytes]]

_UNIX_SECONDS = re.compile(r"\d{1,20}", re.ASCII)
_DIGEST_SIZE = 32


@frozen
class Keyring:
    """The keys that may have signed, in no repr and no pickle: during a rotation there are two."""

    secrets: tuple[bytes, ...] = field(repr=False)

    def __reduce__(self) -> NoReturn:
        # The keys would go along, to wherever pickles are kept.
        raise TypeError("a CallbackInbox with keys is not to be pickled or copied deeply")


def a_keyring(keys: Keys) -> Keyring:
    """One key, or several; no error ever shows one."""
    if isinstance(keys, bytes) or not isinstance(keys, Iterable):
        raise TypeError(f"keys must be a str or an iterable of str, not a {type(keys).__name__}")
    secrets = tuple(_secret(key) for key in ([keys] if isinstance(keys, str) else keys))
    if not secrets:
        raise ValueError("keys must have at least one key; None is for callbacks without signature")
    return Keyring(secrets)


def is_key(text: str) -> bool:
    """Return whether it can be a key: printable, not empty and without whitespace around it.

    Anything else is a key with the line break or the byte order mark of the file it was read from.
    """
    return text != "" and text.isprintable() and text == text.strip()


def sign(task_id: str, key: bytes, timestamp: str) -> bytes:
    """The standard Base64 of HMAC-SHA256 over `taskId.timestamp`."""
    return b64encode(hmac.digest(key, f"{task_id}.{timestamp}".encode(), "sha256"))


def signed_headers(task_id: str, key: str, timestamp: int | None = None) -> dict[str, str]:
    """The two headers of a callback, signed now or at `timestamp`."""
    validate_task_id("task_id", task_id)
    if timestamp is not None:
        validate_number("timestamp", timestamp, at_least=0, whole=True)
    stamp = str(int(time.time()) if timestamp is None else timestamp)
    signature = sign(task_id, _secret(key), stamp).decode()
    return {TIMESTAMP_HEADER: stamp, SIGNATURE_HEADER: signature}


def verify(
    task_id: str,
    headers: Headers,
    keyring: Keyring,
    *,
    tolerance: float,
    now: float | None = None,
) -> None:
    """Return if one of the keys has signed this id within `tolerance` seconds of `now`.

    Raises `SignatureError` otherwise. That a signature is stale is said of genuine ones only.
    """
    given = _signature_headers(headers)
    stamp, signature = (_only(values, task_id) for values in given.values())
    if not _UNIX_SECONDS.fullmatch(stamp) or not _is_base64_digest(signature):
        raise _refusal("is malformed", task_id)
    # All keys are tried, so that the time it takes does not tell which one it was.
    matches = [
        hmac.compare_digest(sign(task_id, key, stamp), signature.encode())
        for key in keyring.secrets
    ]
    if not any(matches):
        raise _refusal("does not match", task_id)
    if abs((time.time() if now is None else now) - int(stamp)) > tolerance:
        raise _refusal("is stale", task_id)


def _secret(key: object) -> bytes:
    if not isinstance(key, str):
        raise TypeError(f"keys must be str, not a {type(key).__name__}")
    if not is_key(key):
        raise ValueError(
            "keys must be printable texts, not empty and without whitespace around them "
            "(they are not shown here)"
        )
    return key.encode()


def _signature_headers(headers: Headers) -> dict[str, list[object]]:
    """What stands under the two names, whatever their case."""
    found: dict[str, list[object]] = {TIMESTAMP_HEADER: [], SIGNATURE_HEADER: []}
    names = {name.lower(): name for name in found}
    for name, value in _pairs(headers):
        if (known := names.get(_text(name).lower())) is not None:
            found[known].append(value)
    return found


def _pairs(headers: Headers) -> list[tuple[object, object]]:
    # By its method: the headers of some frameworks are no registered mappings.
    items = headers.items() if hasattr(headers, "items") else headers
    try:
        return [(name, value) for name, value in items]
    except (TypeError, ValueError):
        # Not shown: they may hold what is nobody's business.
        raise TypeError(
            f"headers must be a mapping or an iterable of pairs, not this {type(headers).__name__}"
        ) from None


def _text(value: object) -> str:
    """A name or value as text; what is neither text nor bytes is empty."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _only(values: list[object], task_id: str) -> str:
    if not values:
        raise _refusal("is missing", task_id)
    # Of two it would be anybody's guess which one counts.
    return _text(values[0]) if len(values) == 1 else ""


def _is_base64_digest(signature: str) -> bool:
    try:
        return len(b64decode(signature, validate=True)) == _DIGEST_SIZE
    except ValueError:
        return False


def _refusal(reason: str, task_id: str) -> SignatureError:
    return SignatureError(task_id=task_id, reason=reason)
