"""What an answer means: `(request, response)` to a value or an error, in one pure function."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeVar

from kie_cover_async import errors as e
from kie_cover_async.validation import short_repr

from .envelope import code_of, parse_body
from .records import DecodeError
from .requests import ErrorClass, Request

T = TypeVar("T")

_OK = 200
_LONGEST_MESSAGE = 500
_SECONDS = re.compile(r"\d+(?:\.\d*)?", re.ASCII)

_CODES: dict[int, ErrorClass] = {
    400: e.InvalidRequestError,
    401: e.AuthenticationError,
    402: e.InsufficientCreditsError,
    403: e.ForbiddenError,
    408: e.ServerError,  # "upstream silent for over 10 minutes"
    413: e.InvalidRequestError,
    422: e.InvalidRequestError,
    429: e.RateLimitedError,
    455: e.MaintenanceError,
}
# As an HTTP status 405 is "method not allowed"; in an envelope it, 430 and 433 are rate limits.
# Every other code from 500 on is trouble of the server or of its gateway (507, 520 to 530, 599).
_ENVELOPE_CODES = (
    _CODES
    | dict.fromkeys((405, 430, 433), e.RateLimitedError)
    | dict.fromkeys((501, 505, 531), e.ApiError)  # the job failed, the feature is disabled
)

_CERTAINLY_NOT_ACCEPTED = frozenset(
    {400, 401, 402, 403, 404, 405, 409, 413, 422, 429, 430, 433, 451, 455, 505}
)
_RETRYABLE_SUBMITS = frozenset({429, 430})


class Response:
    """An HTTP answer, read whole. `headers` is any mapping that ignores case."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status: int = status
        self.headers: Mapping[str, str] = headers
        self.body: bytes = body

    @property
    def request_id(self) -> str | None:
        """The gateway's `cf-ray`, the only id that a request has."""
        return self.headers.get("cf-ray")

    @property
    def served_at(self) -> datetime | None:
        """The server's own clock, from its `Date` header: whole seconds."""
        return _date(self.headers.get("Date", ""))

    @property
    def retry_after(self) -> float | None:
        """`Retry-After` in seconds: a number, or a date against the server's clock."""
        text = self.headers.get("Retry-After", "").strip()
        if _SECONDS.fullmatch(text):
            return float(text)
        if (then := _date(text)) is None:
            return None
        return max(0.0, (then - (self.served_at or datetime.now(UTC))).total_seconds())


def parse_response(request: Request[T], response: Response) -> T:
    """Return the value that the answer holds, or raise the error that it means.

    Raises `ApiError` or `InvalidResponseError`, and nothing else.
    """
    envelope = parse_body(response.body)
    code = code_of(envelope)
    if code is None:
        raise _error_without_envelope(request, response, envelope)
    data = envelope.get("data")
    if code != _OK or not data:
        _raise_refusal(request, response, code, envelope)
    try:
        return request.endpoint.parse(data, request.task_id)
    except DecodeError as error:
        problem = error
    path = f"$.data{problem.path}"
    raise _invalid_response(request, response, path, problem.found, problem.expected)


def _raise_refusal(
    request: Request[Any], response: Response, code: int, envelope: Mapping[str, Any]
) -> None:
    """Raise the error that the answer means, if it means one."""
    usual = None
    if code != _OK:
        usual = _ENVELOPE_CODES.get(code, e.ServerError if code >= 500 else e.ApiError)
    msg = envelope.get("msg")
    msg = msg if isinstance(msg, str) else ""
    refusal = request.endpoint.refusal(code, msg, envelope.get("data"), usual)
    kind, facts = refusal or (usual, {})
    if kind is not None:
        raise _api_error(kind, request, response, code, msg, **facts)


def _error_without_envelope(
    request: Request[Any], response: Response, parsed: Any
) -> e.KieCoverError:
    status = response.status
    if 200 <= status < 300 and isinstance(parsed, dict):
        found = short_repr(parsed["code"]) if "code" in parsed else "nothing"
        return _invalid_response(request, response, "$.code", found, "a whole number")
    if 200 <= status < 300:
        return _invalid_response(request, response, "$", short_repr(parsed), "a JSON object")
    kind = e.ServerError if status >= 500 else _CODES.get(status, e.ApiError)
    # Only a conflict means the same with and without an envelope.
    if status == 409 and (refusal := request.endpoint.refusal(status, "", None, kind)):
        kind = refusal[0]
    redirected = "a redirect, which is refused" if 300 <= status < 400 else ""
    return _api_error(kind, request, response, status, redirected)


def _api_error(
    kind: ErrorClass, request: Request[Any], response: Response, code: int, msg: str, **facts: Any
) -> e.ApiError:
    if kind is e.RateLimitedError:
        facts["retry_after"] = response.retry_after
    # A gateway answers 5xx to any request, also to one that it has passed on.
    accepted = code not in _CERTAINLY_NOT_ACCEPTED or kind is e.ServerError
    return kind(
        task_id=request.task_id,
        request_id=response.request_id,
        retryable=kind.transient and (not request.endpoint.is_submit or code in _RETRYABLE_SUBMITS),
        maybe_accepted=accepted and request.endpoint.is_submit,
        code=code,
        msg=msg[:_LONGEST_MESSAGE],
        http_status=response.status,
        **facts,
    )


def _invalid_response(
    request: Request[Any], response: Response, path: str, found: str, expected: str
) -> e.InvalidResponseError:
    return e.InvalidResponseError(
        task_id=request.task_id,
        request_id=response.request_id,
        retryable=not request.endpoint.is_submit,
        maybe_accepted=request.endpoint.is_submit,
        path=path,
        found=found,
        expected=expected,
        http_status=response.status,
    )


# Thousands of answers within a second carry the same text.
@lru_cache(maxsize=8)
def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
