"""Validation of arguments: errors name the argument, the given value and what is accepted."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from inspect import iscoroutinefunction
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import inf, isfinite
from sys import float_info
from typing import Any, TypeGuard

from yarl import URL

from .errors import InvalidTaskIdError

Network = IPv4Network | IPv6Network
FieldValidator = Callable[[Any, Any, Any], None]

_MAX_REPR = 60
# Origins that need no parsing by yarl, which costs more than the rest of an image record does.
_PLAIN_ORIGIN = re.compile(
    r"https?://(?:(?!(?i:xn--))[A-Za-z0-9-]{1,63}\.)*(?!(?i:xn--))[A-Za-z0-9-]{0,62}[A-Za-z0-9]"
)
# yarl raises these for a str that is not a URL; IndexError if brackets precede an @.
URL_ERRORS = (ValueError, IndexError)
# Masked in messages: it may contain a password.
_USER_INFO = re.compile(r"//.*@", re.DOTALL)
_MAX_FLOAT = float_info.max


def short_repr(value: object) -> str:
    """Return the value's repr, cut to a length that fits a message."""
    try:
        # A str is cut first, so that the repr of a huge one is never built.
        text = repr(value[:_MAX_REPR] if isinstance(value, (str, bytes)) else value)
    except Exception:  # noqa: BLE001 - the caller's class may raise anything
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MAX_REPR else f"{text[: _MAX_REPR - 1]}…"


def validate_number(
    name: str,
    value: object,
    *,
    above: float = -inf,
    at_least: float = -inf,
    below: float = inf,
    whole: bool = False,
) -> None:
    """Raise unless *value* is a finite number (an integer if `whole`) within the bounds."""
    expected = _describe_number(above, at_least, below, whole)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise TypeError(f"{name} must be {expected}, not {short_repr(value)}")
    # Not `isfinite`, which fails on an int that exceeds every float.
    if not (above < value < below) or value < at_least or abs(value) > _MAX_FLOAT:
        raise ValueError(f"{name} must be {expected}, not {short_repr(value)}")


def _describe_number(above: float, at_least: float, below: float, whole: bool) -> str:
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("above", above), ("of at least", at_least), ("below", below))
        if isfinite(bound)
    ]
    return " ".join(
        ["a whole number" if whole else "a finite number", " and ".join(bounds)]
    ).strip()


def number_validator(**bounds: Any) -> FieldValidator:
    """Return `validate_number` as a validator of an attrs field."""

    def validate(_: Any, attribute: Any, value: Any) -> None:
        validate_number(attribute.name, value, **bounds)

    return validate


def at_least_field(other: str) -> FieldValidator:
    """Return a validator of an attrs field that rejects a number below an earlier field's."""

    def validate(instance: Any, attribute: Any, value: Any) -> None:
        if value < (minimum := getattr(instance, other)):
            expected = f"{attribute.name} must be at least {other}, which is {minimum:g}"
            raise ValueError(f"{expected}, not {short_repr(value)}")

    return validate


def is_one_word(value: object) -> TypeGuard[str]:
    """Return whether *value* is a non-empty str without blanks and unprintable characters."""
    return isinstance(value, str) and value != "" and value.isprintable() and " " not in value


# Thousands of images come from the same host.
@lru_cache(maxsize=64)
def _is_plain_origin(text: str) -> bool:
    return _PLAIN_ORIGIN.fullmatch(text) is not None


def is_http_url(value: object) -> TypeGuard[str]:
    """Return whether *value* is a str that is an absolute http or https URL."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value:
        end = value.find("/", len("https://"))
        if _is_plain_origin(value if end < 0 else value[:end]):
            return True
    # yarl also accepts blanks, and drops line breaks.
    if not is_one_word(value):
        return False
    try:
        url = URL(value)
        # Fails for labels that no resolver accepts: empty, too long, or invalid Punycode.
        (url.raw_host or "").encode("idna")
        return url.scheme in {"http", "https"} and bool(url.host)
    except URL_ERRORS:
        return False


def validate_task_id(name: str, value: object) -> str:
    """Return the id unchanged, or raise `InvalidTaskIdError`.

    Any non-empty str without blanks and control characters is accepted: the API's ids are 32
    hexadecimal digits, but nothing guarantees that.
    """
    if not is_one_word(value):
        raise InvalidTaskIdError(argument=name, given=short_repr(value))
    return value


def validate_http_url(name: str, value: object) -> URL:
    """Return the URL; raise unless it is an absolute http or https URL."""
    masked = _USER_INFO.sub("//***@", str(value)) if isinstance(value, (str, URL)) else value
    message = f"{name} must be an absolute http or https URL, not {short_repr(masked)}"
    if not isinstance(value, (str, URL)):
        raise TypeError(message)
    if not is_http_url(str(value)):
        raise ValueError(message)
    return URL(value)


def parse_networks(name: str, value: object) -> tuple[Network, ...]:
    """Return the networks, each given as a str or as a network of `ipaddress`."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be an iterable of networks, not {short_repr(value)}")
    return tuple(_parse_network(name, each) for each in value)


def _parse_network(name: str, value: object) -> Network:
    message = f"{name} must be a network such as '198.18.0.0/15', not {short_repr(value)}"
    # `ip_network` would read numbers and bytes as single addresses.
    if not isinstance(value, (str, IPv4Network, IPv6Network)):
        raise TypeError(message)
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError(message) from None


def validate_callable(name: str, value: object) -> None:
    """Raise `TypeError` unless *value* is callable or `None`."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable, not {short_repr(value)}")


def callable_validator(_: Any, attribute: Any, value: Any) -> None:
    """Validate an attrs field by `validate_callable`."""
    validate_callable(attribute.name, value)


def validate_plain_callable(name: str, value: object) -> None:
    """Raise `TypeError` unless *value* is callable and not async."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {short_repr(value)}")
    # An instance may have an async `__call__`; that of a class is `type.__call__`.
    if any(map(iscoroutinefunction, (value, type(value).__call__))):
        raise TypeError(f"{name} must be a plain function, not the async {short_repr(value)}")


def instance_validator(kind: type) -> FieldValidator:
    """Return a validator of an attrs field that accepts only instances of `kind`."""

    def validate(_: Any, attribute: Any, value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{attribute.name} must be a {kind.__name__}, not {short_repr(value)}")

    return validate
