"""What is asked: the paths of the API, and what each one's `data` holds.

The vendor has announced a second family of endpoints; a record of another path and shape is added
here and in `records`, and nowhere else.
"""

import json
from collections.abc import Callable
from math import isfinite
from typing import Generic, TypeVar

from attrs import define

from kie_cover_async.models import CoverDetails
from kie_cover_async.validation import short_repr

from .records import an_id, an_url, decode_error, read_record

T = TypeVar("T")


@define(eq=False)
class Request(Generic[T]):
    """One request, ready to be sent under a base URL.

    `parse` turns `data` into a value or raises `DecodeError`.
    A call that is not `repeatable` is paid for: its answer may be lost and the request taken.
    """

    endpoint: str
    path: str
    parse: Callable[[object], T]
    task_id: str | None = None
    query: dict[str, str] | None = None
    body: bytes | None = None
    repeatable: bool = True

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


def record_info(task_id: str) -> Request[CoverDetails]:
    """How far the cover job `task_id` is; `taskId` is the cover's own id, not the song's."""

    def parse(data: object) -> CoverDetails:
        details = read_record(data)
        if details.task_id != task_id:
            raise decode_error(
                ".taskId", details.task_id, f"the id asked for, {short_repr(task_id)}"
            )
        return details

    path = "/api/v1/suno/cover/record-info"
    return Request("record-info", path, parse, task_id, query={"taskId": task_id})


def generate(music_task_id: str, callback_url: str) -> Request[str]:
    """Ask for a cover of a song. Costs credits, and has no idempotency key."""
    # The request says callBackUrl, the record says callbackUrl.
    body = _json({"taskId": music_task_id, "callBackUrl": callback_url})
    return Request("generate", "/api/v1/suno/cover/generate", _new_id, body=body, repeatable=False)


def get_credits() -> Request[float]:
    """What is left on the account."""
    return Request("credit", "/api/v1/chat/credit", _amount)


def download_url(image_url: str) -> Request[str]:
    """A link to an image that holds for 20 minutes."""
    body = _json({"url": image_url})
    return Request(
        "download-url", "/api/v1/common/download-url", lambda data: an_url("", data), body=body
    )


def _json(fields: dict[str, str]) -> bytes:
    return json.dumps(fields).encode()


def _new_id(data: object) -> str:
    if not isinstance(data, dict):
        raise decode_error("", data, "an object")
    return an_id(data)


def _amount(data: object) -> float:
    # Documented as a whole number, seen with decimals.
    if isinstance(data, (int, float)) and not isinstance(data, bool):
        try:
            if isfinite(amount := float(data)):
                return amount
        except OverflowError:
            pass
    raise decode_error("", data, "a finite number")
