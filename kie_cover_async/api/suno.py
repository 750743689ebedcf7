"""The older route: the Suno endpoints, by which a cover's record has a `successFlag`.

The vendor's pages list them under "old model", without an end date.
"""

from kie_cover_async.errors import (
    ApiError,
    CoverAlreadyExistsError,
    InvalidRequestError,
    TaskNotFoundError,
)
from kie_cover_async.models import CoverDetails
from kie_cover_async.validation import is_one_word, short_repr

from .records import DecodeError, read_id, structure
from .requests import Endpoint, ErrorClass, Refusal, Request, Route, json_body

_NO_RECORD = ("record does not exist", "is null")


def _poll(task_id: str) -> Request[CoverDetails]:
    return Request(_RECORD_INFO, task_id)


def _submit(music_task_id: str, callback_url: str) -> Request[str]:
    # The request says callBackUrl, the record says callbackUrl.
    return Request(_GENERATE, body=json_body(taskId=music_task_id, callBackUrl=callback_url))


def _read_details(data: object, task_id: str | None) -> CoverDetails:
    details = structure(data, CoverDetails)
    if details.task_id != task_id:
        raise DecodeError(".taskId", details.task_id, f"the id asked for, {short_repr(task_id)}")
    return details


def _read_new_id(data: object, _: str | None) -> str:
    if not isinstance(data, dict):
        raise DecodeError("", data, "an object")
    return read_id(data)


def _missing_record(code: int, msg: str, data: object, usual: ErrorClass | None) -> Refusal | None:
    # A success without data was seen for unknown ids and for those just created; some servers
    # write an empty value for null.
    if code == 404 or (code == 200 and not data and data in (None, "", [], {})):
        return TaskNotFoundError, {}
    # A server error may well say that something "is null"; it is still a server error.
    text = msg.lower()
    if usual in (ApiError, InvalidRequestError) and any(each in text for each in _NO_RECORD):
        return TaskNotFoundError, {}
    return None


def _existing_cover(code: int, msg: str, data: object, _: ErrorClass | None) -> Refusal | None:
    task_id = data.get("taskId") if isinstance(data, dict) else None
    task_id = task_id if is_one_word(task_id) else None
    if code == 409 or (code == 400 and (task_id or "already" in msg.lower())):
        return CoverAlreadyExistsError, {"existing_task_id": task_id}
    return None


_RECORD_INFO = Endpoint(
    "record-info", "/api/v1/suno/cover/record-info", _read_details, _missing_record
)
_GENERATE = Endpoint(
    "generate", "/api/v1/suno/cover/generate", _read_new_id, _existing_cover, is_submit=True
)

SUNO = Route("suno", poll=_poll, submit=_submit)
