"""The shape of `data`: JSON values to models and back, by a private cattrs converter.

Strict in what matters (id, flag, the images of a success), lenient in what only informs (times,
URLs, error texts).
"""

import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import define, evolve
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from kie_cover_async.errors import InvalidResponseError
from kie_cover_async.models import CoverDetails, CoverResponse, CoverState
from kie_cover_async.validation import is_http_url, is_one_word, short_repr

_log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Below this a number is seconds: as milliseconds it would be a day before 1973-03-03.
_FIRST_MILLISECONDS = 100_000_000_000
_DIGITS = re.compile(r"-?\d{1,20}", re.ASCII)
_CALENDAR_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]|$)", re.ASCII)
_NO_ERROR = (200, 0, "200", "0")

Hook = Callable[[Any, Any], Any]


@define(slots=False, eq=False)
class DecodeError(Exception):
    """A value that cannot be read, at a path relative to where the reading began."""

    path: str
    found: str
    expected: str


def decode_error(path: str, value: object, expected: str) -> DecodeError:
    return DecodeError(path, short_repr(value), expected)


def an_id(record: Mapping[Any, object]) -> str:
    """The record's task id, fit to be asked for again, or `DecodeError`."""
    expected = "a non-empty text without blanks"
    if "taskId" not in record:
        raise DecodeError(".taskId", "nothing", expected)
    if is_one_word(task_id := record["taskId"]):
        return task_id
    raise decode_error(".taskId", task_id, expected)


def an_url(path: str, value: object) -> str:
    """A text that is an http or https URL, or `DecodeError`."""
    if is_http_url(value):
        return value
    raise decode_error(path, value, "an http or https URL")


def read_record(value: object) -> CoverDetails:
    """`data` of record-info to details; raises `DecodeError`."""
    if not isinstance(value, (dict, Mapping)):  # a dict is told faster
        raise decode_error("", value, "an object")
    an_id(value)
    if value.get("successFlag") in (None, "") and isinstance(value.get("status"), str):
        value = {**value, "successFlag": value["status"]}
    return _without_no_error(_structured(value))


def structure_details(mapping: Mapping[str, Any]) -> CoverDetails:
    """Read a mapping in the shape of the API's `data`, or of `unstructure_details`.

    Raises `InvalidResponseError`, and nothing else, where the id, the flag or the images of a
    success cannot be read; what else cannot be read is left out and named in the log.
    """
    try:
        return read_record(mapping)
    except DecodeError as error:
        problem = error
    raise InvalidResponseError(
        path=f"${problem.path}", found=problem.found, expected=problem.expected
    )


def unstructure_details(details: CoverDetails) -> dict[str, Any]:
    """A JSON-ready dict in the API's camelCase; times as ISO 8601 with milliseconds and `Z`."""
    record: dict[str, Any] = _converter.unstructure(details, CoverDetails)
    return record


def _structured(record: Mapping[Any, Any]) -> CoverDetails:
    try:
        return _converter.structure(record, CoverDetails)
    except DecodeError as error:
        if not error.path.startswith(".response") or _tells_success(record):
            raise
        path = error.path.removesuffix("[0]")
    # How a job without images says so is no reason not to hear the rest.
    response = record["response"]
    odd = response if path == ".response" else response["images"]
    _log.warning("%s cannot be read, left out: a %s", path[1:], type(odd).__name__)
    return _converter.structure({**record, "response": None}, CoverDetails)


def _tells_success(record: Mapping[Any, Any]) -> bool:
    return CoverState.of(_flag(record.get("successFlag"), None)) is CoverState.SUCCESS


def _without_no_error(details: CoverDetails) -> CoverDetails:
    code, message = details.error_code, details.error_message
    if (code is None and message is None) or (code is not None and code not in _NO_ERROR):
        return details
    # A failed job's message is worth having even beside a code that means nothing.
    return evolve(
        details, error_code=None, error_message=message if details.state.is_failure else None
    )


def _flag(value: object, _: Any) -> int | str | None:
    if value is None or (isinstance(value, (int, str)) and not isinstance(value, bool)):
        return value or None if isinstance(value, str) else value
    raise decode_error(".successFlag", value, "a whole number or a text")


def _response(value: object, _: Any) -> CoverResponse:
    if _is_blank(value):
        return CoverResponse()
    if not isinstance(value, (dict, Mapping)):
        raise decode_error(".response", value, "an object")
    return CoverResponse(images=_images(value.get("images")))


def _images(value: object) -> tuple[str, ...]:
    if _is_blank(value):
        return ()
    if not isinstance(value, (list, tuple)):
        raise decode_error(".response.images", value, "an array of URLs")
    usable = tuple([url for url in value if is_http_url(url)])
    # Null or blank entries are places for images to come.
    if not usable and not all(map(_is_blank, value)):
        an_url(".response.images[0]", value[0])
    if len(usable) < len(value):
        _log.warning("%d of %d images are no URLs: left out", len(value) - len(usable), len(value))
    return usable


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _lenient(name: str, read: Callable[[Any], Any]) -> Hook:
    """A hook for a field that only informs: what cannot be read becomes `None`."""

    def hook(value: Any, _: Any) -> Any:
        if value is None or value == "":
            return None
        try:
            return read(value)
        except (TypeError, ValueError, OverflowError):
            _log.warning("%s cannot be read, left out: a %s", name, type(value).__name__)
            return None

    return hook


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError


def _code(value: object) -> int | str:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return value
    raise TypeError


def _parse_time(value: object) -> datetime | None:
    if type(value) is int:
        return _epoch(value)
    if isinstance(value, str) and not _DIGITS.fullmatch(value := value.strip()):
        return _calendar(value)
    if not isinstance(value, (float, str)):
        raise TypeError
    return _epoch(int(value) if isinstance(value, str) else value)


def _epoch(value: float) -> datetime | None:
    milliseconds = int(value if abs(value) >= _FIRST_MILLISECONDS else value * 1000)
    # Zero is how a clock that was never set is written.
    # By position, which takes half the time of a keyword.
    return _EPOCH + timedelta(0, 0, 0, milliseconds) if milliseconds else None


def _calendar(text: str) -> datetime:
    # `fromisoformat` alone would also take week dates and bare digits.
    if not _CALENDAR_DATE.match(text):
        raise ValueError
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _written(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _informs(name: str, read: Callable[[Any], Any], **more: Any) -> Any:
    return override(rename=name, struct_hook=_lenient(name, read), **more)


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=False)
    fields: dict[str, Any] = {
        "task_id": override(rename="taskId", struct_hook=lambda value, _: value),
        "parent_task_id": _informs("parentTaskId", _text),
        "callback_url": _informs("callbackUrl", _text),
        "create_time": _informs("createTime", _parse_time, unstruct_hook=_written),
        "complete_time": _informs("completeTime", _parse_time, unstruct_hook=_written),
        "response": override(struct_hook=_response),
        "success_flag": override(rename="successFlag", struct_hook=_flag),
        "error_code": _informs("errorCode", _code),
        "error_message": _informs("errorMessage", _text),
    }
    converter.register_unstructure_hook(
        CoverResponse,
        make_dict_unstructure_fn(CoverResponse, converter, images=override(unstruct_hook=list)),
    )
    converter.register_unstructure_hook(
        CoverDetails, make_dict_unstructure_fn(CoverDetails, converter, **fields)
    )
    # Costly otherwise: an error's path comes from our own hooks.
    fast: dict[str, Any] = {"_cattrs_detailed_validation": False, **fields}
    converter.register_structure_hook(
        CoverDetails, make_dict_structure_fn(CoverDetails, converter, **fast)
    )
    return converter


_converter = _make_converter()
