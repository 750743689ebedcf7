"""What every body of the API is wrapped in, whether it answers or calls back."""

import json
import re
from collections.abc import Mapping
from typing import Any

_read_value = json.JSONDecoder().raw_decode
_CODE_DIGITS = re.compile(r"\d{1,4}", re.ASCII)


def parsed_body(body: bytes | str) -> Any:
    """The body as JSON, or as the bytes or the text that it is; raises nothing."""
    try:
        return _parsed_plainly(body)
    except (ValueError, RecursionError):
        return _parsed_slowly(body)


def code_of(parsed: Any) -> int | None:
    """The envelope's code; `None` where there is no envelope."""
    code = parsed.get("code") if isinstance(parsed, (dict, Mapping)) else None
    if isinstance(code, str) and _CODE_DIGITS.fullmatch(code):
        return int(code)
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _parsed_plainly(body: bytes | str) -> Any:
    """JSON in UTF-8 with nothing around it, as the API writes it; what else may be costs more."""
    text = body.decode() if isinstance(body, bytes) else body
    value, end = _read_value(text)
    if end != len(text):
        raise ValueError
    return value


def _parsed_slowly(body: bytes | str) -> Any:
    """JSON in other encodings, with blanks around it, or numbers too long for Python to read."""
    try:
        return json.loads(body, parse_int=_whole_number)
    except (ValueError, RecursionError):
        return body


def _whole_number(digits: str) -> float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)
