"""What the fields of a plan accept: each refusal names the field and what was given."""

from collections.abc import Callable
from math import inf
from typing import Any

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
number_of_times: Validator = _number(
    "a whole number of at least 1", lambda value: value >= 1, whole=True
)


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


def yes_or_no(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be True or False, not {value!r}")


def key(_: Any, attribute: Any, value: Any) -> None:
    """What was given is not shown: it may be the key with a blank too many."""
    refusal = f"the callback {attribute.name} must be a text that is not empty, or None"
    if not isinstance(value, str):
        raise TypeError(f"{refusal}, not a {type(value).__name__}")
    if not value:
        raise ValueError(refusal)
