"""The envelope around every body of the API, whether it answers or calls back.

JSON is parsed by orjson if it is installed (the extra `speedups`), and by the standard library if
not. Every body is read the same by both: where orjson would read it differently, `json` decides.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Parser = Callable[[bytes | str], Any]
"""Returns a body as JSON, or raises `ValueError` or `RecursionError`."""

_CODE_DIGITS = re.compile(r"\d{1,4}", re.ASCII)

# What `raw_decode` calls after one more frame.
_scan_once: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

# orjson reserves twelve times the length of a body, which is much for one of a mebibyte. The API's
# have less than two kibibytes.
_MAX_ORJSON_LENGTH = 1 << 16
# An answer's images stand four levels deep. orjson stops at 1024 levels, `json` at another depth.
_MAX_DEPTH = 8
_CERTAIN = frozenset({str, int, bool, type(None)})
# orjson makes a float of a whole number past 64 bits.
_FIRST_UNSAFE_FLOAT = 2.0**63


def parse_body(body: bytes | str) -> Any:
    """Return the body as JSON, or as the bytes or the text that it is; raise nothing."""
    try:
        return parse_quickly(body)
    except (ValueError, RecursionError):
        return _parse_slowly(body)


def code_of(parsed: Any) -> int | None:
    """Return the envelope's code, or `None` if there is no envelope."""
    code = parsed.get("code") if isinstance(parsed, (dict, Mapping)) else None
    if type(code) is int:
        return code
    if isinstance(code, str) and _CODE_DIGITS.fullmatch(code):
        return int(code)
    return None


def parse_with_json(body: bytes | str) -> Any:
    """Parse JSON in UTF-8 with nothing around it, as the API writes it.

    Raises `ValueError` or `RecursionError` for anything else, such as JSON with blanks around it.
    """
    text = body.decode() if isinstance(body, bytes) else body
    try:
        value, end = _scan_once(text, 0)
    except StopIteration:
        raise ValueError from None
    if end != len(text):
        raise ValueError
    return value


def orjson_parser() -> Parser | None:
    """Return a parser that uses orjson, or `None` if it is not installed."""
    try:
        import orjson  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    loads: Parser = orjson.loads

    def parse_with_orjson(body: bytes | str) -> Any:
        if len(body) > _MAX_ORJSON_LENGTH:
            return parse_with_json(body)
        # It raises `ValueError` for all else that `json` may read: NaN, half a surrogate pair,
        # numbers past all floats, a byte order mark, other encodings.
        value = loads(body)
        if type(value) is dict and _is_certain(value, _MAX_DEPTH):
            return value
        return parse_with_json(body)

    return parse_with_orjson


def _is_certain(container: Any, depth: int) -> bool:
    """Return whether `json` reads the same, judging by what orjson has read."""
    if not depth:
        return False
    for value in container.values() if type(container) is dict else container:
        kind = type(value)
        if kind in _CERTAIN:
            continue
        if kind is float:
            if not -_FIRST_UNSAFE_FLOAT < value < _FIRST_UNSAFE_FLOAT:
                return False
        elif not _is_certain(value, depth - 1):
            return False
    return True


def _parse_slowly(body: bytes | str) -> Any:
    """Parse JSON in other encodings, with blanks around it, or with numbers of any length."""
    try:
        return json.loads(body, parse_int=_whole_number)
    except (ValueError, RecursionError):
        return body


def _whole_number(digits: str) -> float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


parse_quickly: Parser = orjson_parser() or parse_with_json
