"""Whether a callback comes from who knows the key."""

from collections.abc import Mapping
from typing import Any

from kie_cover_async.api.callback import parse_callback
from kie_cover_async.signature import Headers, Keys, a_keyring, signed_headers, verify
from kie_cover_async.validation import validate_number

TOLERANCE = 300.0
"""Seconds: the vendor documents no window; this is what others use."""


def verify_signature(
    headers: Headers,
    body: bytes | str | Mapping[str, Any],
    keys: Keys,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> None:
    """Return if one of `keys` has signed the callback; raise `SignatureError` if not.

    Only the body's task id and the time are signed, so that a verified callback is still no more
    than a reason to poll. Raises `InvalidResponseError` for a body that has no task id.

    :param headers: a mapping or an iterable of pairs; names in any case, `str` or `bytes`.
    :param keys: one key, or several while keys are being changed.
    :param tolerance: how many seconds the timestamp may be away from now, either way.
    :param now: Unix seconds, in the place of the clock's.
    """
    keyring = a_keyring(keys)
    validate_number("tolerance", tolerance, at_least=0)
    if now is not None:
        validate_number("now", now)
    verify(parse_callback(body).task_id, headers, keyring, tolerance=tolerance, now=now)


def sign_callback(task_id: str, key: str, *, timestamp: int | None = None) -> dict[str, str]:
    """The two headers with which a callback for `task_id` is signed: for tests of one's service.

    `timestamp` is in Unix seconds; `None` is now.
    """
    return signed_headers(task_id, key, timestamp)
