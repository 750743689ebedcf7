"""What a request to the API is, what a route is made of, and the requests of no route."""

import json
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from attrs import define

from kie_cover_async.errors import (
    ApiError,
    CoverAlreadyExistsError,
    InvalidRequestError,
    TaskNotFoundError,
)
from kie_cover_async.models import CoverDetails
from kie_cover_async.validation import is_one_word

from .records import read_amount, read_url

T = TypeVar("T")

ErrorClass = type[ApiError]
Refusal = tuple[ErrorClass, dict[str, Any]]
"""An error class, and the facts of it that only this endpoint knows."""

ReadRefusal = Callable[[int, str, object, ErrorClass | None], Refusal | None]


NOT_ACCEPTED = frozenset(
    {400, 401, 402, 403, 404, 405, 409, 413, 422, 429, 430, 433, 451, 455, 505}
)
"""The codes of a submit after which no job was started, by the pages of both routes.

Not 500: "task id is blank" was reported for a job that the vendor could not name, which may exist.
Nor 501, a failed job.
"""

_NO_RECORD = ("record does not exist", "is null")


def _no_refusal_of_its_own(*_: object) -> None:
    return None


@define(eq=False, repr=False)
class Endpoint(Generic[T]):
    """A path of the API, and what its answers mean."""

    name: str
    """A short name for logs and events."""
    path: str
    """The path below the base URL."""
    parse: Callable[[object, str | None], T]
    """Turns `data` and the request's task id into a value, or raises `DecodeError`."""
    refusal: ReadRefusal = _no_refusal_of_its_own
    """Turns the answer's code, `msg` and `data` into the error that they mean at this endpoint.

    The last argument is the error class that the code stands for everywhere, `None` for 200. The
    result is `None` if the code means nothing else here. A 200 with data is never a refusal.
    """
    is_submit: bool = False
    """Whether a request costs credits.

    There is no idempotency key: the API may start and charge for a job although its answer is lost,
    so a submit must not be repeated.
    """


@define(eq=False, repr=False)
class Request(Generic[T]):
    """One request, ready to be sent under a base URL.

    With a `body` it is a POST. Without one it is a GET, whose query is the task id if there is one.
    """

    endpoint: Endpoint[T]
    task_id: str | None = None
    body: bytes | None = None

    @property
    def method(self) -> str:
        """The HTTP method."""
        return "GET" if self.body is None else "POST"


class Route(NamedTuple):
    """A family of endpoints that makes covers: what differs from other families."""

    name: str
    poll: Endpoint[CoverDetails]
    """Reads the record of a cover by its task id."""
    submit_request: Callable[[str, str | None], Request[str]]
    """Makes the request for a new cover from a song's task id and a callback URL.

    Raises `ValueError` if the URL is `None` and the route requires one.
    """

    def __repr__(self) -> str:
        return f"<Route {self.name}>"


def json_body(**fields: Any) -> bytes:
    """Return the body of a POST."""
    return json.dumps(fields).encode()


def download_url(image_url: str) -> Request[str]:
    """Ask for a link to an image, good for 20 minutes."""
    return Request(_DOWNLOAD_URL, body=json_body(url=image_url))


def refuse_missing_record(
    code: int, msg: str, data: object, usual: ErrorClass | None
) -> Refusal | None:
    """Read the ways in which either route says that it has no record of an id, or not yet."""
    # A success without data was seen for unknown ids and for those just created; some servers
    # write an empty value for null. The Market answers 422, "recordInfo is null".
    if code == 404 or (code == 200 and not data and data in (None, "", [], {})):
        return TaskNotFoundError, {}
    # A server error may well say that something "is null"; it is still a server error.
    text = msg.lower()
    if usual in (ApiError, InvalidRequestError) and any(each in text for each in _NO_RECORD):
        return TaskNotFoundError, {}
    return None


def refuse_existing_cover(
    code: int, msg: str, data: object, _: ErrorClass | None
) -> Refusal | None:
    """Read the refusal of a song's second cover, in the words of the suno route.

    What the Market answers to one was never shown.
    """
    facts = data if isinstance(data, dict) else {}
    ids = filter(is_one_word, map(facts.get, ("taskId", "recordId")))
    task_id = next(ids, None)
    if code == 409 or (code == 400 and (task_id or "already" in msg.lower())):
        return CoverAlreadyExistsError, {"existing_task_id": task_id}
    return None


CREDITS: Request[float] = Request(
    Endpoint("credit", "/api/v1/chat/credit", lambda data, _: read_amount("", data))
)
"""Asks what is left on the account."""

_DOWNLOAD_URL = Endpoint(
    "download-url", "/api/v1/common/download-url", lambda data, _: read_url("", data)
)
