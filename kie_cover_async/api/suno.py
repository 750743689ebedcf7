"""The older route: the Suno endpoints, by which a cover's record has a `successFlag`.

The vendor's pages list them under "old model", without an end date.
"""

from kie_cover_async.models import CoverDetails
from kie_cover_async.validation import short_repr

from .records import DecodeError, read_id, structure
from .requests import (
    Endpoint,
    Request,
    Route,
    json_body,
    refuse_existing_cover,
    refuse_missing_record,
)


def _submit(music_task_id: str, callback_url: str | None) -> Request[str]:
    if callback_url is None:
        raise ValueError(
            "callback_url must be given: the suno route refuses submits without one; "
            'CoverClient(route="market") needs none'
        )
    # The request says callBackUrl, the record says callbackUrl.
    return Request(_GENERATE, body=json_body(taskId=music_task_id, callBackUrl=callback_url))


def _read_details(data: object, task_id: str | None) -> CoverDetails:
    details = structure(data, CoverDetails)
    if details.task_id != task_id:
        raise DecodeError(".taskId", details.task_id, f"the id asked for, {short_repr(task_id)}")
    return details


_RECORD_INFO = Endpoint(
    "record-info", "/api/v1/suno/cover/record-info", _read_details, refuse_missing_record
)
_GENERATE = Endpoint(
    "generate",
    "/api/v1/suno/cover/generate",
    lambda data, _: read_id(data),
    refuse_existing_cover,
    is_submit=True,
)

SUNO = Route("suno", poll=_RECORD_INFO, submit_request=_submit)
