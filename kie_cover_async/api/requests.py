"""What a request to the API is, what a route is made of, and the requests of no route."""

import json
from collections.abc import Callable
from math import isfinite
from typing import Any, Generic, NamedTuple, TypeVar

from kie_cover_async.errors import ApiError
from kie_cover_async.models import CoverDetails

from .records import DecodeError, read_url

T = TypeVar("T")

ErrorClass = type[ApiError]
Refusal = tuple[ErrorClass, dict[str, Any]]
"""An error class, and the facts of it that only this endpoint knows."""


def _no_refusal_of_its_own(*_: object) -> None:
    return None


class Endpoint(NamedTuple, Generic[T]):
    """A path of the API, and what its answers mean."""

    name: str
    """A short name for logs and events."""
    path: str
    parse: Callable[[object, str | None], T]
    """Turns `data` and the request's task id into a value, or raises `DecodeError`."""
    refusal: Callable[[int, str, object, ErrorClass | None], Refusal | None] = (
        _no_refusal_of_its_own
    )
    """Turns the answer's code, `msg` and `data` into the error that they mean at this endpoint.

    The last argument is the error class that the code stands for everywhere, `None` for 200. The
    result is `None` if the code means nothing else here. A 200 with data is never a refusal.
    """
    is_submit: bool = False
    """Whether the API may start and charge for a job although its answer is lost.

    There is no idempotency key, so such a request must not be repeated.
    """


class Request(Generic[T]):
    """One request, ready to be sent under a base URL.

    With a `body` it is a POST. Without one it is a GET, whose query is the task id if there is one.
    """

    __slots__ = ("body", "endpoint", "task_id")

    def __init__(
        self, endpoint: Endpoint[T], task_id: str | None = None, body: bytes | None = None
    ) -> None:
        self.endpoint: Endpoint[T] = endpoint
        self.task_id: str | None = task_id
        self.body: bytes | None = body

    @property
    def method(self) -> str:
        """The HTTP method."""
        return "GET" if self.body is None else "POST"


class Route(NamedTuple):
    """A family of endpoints that makes covers: the requests that differ from other families."""

    name: str
    poll: Callable[[str], Request[CoverDetails]]
    """Makes the request for the record of a cover's task id."""
    submit: Callable[[str, str], Request[str]]
    """Makes the request for a new cover from a song's task id and a callback URL."""

    def __repr__(self) -> str:
        return f"<Route {self.name}>"


def json_body(**fields: Any) -> bytes:
    """Return the body of a POST."""
    return json.dumps(fields).encode()


def get_credits() -> Request[float]:
    """Ask what is left on the account."""
    return Request(_CREDITS)


def download_url(image_url: str) -> Request[str]:
    """Ask for a link to an image, good for 20 minutes."""
    return Request(_DOWNLOAD_URL, body=json_body(url=image_url))


def _read_amount(data: object, _: str | None) -> float:
    # Documented as a whole number, seen with decimals.
    if isinstance(data, (int, float)) and not isinstance(data, bool):
        try:
            if isfinite(amount := float(data)):
                return amount
        except OverflowError:
            pass
    raise DecodeError("", data, "a finite number")


_CREDITS = Endpoint("credit", "/api/v1/chat/credit", _read_amount)
_DOWNLOAD_URL = Endpoint(
    "download-url", "/api/v1/common/download-url", lambda data, _: read_url("", data)
)
