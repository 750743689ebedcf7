"""The Market route: the vendor's general job API, on which a cover's record has a `state`.

The vendor has moved its Suno models here, but has never shown the record of a cover. The reader
relies on what the route's pages and the recorded answers of other models have in common, and
converts such a record to one of the suno route.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import evolve

from kie_cover_async.models import CoverDetails, CoverState
from kie_cover_async.validation import is_one_word, short_repr

from .records import DecodeError, is_blank, log_left_out, read_images, shape_of, structure
from .requests import (
    Endpoint,
    Request,
    Route,
    json_body,
    refuse_existing_cover,
    refuse_missing_record,
)
from .responses import parse_body

_MODEL = "ai-music-api/cover-generate"
# The words that the vendor's pages list for `state`. Any other means `UNKNOWN`.
_FLAGS = {
    "waiting": CoverState.PENDING.value,
    "queuing": CoverState.PENDING.value,
    "generating": CoverState.GENERATING.value,
    "success": CoverState.SUCCESS.value,
    "fail": CoverState.GENERATE_COVER_FAILED.value,
}


def claimed_images(record: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the URLs of the images in a record; an empty tuple if they cannot be read."""
    try:
        return _find_images(record)
    except DecodeError:
        return ()


def _submit(music_task_id: str, callback_url: str | None) -> Request[str]:
    # `input` is in snake_case; what stands next to it is not.
    fields: dict[str, Any] = {"model": _MODEL, "input": {"task_id": music_task_id}}
    if callback_url is not None:
        fields["callBackUrl"] = callback_url
    return Request(_CREATE_TASK, body=json_body(**fields))


def _read_details(record: object, task_id: str | None) -> CoverDetails:
    if not isinstance(record, dict):
        raise DecodeError("", record, "an object")
    # Records of failed jobs were reported without an id. One with another id is not the answer.
    found = record.get("taskId")
    if found not in (None, task_id):
        raise DecodeError(".taskId", found, f"the id asked for, {short_repr(task_id)}")
    flag = _read_flag(record)
    try:
        images = _find_images(record)
    except DecodeError as error:
        if flag == CoverState.SUCCESS.value:
            raise
        log_left_out(error.path[1:], error.value)
        images = ()
    submitted = _json_object("param", record.get("param"))
    message = record.get("failMsg")
    details = structure(
        {
            "taskId": task_id,
            "successFlag": flag,
            "response": {"images": images},
            "parentTaskId": _json_object("param.input", submitted.get("input")).get("task_id"),
            "callbackUrl": submitted.get("callBackUrl"),
            "createTime": record.get("createTime"),
            "completeTime": record.get("completeTime"),
            "errorCode": record.get("failCode"),
            "errorMessage": str(message) if type(message) is int else message,
            "creditsConsumed": record.get("creditsConsumed"),
        },
        CoverDetails,
    )
    return evolve(details, record_shape=shape_of(record)) if details.record_shape else details


def _read_flag(record: Mapping[Any, Any]) -> str | None:
    """Return what `state` says, in the suno route's words if it has one for it.

    `successFlag` and `status` contradict both `state` and the suno route: the flag is 0 while the
    job is generating. If there is no `state`, only a success is read from them.
    """
    state = record.get("state")
    if is_blank(state):
        is_success = record.get("successFlag") in (1, "1") or record.get("status") == "SUCCESS"
        return CoverState.SUCCESS.value if is_success else None
    if not isinstance(state, str):
        raise DecodeError(".state", state, "a text")
    if flag := _FLAGS.get(state.strip().lower()):
        return flag
    # A number or a word of the suno route means nothing here, and must not end a wait.
    return state if CoverState.of(state) is CoverState.UNKNOWN else f"state {state}"


def _find_images(record: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the images of `resultJson` or, if it has none, those of `response`.

    Raises:
        DecodeError: There are no images, and the value of their field is not blank.
    """
    problems: list[DecodeError] = []
    for name in ("resultJson", "response"):
        for path, value in _image_places(name, record.get(name), problems):
            try:
                if images := read_images(path, value):
                    return images
            except DecodeError as error:
                problems.append(error)
    if problems:
        raise problems[0]
    return ()


def _image_places(
    name: str, value: object, problems: list[DecodeError]
) -> Iterator[tuple[str, object]]:
    """Yield the places where other models have URLs; one elsewhere may be the caller's own."""
    if is_blank(value):
        return
    results = parse_body(value) if isinstance(value, str) else value
    if not isinstance(results, Mapping):
        problems.append(DecodeError(f".{name}", value, "an object"))
        return
    yield f".{name}.resultUrls", results.get("resultUrls")
    yield f".{name}.images", results.get("images")
    for outer in ("data", "resultObject"):
        if isinstance(inner := results.get(outer), Mapping):
            yield f".{name}.{outer}.images", inner.get("images")


def _json_object(name: str, value: object) -> Mapping[Any, Any]:
    """Return the object in a JSON text, or an empty one if it cannot be read: it only informs."""
    parsed = parse_body(value) if isinstance(value, str) else value
    if isinstance(parsed, Mapping):
        return parsed
    if not is_blank(value):
        log_left_out(name, value)
    return {}


def _read_new_id(data: object, _: str | None) -> str:
    if not isinstance(data, dict):
        raise DecodeError("", data, "an object")
    # Since September 2026 both are there, and equal.
    for name in ("taskId", "recordId"):
        if is_one_word(task_id := data.get(name)):
            return task_id
    raise DecodeError(".taskId", data.get("taskId"), "a non-empty text without blanks")


_RECORD_INFO = Endpoint(
    "recordInfo", "/api/v1/jobs/recordInfo", _read_details, refuse_missing_record
)
_CREATE_TASK = Endpoint(
    "createTask",
    "/api/v1/jobs/createTask",
    _read_new_id,
    refuse_existing_cover,
    is_submit=True,
)

MARKET = Route("market", poll=_RECORD_INFO, submit_request=_submit)
