"""What settings and plans accept: each refusal names the field and what was given."""

from collections.abc import Callable, Collection
from math import inf
from typing import Any, NamedTuple

Validator = Callable[[Any, Any, Any], None]


def _is_number(value: object, *, whole: bool = False) -> bool:
    return isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)


def _number(wanted: str, accepts: Callable[[float], bool], *, whole: bool = False) -> Validator:
    def validate(_: Any, attribute: Any, value: Any) -> None:
        refusal = f"{attribute.name} must be {wanted}, not {value!r}"
        if not _is_number(value, whole=whole):
            raise TypeError(refusal)
        if not accepts(value):
            raise ValueError(refusal)

    return validate


share: Validator = _number("a share from 0 to 1", lambda value: 0 <= value <= 1)
pause: Validator = _number("a number of seconds, 0 or more", lambda value: 0 <= value < inf)
limit: Validator = _number("a number of seconds above 0", lambda value: 0 < value < inf)
amount: Validator = _number("a number, 0 or more", lambda value: 0 <= value < inf)
shift: Validator = _number("a finite number of seconds", lambda value: -inf < value < inf)
number_of_times: Validator = _number(
    "a whole number of at least 1", lambda value: value >= 1, whole=True
)
whole_number: Validator = _number("a whole number, 0 or more", lambda value: value >= 0, whole=True)
_port: Validator = _number("a port from 0 to 65535", lambda value: 0 <= value <= 65535, whole=True)


class _Argument(NamedTuple):
    name: str


def argument(name: str, value: object, accepts: Validator) -> None:
    """The same of an argument that becomes no field."""
    accepts(None, _Argument(name), value)


def ports(**given: int) -> list[int]:
    for name, port in given.items():
        argument(name, port, _port)
    return list(given.values())


def duration(_: Any, attribute: Any, value: Any) -> None:
    if callable(value):
        return
    wanted = "seconds, a range (lowest, highest) of them, or a callable that draws them"
    refusal = f"{attribute.name} must be {wanted}, not {value!r}"
    ends = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
    if not all(map(_is_number, ends)):
        raise TypeError(refusal)
    if not 0 <= ends[0] <= ends[1] < inf:
        raise ValueError(refusal)


def window(_: Any, attribute: Any, value: Any) -> None:
    if value is None:
        return
    refusal = (
        f"{attribute.name} must be (number, seconds), with a whole number of at least 1 and a "
        f"finite time above 0, or None, not {value!r}"
    )
    if not (isinstance(value, tuple) and len(value) == 2):
        raise TypeError(refusal)
    number, seconds = value
    if not (_is_number(number, whole=True) and _is_number(seconds)):
        raise TypeError(refusal)
    if not (number >= 1 and 0 < seconds < inf):
        raise ValueError(refusal)


def yes_or_no(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be True or False, not {value!r}")


def a(wanted: type, name: str) -> Validator:
    def validate(_: Any, __: Any, value: Any) -> None:
        if not isinstance(value, wanted):
            raise TypeError(f"{name} must be a {wanted.__name__}, not {value!r}")

    return validate


def ids(_: Any, attribute: Any, value: Any) -> None:
    # In a text, every part of it would be one.
    if isinstance(value, str) or not isinstance(value, Collection):
        raise TypeError(f"{attribute.name} must be a collection of ids, not {value!r}")


def key(name: str) -> Validator:
    """What was given is not shown: it may be the key with a blank too many."""
    refusal = (
        f"{name} must be a printable text, not empty and without whitespace around it, or None"
    )

    def validate(_: Any, __: Any, value: Any) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{refusal}, not a {type(value).__name__}")
        if not (value and value.isprintable() and value == value.strip()):
            raise ValueError(refusal)

    return validate
