"""What a request to the API is, and those that belong to no route."""

import json
from collections.abc import Callable
from math import isfinite
from typing import Any, Generic, TypeVar

from kie_cover_async.errors import ApiError

from .records import decode_error, read_url

T = TypeVar("T")

ErrorClass = type[ApiError]
Refusal = tuple[ErrorClass, dict[str, Any]]
"""An error class, and the facts of it that only this endpoint knows."""

FindRefusal = Callable[[int, str, object, ErrorClass | None], Refusal | None]


def _no_refusal_of_its_own(*_: object) -> None:
    return None


class Endpoint(Generic[T]):
    """A path of the API, and what its answers mean.

    :param name: a short name for logs and events.
    :param parse: turns an answer's `data` into a value, or raises `DecodeError`; its second
        argument is the request's task id.
    :param refusal: called with the answer's code, `msg` and `data`, and with the error class that
        the code stands for everywhere (`None` for 200); returns what they mean at this endpoint, or
        `None` if that is no different. A 200 with data is never a refusal.
    :param is_submit: whether the API may begin a job, and charge for it, although its answer is
        lost. There is no idempotency key, so such a request must not be repeated.
    """

    __slots__ = ("is_submit", "name", "parse", "path", "refusal")

    def __init__(
        self,
        name: str,
        path: str,
        parse: Callable[[object, str | None], T],
        *,
        refusal: FindRefusal = _no_refusal_of_its_own,
        is_submit: bool = False,
    ) -> None:
        self.name: str = name
        self.path: str = path
        self.parse: Callable[[object, str | None], T] = parse
        self.refusal: FindRefusal = refusal
        self.is_submit: bool = is_submit


class Request(Generic[T]):
    """One request, ready to be sent under a base URL.

    With a `body` it is a POST; without one it is a GET, whose query is the task id if there is one.
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
    raise decode_error("", data, "a finite number")


def _read_link(data: object, _: str | None) -> str:
    return read_url("", data)


_CREDITS = Endpoint("credit", "/api/v1/chat/credit", _read_amount)
_DOWNLOAD_URL = Endpoint("download-url", "/api/v1/common/download-url", _read_link)
