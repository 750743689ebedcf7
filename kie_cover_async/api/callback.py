"""What the API posts to a callback URL. Nothing of it is signed: it is a reason to poll."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from kie_cover_async.errors import InvalidResponseError
from kie_cover_async.validation import is_http_url, is_one_word, short_repr

from .envelope import code_of, parse_body
from .records import DecodeError, decode_error

# The API's are 32 hex digits; whoever may post must not fill the memory with longer ones.
_LONGEST_ID = 200
_ID = f"a non-empty text without blanks, of at most {_LONGEST_ID} characters"


@frozen(kw_only=True)
class CoverCallback:
    """What a callback says: that the job of `task_id` has ended, and what is claimed of its end.

    The signature covers the id alone, so anybody who has seen one callback can send another with
    other `images`: never use them unless a poll has shown the same. `code` is 200 for a success,
    and 400, 408, 500, 501 or 531 for a failure. What only informs, and cannot be read, is `None`,
    and an empty `msg`.
    """

    task_id: str
    code: int | None = None
    msg: str = ""
    images: tuple[str, ...] | None = None


def parse_callback(body: bytes | str | Mapping[str, Any]) -> CoverCallback:
    """Read the body of a callback, as it was posted or as JSON has already made a mapping of it.

    Raises `InvalidResponseError`, and nothing else, where there is no task id, or where there are
    two that differ. It is read as `data.taskId`, `data.task_id` or, in the vendor's guide, a
    `taskId` beside `data`.
    """
    try:
        return _read(_document(body))
    except DecodeError as error:
        problem = error
    raise InvalidResponseError(
        path=f"${problem.path}", found=problem.found, expected=problem.expected
    )


def _document(body: object) -> Mapping[Any, Any]:
    parsed = body
    if isinstance(body, (bytes, bytearray, memoryview)):
        parsed = parse_body(bytes(body))
    elif isinstance(body, str):
        parsed = parse_body(body)
    if isinstance(parsed, Mapping):
        return parsed
    raise decode_error("", parsed, "a JSON object")


def _read(document: Mapping[Any, Any]) -> CoverCallback:
    data = document.get("data")
    data = data if isinstance(data, Mapping) else {}
    msg = document.get("msg")
    return CoverCallback(
        task_id=_the_one_id(document, data),
        code=code_of(document),
        msg=msg if isinstance(msg, str) else "",
        images=_images(data.get("images")),
    )


def _the_one_id(document: Mapping[Any, Any], data: Mapping[Any, Any]) -> str:
    places = {
        ".data.taskId": data.get("taskId"),
        ".data.task_id": data.get("task_id"),
        ".taskId": document.get("taskId"),
    }
    ids: list[str] = []
    for path, task_id in places.items():
        if task_id is None:
            continue
        if not is_one_word(task_id) or len(task_id) > _LONGEST_ID:
            raise decode_error(path, task_id, _ID)
        if ids and task_id != ids[0]:
            raise decode_error(path, task_id, f"the id that stands elsewhere, {short_repr(ids[0])}")
        ids.append(task_id)
    if not ids:
        raise DecodeError(".data.taskId", "nothing", _ID)
    return ids[0]


def _images(value: object) -> tuple[str, ...] | None:
    urls = value if isinstance(value, (list, tuple)) else ()
    return tuple(url for url in urls if is_http_url(url)) or None
