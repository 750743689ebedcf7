"""The shape of `data`: JSON values to models and back, by a private cattrs converter.

Strict in what matters (id, flag, the images of a success), lenient in what only informs (times,
URLs, error texts).
"""

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

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
_DIGITS = re.compile(r"-?\d{1,20}", re.ASCII)
# As the API documents a time, which is also how `unstructure_details` writes it.
_DOCUMENTED_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z", re.ASCII)
_CALENDAR_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]|$)", re.ASCII)
_NO_ERROR = (200, 0, "200", "0")


class DecodeError(Exception):
    """A value that cannot be read, at a path relative to where the reading began."""

    def __init__(self, path: str, found: str, expected: str) -> None:
        super().__init__(path, found, expected)
        self.path: str = path
        self.found: str = found
        self.expected: str = expected


def decode_error(path: str, value: object, expected: str) -> DecodeError:
    """Return the error for a value that is not as expected."""
    return DecodeError(path, short_repr(value), expected)


def read_id(record: Mapping[Any, object]) -> str:
    """Return the record's task id, fit to be asked for again.

    Raises `DecodeError` if there is none.
    """
    expected = "a non-empty text without blanks"
    if "taskId" not in record:
        raise DecodeError(".taskId", "nothing", expected)
    if is_one_word(task_id := record["taskId"]):
        return task_id
    raise decode_error(".taskId", task_id, expected)


def read_url(path: str, value: object) -> str:
    """Return the value if it is an http or https URL.

    Raises `DecodeError` if it is not.
    """
    if is_http_url(value):
        return value
    raise decode_error(path, value, "an http or https URL")


def read_record(value: object) -> CoverDetails:
    """Return the details that `data` of record-info holds.

    Raises `DecodeError` if the id, the flag or the images of a success cannot be read.
    """
    details: CoverDetails = _structure(value, CoverDetails)
    return details


def structure_details(mapping: Mapping[str, Any]) -> CoverDetails:
    """Read a mapping in the shape of the API's `data`, or of `unstructure_details`.

    What only informs and cannot be read is left out and named in the log.

    Raises `InvalidResponseError`, and nothing else, if the id, the flag or the images of a success
    cannot be read.
    """
    try:
        return read_record(mapping)
    except DecodeError as error:
        problem = error
    raise InvalidResponseError(
        path=f"${problem.path}", found=problem.found, expected=problem.expected
    )


def unstructure_details(details: CoverDetails) -> dict[str, Any]:
    """Return a JSON-ready dict in the API's camelCase.

    Times are ISO 8601 in UTC with milliseconds and `Z`.
    """
    record: dict[str, Any] = _converter.unstructure(details, CoverDetails)
    return record


def _structure_details(record: Any, _: type) -> CoverDetails:
    if not isinstance(record, (dict, Mapping)):  # a dict is recognised faster
        raise decode_error("", record, "an object")
    get = record.get
    task_id = read_id(record)
    flag = get("successFlag")
    if flag is None or flag == "":
        status = get("status")
        flag = status if isinstance(status, str) and status else None
    elif not _is_whole_or_text(flag):
        raise decode_error(".successFlag", flag, "a whole number or a text")
    code = _code(get("errorCode"))
    message = _text("errorMessage", get("errorMessage"))
    # A failed job's message is worth having even without a code that means something.
    if code is None and message is not None and not CoverState.of(flag).is_failure:
        message = None
    return CoverDetails(
        task_id=task_id,
        parent_task_id=_text("parentTaskId", get("parentTaskId")),
        callback_url=_text("callbackUrl", get("callbackUrl")),
        create_time=_time("createTime", get("createTime")),
        complete_time=_time("completeTime", get("completeTime")),
        response=_response(get("response"), flag),
        success_flag=flag,
        error_code=code,
        error_message=message,
    )


def _is_whole_or_text(value: object) -> TypeGuard[int | str]:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _response(value: Any, flag: int | str | None) -> CoverResponse:
    if _is_blank(value):
        return CoverResponse()
    name, odd = "response", value
    try:
        if not isinstance(value, (dict, Mapping)):
            raise decode_error(".response", value, "an object")
        name, odd = "response.images", value.get("images")
        return CoverResponse(images=_images(odd))
    except DecodeError:
        # How a job without images says so is no reason to lose the rest.
        if CoverState.of(flag) is CoverState.SUCCESS:
            raise
    _log_left_out(name, odd)
    return CoverResponse()


def _images(value: object) -> tuple[str, ...]:
    if _is_blank(value):
        return ()
    if not isinstance(value, (list, tuple)):
        raise decode_error(".response.images", value, "an array of URLs")
    usable = tuple([url for url in value if is_http_url(url)])
    # Null or blank entries are places for images to come.
    if not usable and not all(map(_is_blank, value)):
        read_url(".response.images[0]", value[0])
    if len(usable) < len(value):
        _log.warning("%d of %d images are no URLs: left out", len(value) - len(usable), len(value))
    return usable


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    _log_left_out(name, value)
    return None


def _code(value: object) -> int | str | None:
    if value is None or value == "":
        return None
    if _is_whole_or_text(value):
        return None if value in _NO_ERROR else value
    _log_left_out("errorCode", value)
    return None


def _time(name: str, value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    # As the API writes a time, or documents it; everything else takes longer.
    if type(value) is int and _FIRST_MILLISECONDS <= value < _LAST_EXACT_MILLISECONDS:
        return datetime.fromtimestamp(value / 1000, UTC)
    try:
        if isinstance(value, str) and _DOCUMENTED_TIME.fullmatch(value):
            return datetime.fromisoformat(value)
        return _parse_time(value)
    except (TypeError, ValueError, OverflowError):
        _log_left_out(name, value)
        return None


def _log_left_out(name: str, value: object) -> None:
    """Log that a value which only informs cannot be read."""
    _log.warning("%s cannot be read, left out: a %s", name, type(value).__name__)


def _parse_time(value: object) -> datetime | None:
    if isinstance(value, str) and not _DIGITS.fullmatch(value := value.strip()):
        return _parse_calendar_time(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    return _parse_epoch(int(value) if isinstance(value, str) else value)


def _parse_epoch(value: float) -> datetime | None:
    milliseconds = int(value if abs(value) >= _FIRST_MILLISECONDS else value * 1000)
    # Zero is how a clock that was never set is written.
    # By position, which takes half the time of a keyword.
    return _EPOCH + timedelta(0, 0, 0, milliseconds) if milliseconds else None


def _parse_calendar_time(text: str) -> datetime:
    # `fromisoformat` alone would also take week dates and bare digits.
    if not _CALENDAR_DATE.match(text):
        raise ValueError
    time = datetime.fromisoformat(text)
    time = time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def _written(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=False)
    names = {
        "task_id": "taskId",
        "parent_task_id": "parentTaskId",
        "callback_url": "callbackUrl",
        "create_time": "createTime",
        "complete_time": "completeTime",
        "success_flag": "successFlag",
        "error_code": "errorCode",
        "error_message": "errorMessage",
    }
    fields: Any = {ours: override(rename=theirs) for ours, theirs in names.items()}
    converter.register_unstructure_hook(datetime, _written)
    converter.register_unstructure_hook(
        CoverResponse,
        make_dict_unstructure_fn(CoverResponse, converter, images=override(unstruct_hook=list)),
    )
    converter.register_unstructure_hook(
        CoverDetails, make_dict_unstructure_fn(CoverDetails, converter, **fields)
    )
    # One pass by hand: a reader that cattrs generates, with a hook for each field, took twice the
    # instructions.
    converter.register_structure_hook(CoverDetails, _structure_details)
    return converter


_converter = _make_converter()
# The converter would look it up for every record.
_structure = _converter.get_structure_hook(CoverDetails)
