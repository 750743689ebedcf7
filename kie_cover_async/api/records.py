"""The shape of `data`: JSON values to models and back, by a private cattrs converter.

Strict in what matters (id, flag, the images of a success), lenient in what only informs (times,
URLs, error texts).
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from sys import float_info
from typing import Any, Final

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_unstructure_fn, override

from kie_cover_async.errors import InvalidResponseError
from kie_cover_async.models import CoverDetails, CoverResponse, CoverState
from kie_cover_async.validation import is_http_url, is_one_word, short_repr

_log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Below this a number is seconds: as milliseconds it would be a day before 1973-03-03.
_FIRST_MILLISECONDS = 100_000_000_000
# In 2242: up to here a float of seconds is exact to the microsecond.
_LAST_EXACT_MILLISECONDS = 2**33 * 1000
# As the API documents a time, which is also how `unstructure_details` writes it. Patterns are given
# as text, so that nothing is compiled on import.
_DOCUMENTED_TIME = r"(?a)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z"
_CALENDAR_DATE = r"(?a)\d{4}-\d\d-\d\d(?:[T ]|$)"
_MAX_DIGITS = 20
_NO_ERROR = (200, 0, "200", "0", "", None)

# A shape is for people to read and to report.
_MAX_SHAPE_DEPTH, _MAX_SHAPE_KEYS, _MAX_KEY_LENGTH, _MAX_SHAPE_LENGTH = 6, 40, 40, 2000

MISSING: Final = object()


class DecodeError(Exception):
    """A value that cannot be read, at a path relative to where the reading began."""

    def __init__(self, path: str, value: object, expected: str) -> None:
        super().__init__(path, value, expected)
        self.path: str = path
        self.value: object = value
        self._expected = expected

    def facts(self, root: str) -> dict[str, Any]:
        """Return what an `InvalidResponseError` says, if the reading began at `root`."""
        found = "nothing" if self.value is MISSING else short_repr(self.value)
        return {"path": root + self.path, "found": found, "expected": self._expected}


def read_id(record: object) -> str:
    """Return the record's task id, fit to be asked for again.

    Raises:
        DecodeError: There is none, or no record.
    """
    if not isinstance(record, (dict, Mapping)):  # a dict is recognised faster
        raise DecodeError("", record, "an object")
    task_id = record.get("taskId", MISSING)
    if is_one_word(task_id):
        return task_id
    raise DecodeError(".taskId", task_id, "a non-empty text without blanks")


def read_url(path: str, value: object) -> str:
    """Return the value if it is an http or https URL.

    Raises:
        DecodeError: It is not.
    """
    if is_http_url(value):
        return value
    raise DecodeError(path, value, "an http or https URL")


def read_amount(path: str, value: object) -> float:
    """Return the value if it is a finite number: whole by the pages, seen with decimals.

    Raises:
        DecodeError: It is not.
    """
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= float_info.max  # unlike `isfinite`, for an int of any size
    ):
        return float(value)
    raise DecodeError(path, value, "a finite number")


def read_images(path: str, images: object) -> tuple[str, ...]:
    """Return the URLs among the images; null or blank entries are places for images to come.

    Raises:
        DecodeError: It is not an array, or has entries that are not blank and no URL.
    """
    if not isinstance(images, (list, tuple)):
        if is_blank(images):
            return ()
        raise DecodeError(path, images, "an array of URLs")
    usable = tuple(filter(is_http_url, images))
    if not usable and not all(map(is_blank, images)):
        read_url(f"{path}[0]", images[0])
    if len(usable) < len(images):
        _log.warning(
            "%d of %d images are not URLs: left out", len(images) - len(usable), len(images)
        )
    return usable


def shape_of(record: Mapping[Any, Any]) -> str:
    """Return the record's keys and types, and none of its values: fit to be reported."""
    return _shape_of(record, _MAX_SHAPE_DEPTH)[:_MAX_SHAPE_LENGTH]


def _shape_of(value: object, depth: int) -> str:
    if isinstance(value, str):
        return _shape_of_text(value, depth)
    if not isinstance(value, (Mapping, list, tuple)):
        return "null" if value is None else type(value).__name__
    if depth <= 0:
        return "…"
    if isinstance(value, Mapping):
        members = [
            f"{_printable(str(key)[:_MAX_KEY_LENGTH])}: {_shape_of(member, depth - 1)}"
            for key, member in islice(value.items(), _MAX_SHAPE_KEYS)
        ]
        return "{" + ", ".join(members) + "}"
    shapes = dict.fromkeys(_shape_of(item, depth - 1) for item in value[:_MAX_SHAPE_KEYS])
    return f"[{', '.join(shapes)}]"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)


def _shape_of_text(text: str, depth: int) -> str:
    if is_http_url(text):
        return "URL"
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return "str"
    return f"str of {_shape_of(parsed, depth - 1)}" if isinstance(parsed, (dict, list)) else "str"


def structure_details(mapping: Mapping[str, Any]) -> CoverDetails:
    """Read a mapping in the shape of the API's `data`, or of `unstructure_details`.

    An informational field that cannot be read is left out, and named in the log.

    Raises:
        InvalidResponseError: The id, the flag or the images of a success cannot be read.
    """
    try:
        return structure(mapping, CoverDetails)
    except DecodeError as error:
        problem = error
    raise InvalidResponseError(**problem.facts("$"))


def unstructure_details(details: CoverDetails) -> dict[str, Any]:
    """Return a JSON-ready dict in the API's camelCase.

    Times are ISO 8601 in UTC with milliseconds and `Z`.
    """
    record: dict[str, Any] = _converter.unstructure(details, CoverDetails)
    return record


def _structure_details(record: Any, _: type) -> CoverDetails:
    task_id = read_id(record)
    get = record.get
    flag = get("successFlag")
    if type(flag) is not int:
        flag = _flag(flag, get("status"))
    code, message = get("errorCode"), get("errorMessage")
    if code is not None:
        code = _code("errorCode", code)
    if message is not None:
        message = _text("errorMessage", message)
        # A failed job's message is worth having even without a code that means something.
        if code is None and not CoverState.of(flag).is_failure:
            message = None
    parent, callback = get("parentTaskId"), get("callbackUrl")
    created, completed = get("createTime"), get("completeTime")
    response, credits = _response(get("response"), flag), get("creditsConsumed")
    return CoverDetails(
        task_id=task_id,
        parent_task_id=None if parent is None else _text("parentTaskId", parent),
        callback_url=None if callback is None else _text("callbackUrl", callback),
        create_time=None if created is None else _time("createTime", created),
        complete_time=None if completed is None else _time("completeTime", completed),
        response=response,
        success_flag=flag,
        error_code=code,
        error_message=message,
        credits_consumed=None if credits is None else _amount("creditsConsumed", credits),
        record_shape=shape_of(record) if _is_odd(flag, response) else None,
    )


def _is_odd(flag: int | str | None, response: CoverResponse) -> bool:
    """Return whether a record like this was never published: no known state, or no images."""
    if flag == 1 and response.images:
        return False
    state = CoverState.of(flag)
    return state is CoverState.UNKNOWN or (state is CoverState.SUCCESS and not response.images)


def _flag(value: object, status: object) -> int | str | None:
    if value is None or value == "":
        return status if isinstance(status, str) and status else None
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return value
    raise DecodeError(".successFlag", value, "a whole number or a text")


def _response(value: object, flag: int | str | None) -> CoverResponse:
    try:
        return CoverResponse(images=_images(value))
    except DecodeError as error:
        # The way in which a job without images says so is no reason to lose the rest.
        if CoverState.of(flag) is CoverState.SUCCESS:
            raise
        log_left_out(error.path[1:], error.value)
    return CoverResponse()


def _images(response: object) -> tuple[str, ...]:
    images = response
    if isinstance(response, (dict, Mapping)):
        images = response.get("images")
    elif not is_blank(response):
        raise DecodeError(".response", response, "an object")
    return read_images(".response.images", images)


def is_blank(value: object) -> bool:
    """Return whether the value stands for something to come: null, or a text of blanks."""
    return value is None or (isinstance(value, str) and not value.strip())


def _amount(name: str, value: object) -> float | None:
    try:
        return read_amount("", value)
    except DecodeError:
        log_left_out(name, value)
        return None


def _text(name: str, value: object) -> str | None:
    if isinstance(value, str):
        return value or None
    log_left_out(name, value)
    return None


def _code(name: str, value: object) -> int | str | None:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return None if value in _NO_ERROR else value
    log_left_out(name, value)
    return None


def _time(name: str, value: Any) -> datetime | None:
    # As the API writes a time; everything else takes longer.
    if type(value) is int and _FIRST_MILLISECONDS <= value < _LAST_EXACT_MILLISECONDS:
        return datetime.fromtimestamp(value / 1000, UTC)
    try:
        if isinstance(value, str):
            return _parse_text(value.strip()) if value else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _parse_epoch(value)
    except (ValueError, OverflowError):
        pass
    log_left_out(name, value)
    return None


def log_left_out(name: str, value: object) -> None:
    """Log that an informational value cannot be read."""
    _log.warning("%s cannot be read, left out: a %s", name, type(value).__name__)


def _parse_text(text: str) -> datetime | None:
    if re.fullmatch(_DOCUMENTED_TIME, text):
        return datetime.fromisoformat(text)
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS:
        return _parse_epoch(int(text))
    # `fromisoformat` alone would also take week dates and bare digits.
    if not re.match(_CALENDAR_DATE, text):
        raise ValueError
    time = datetime.fromisoformat(text)
    time = time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def _parse_epoch(value: float) -> datetime | None:
    milliseconds = int(value if abs(value) >= _FIRST_MILLISECONDS else value * 1000)
    # A clock that was never set is written as zero.
    return _EPOCH + timedelta(milliseconds=milliseconds) if milliseconds else None


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _camel_case(name: str) -> str:
    return re.sub(r"_(\w)", lambda letter: letter[1].upper(), name)


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=False, unstruct_collection_overrides={tuple: list})
    names = [field.name for field in attrs.fields(CoverDetails)]
    fields: Any = {name: override(rename=_camel_case(name)) for name in names}
    fields["record_shape"] = override(omit=True)
    converter.register_unstructure_hook(datetime, _format_time)
    converter.register_unstructure_hook(
        CoverDetails, make_dict_unstructure_fn(CoverDetails, converter, **fields)
    )
    # One pass by hand: a reader that cattrs generates, with a hook for each field, took twice the
    # instructions.
    converter.register_structure_hook(CoverDetails, _structure_details)
    return converter


_converter = _make_converter()

structure: Callable[[object, type[CoverDetails]], CoverDetails] = _converter.get_structure_hook(
    CoverDetails
)
"""Returns the details that `data` of a record holds.

Taken from the converter once: `converter.structure` would look it up on each call.

Raises:
    DecodeError: The id, the flag or the images of a success cannot be read.
"""
