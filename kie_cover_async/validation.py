"""Refusing bad arguments: the error names the argument, what was given and what is accepted."""

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

_SHOWN = 60
# An origin that needs no parsing by yarl, which costs more than all else that is read of an image.
_PLAIN_ORIGIN = re.compile(
    r"https?://(?:(?!(?i:xn--))[A-Za-z0-9-]{1,63}\.)*(?!(?i:xn--))[A-Za-z0-9-]{0,62}[A-Za-z0-9]"
)
# What yarl raises of a text that is no URL; the latter where brackets stand before an @.
NO_URL = (ValueError, IndexError)
# As much as could be a password is not shown.
_USER_INFO = re.compile(r"//.*@", re.DOTALL)
_LARGEST = float_info.max


def short_repr(value: object) -> str:
    """The value's repr, cut to a length that fits a message."""
    try:
        # A text is cut first, so that the repr of a huge one is never made.
        text = repr(value[:_SHOWN] if isinstance(value, (str, bytes)) else value)
    except Exception:  # noqa: BLE001 - whose repr this is, is anybody's guess
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def validate_number(
    name: str,
    value: object,
    *,
    above: float = -inf,
    at_least: float = -inf,
    below: float = inf,
    whole: bool = False,
) -> None:
    """Refuse what is no finite number within the bounds, or no whole one."""
    wanted = _wanted(above, at_least, below, whole)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise TypeError(f"{name} must be {wanted}, not {short_repr(value)}")
    # No `isfinite` here: it fails on a whole number that is past all floats.
    if not (above < value < below) or value < at_least or abs(value) > _LARGEST:
        raise ValueError(f"{name} must be {wanted}, not {short_repr(value)}")


def _wanted(above: float, at_least: float, below: float, whole: bool) -> str:
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("above", above), ("of at least", at_least), ("below", below))
        if isfinite(bound)
    ]
    return " ".join(
        ["a whole number" if whole else "a finite number", " and ".join(bounds)]
    ).strip()


def checked(**bounds: Any) -> Callable[[Any, Any, Any], None]:
    """`validate_number` as a validator of an attrs field."""

    def validate(_: Any, attribute: Any, value: Any) -> None:
        validate_number(attribute.name, value, **bounds)

    return validate


def not_below(other: str) -> Callable[[Any, Any, Any], None]:
    """A validator of an attrs field that refuses a number below that of an earlier field."""

    def validate(instance: Any, attribute: Any, value: Any) -> None:
        if value < (least := getattr(instance, other)):
            wanted = f"{attribute.name} must be at least {other}, which is {least:g}"
            raise ValueError(f"{wanted}, not {short_repr(value)}")

    return validate


def is_one_word(value: object) -> TypeGuard[str]:
    """Whether it is a text that is not empty and has no blanks, control characters or the like."""
    return isinstance(value, str) and value != "" and value.isprintable() and " " not in value


# Thousands of images come from one host.
@lru_cache(maxsize=64)
def _is_plain_origin(text: str) -> bool:
    return _PLAIN_ORIGIN.fullmatch(text) is not None


def is_http_url(value: object) -> TypeGuard[str]:
    """Whether it is a text that is an absolute http or https URL."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value:
        end = value.find("/", len("https://"))
        if _is_plain_origin(value if end < 0 else value[:end]):
            return True
    # A URL is taken apart with blanks in it, too, and without the line breaks in it.
    if not is_one_word(value):
        return False
    try:
        url = URL(value)
        # What no resolver takes: a label that is empty, too long, or falsely said to be encoded.
        (url.raw_host or "").encode("idna")
        return url.scheme in {"http", "https"} and bool(url.host)
    except NO_URL:
        return False


def validate_task_id(name: str, value: object) -> str:
    """The id as it is, or `InvalidTaskIdError`.

    Any non-empty text without blanks or control characters will do: the API's ids are 32 hex
    digits, but nothing promises that.
    """
    if not is_one_word(value):
        raise InvalidTaskIdError(argument=name, given=short_repr(value))
    return value


def validate_http_url(name: str, value: object) -> URL:
    """The URL, if it is an absolute one of http or https."""
    given = _USER_INFO.sub("//***@", str(value)) if isinstance(value, (str, URL)) else value
    refusal = f"{name} must be an absolute http or https URL, not {short_repr(given)}"
    if not isinstance(value, (str, URL)):
        raise TypeError(refusal)
    if not is_http_url(str(value)):
        raise ValueError(refusal)
    return URL(value)


def networks(name: str, value: object) -> tuple[Network, ...]:
    """Return the networks, each given as a text or as a network of `ipaddress`."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be an iterable of networks, not {short_repr(value)}")
    return tuple(_network(name, each) for each in value)


def _network(name: str, value: object) -> Network:
    refusal = f"{name} must be a network such as '198.18.0.0/15', not {short_repr(value)}"
    # Numbers and bytes would be read as single addresses.
    if not isinstance(value, (str, IPv4Network, IPv6Network)):
        raise TypeError(refusal)
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError(refusal) from None


def validate_callable(name: str, value: object) -> None:
    """Refuse what is neither callable nor `None`."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable, not {short_repr(value)}")


def checked_callable(_: Any, attribute: Any, value: Any) -> None:
    """`validate_callable` as a validator of an attrs field."""
    validate_callable(attribute.name, value)


def validate_plain_callable(name: str, value: object) -> None:
    """Raise `TypeError` unless the value is callable and nothing would have to await it."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {short_repr(value)}")
    # An object's own call counts; a class, which is called to make one, has that of `type`.
    if any(map(iscoroutinefunction, (value, type(value).__call__))):
        raise TypeError(f"{name} must be a plain function, not the async {short_repr(value)}")


def checked_kind(kind: type) -> Callable[[Any, Any, Any], None]:
    """A validator of an attrs field that refuses what is of another kind."""

    def validate(_: Any, attribute: Any, value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{attribute.name} must be a {kind.__name__}, not {short_repr(value)}")

    return validate
