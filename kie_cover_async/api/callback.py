"""What the API posts to a callback URL. It is not signed, so it is only a reason to poll."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from kie_cover_async.errors import InvalidResponseError
from kie_cover_async.validation import is_http_url, is_one_word, short_repr

from .market import claimed_images
from .records import MISSING, DecodeError
from .responses import code_of, message_of, parse_body

# The API's ids are 32 hex digits. A stranger's post must not fill the memory with longer ones.
_MAX_ID_LENGTH = 200
_ID = f"a non-empty text without blanks, of at most {_MAX_ID_LENGTH} characters"


@frozen(kw_only=True)
class CoverCallback:
    """What a callback claims: that the job of `task_id` has ended, and how.

    The signature covers only the id, so a client that has seen one callback can send another with
    other `images`: never use them unless a poll has shown the same. `code` is 200 for a success,
    and 400, 408, 500, 501 or 531 for a failure. An informational field that cannot be read is
    `None`, or empty for `msg`.
    """

    task_id: str
    code: int | None = None
    msg: str = ""
    images: tuple[str, ...] | None = None


def parse_callback(body: bytes | str | Mapping[str, Any]) -> CoverCallback:
    """Read the body of a callback, as it was posted or already parsed as JSON.

    Both routes are read: `data` has the images themselves, or a record of the Market.
    The task id is read from `data.taskId`, `data.task_id` or, as in the vendor's guide, a `taskId`
    next to `data`.

    Raises:
        InvalidResponseError: There is no task id, or there are two that differ.
    """
    try:
        return _read(_document(body))
    except DecodeError as error:
        problem = error
    raise InvalidResponseError(**problem.facts("$"))


def _document(body: object) -> Mapping[Any, Any]:
    parsed = body
    if isinstance(body, (str, bytes, bytearray, memoryview)):
        parsed = parse_body(body if isinstance(body, str) else bytes(body))
    if isinstance(parsed, Mapping):
        return parsed
    raise DecodeError("", parsed, "a JSON object")


def _read(document: Mapping[Any, Any]) -> CoverCallback:
    data = document.get("data")
    data = data if isinstance(data, Mapping) else {}
    return CoverCallback(
        task_id=_read_the_id(document, data),
        code=code_of(document),
        msg=message_of(document),
        images=_images(data.get("images")) or claimed_images(data) or None,
    )


def _read_the_id(document: Mapping[Any, Any], data: Mapping[Any, Any]) -> str:
    places = {
        ".data.taskId": data.get("taskId"),
        ".data.task_id": data.get("task_id"),
        ".taskId": document.get("taskId"),
    }
    found = None
    for path, task_id in places.items():
        if task_id is None:
            continue
        if not is_one_word(task_id) or len(task_id) > _MAX_ID_LENGTH:
            raise DecodeError(path, task_id, _ID)
        if found not in (None, task_id):
            raise DecodeError(path, task_id, f"the id that stands elsewhere, {short_repr(found)}")
        found = task_id
    if found is None:
        raise DecodeError(".data.taskId", MISSING, _ID)
    return found


def _images(value: object) -> tuple[str, ...]:
    urls = value if isinstance(value, (list, tuple)) else ()
    return tuple(filter(is_http_url, urls))
