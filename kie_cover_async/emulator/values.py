"""Validators of the emulator's settings: each error names the setting and the given value."""

from collections.abc import Callable, Collection
from math import inf
from random import Random
from typing import Any, NamedTuple

Validator = Callable[[Any, Any, Any], None]
Duration = float | tuple[float, float] | Callable[[Random], float]


def draw(duration: Duration, rng: Random) -> float:
    """Return seconds: the number itself, one within the range, or the result of the callable."""
    if callable(duration):
        return duration(rng)
    return rng.uniform(*duration) if isinstance(duration, tuple) else duration


class _Argument(NamedTuple):
    name: str


def validate(name: str, value: object, validator: Validator) -> None:
    """Validate an argument that is not an attrs field."""
    validator(None, _Argument(name), value)


def _is_number(value: object, *, whole: bool = False) -> bool:
    return isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)


def _number(expected: str, accepts: Callable[[float], bool], *, whole: bool = False) -> Validator:
    def validator(_: Any, attribute: Any, value: Any) -> None:
        message = f"{attribute.name} must be {expected}, not {value!r}"
        if not _is_number(value, whole=whole):
            raise TypeError(message)
        if not accepts(value):
            raise ValueError(message)

    return validator


share: Validator = _number("a share from 0 to 1", lambda value: 0 <= value <= 1)
seconds: Validator = _number("a number of seconds, 0 or more", lambda value: 0 <= value < inf)
positive_seconds: Validator = _number("a number of seconds above 0", lambda value: 0 < value < inf)
offset: Validator = _number("a finite number of seconds", lambda value: -inf < value < inf)
amount: Validator = _number("a number, 0 or more", lambda value: 0 <= value < inf)
count: Validator = _number("a whole number of at least 1", lambda value: value >= 1, whole=True)
count_or_zero: Validator = _number(
    "a whole number, 0 or more", lambda value: value >= 0, whole=True
)
port: Validator = _number("a port from 0 to 65535", lambda value: 0 <= value <= 65535, whole=True)


def duration(_: Any, attribute: Any, value: Any) -> None:
    """Accept a `Duration`."""
    if callable(value):
        return
    expected = "seconds, a range (lowest, highest) of them, or a callable that draws them"
    message = f"{attribute.name} must be {expected}, not {value!r}"
    ends = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
    if not all(map(_is_number, ends)):
        raise TypeError(message)
    if not 0 <= ends[0] <= ends[1] < inf:
        raise ValueError(message)


def window(_: Any, attribute: Any, value: Any) -> None:
    """Accept a number of requests and the seconds in which they may come, or `None`."""
    if value is None:
        return
    message = (
        f"{attribute.name} must be (number, seconds), with a whole number of at least 1 and a "
        f"finite time above 0, or None, not {value!r}"
    )
    is_pair = isinstance(value, tuple) and len(value) == 2
    if not (is_pair and _is_number(value[0], whole=True) and _is_number(value[1])):
        raise TypeError(message)
    if not (value[0] >= 1 and 0 < value[1] < inf):
        raise ValueError(message)


def boolean(_: Any, attribute: Any, value: Any) -> None:
    """Accept True and False."""
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be True or False, not {value!r}")


def ids(_: Any, attribute: Any, value: Any) -> None:
    """Accept a collection of ids."""
    # A str is a collection of its characters.
    if isinstance(value, str) or not isinstance(value, Collection):
        raise TypeError(f"{attribute.name} must be a collection of ids, not {value!r}")


def instance(kind: type, name: str) -> Validator:
    """Return a validator that accepts instances of `kind`, and calls the setting `name`."""

    def validator(_: Any, __: Any, value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, not {value!r}")

    return validator


def key(name: str) -> Validator:
    """Return a validator of keys. Its errors do not show the value, which may contain a key."""
    message = (
        f"{name} must be a printable text, not empty and without whitespace around it, or None"
    )

    def validator(_: Any, __: Any, value: Any) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{message}, not a {type(value).__name__}")
        if not (value and value.isprintable() and value == value.strip()):
            raise ValueError(message)

    return validator
