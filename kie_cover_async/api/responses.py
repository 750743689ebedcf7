"""What an answer means: `(request, response)` to a value or an error, in one pure function."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeVar

from attrs import define, field

from kie_cover_async import errors as e
from kie_cover_async.validation import is_one_word, short_repr

from .envelope import code_of, parsed_body
from .records import DecodeError
from .requests import Request

T = TypeVar("T")

_OK = 200
_LONGEST_MESSAGE = 500
_SECONDS = re.compile(r"\d+(?:\.\d*)?", re.ASCII)

_CODES: dict[int, type[e.ApiError]] = {
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

_CERTAINLY_NOT_TAKEN = frozenset(
    {400, 401, 402, 403, 404, 405, 409, 413, 422, 429, 430, 433, 451, 455, 505}
)
_REPEATABLE_THOUGH_PAID = frozenset({429, 430})
_NO_RECORD = re.compile("record does not exist|is null", re.IGNORECASE)


@define(eq=False)
class Response:
    """An HTTP answer, read whole. `headers` is any mapping that ignores case."""

    status: int
    # Of these only the request's id has been looked through for an echo of the key.
    headers: Mapping[str, str] = field(repr=False)
    body: bytes

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
    """The value that the answer holds, or the error that it means; nothing else is raised."""
    parsed = parsed_body(response.body)
    code = code_of(parsed)
    if code is None:
        raise _without_envelope(request, response, parsed)
    data = parsed.get("data")
    if code != _OK or (request.endpoint == "record-info" and _is_nothing(data)):
        raise _refusal(request, response, code, parsed)
    try:
        return request.parse(data)
    except DecodeError as error:
        problem = error
    raise _unreadable(request, response, f"$.data{problem.path}", problem.found, problem.expected)


def _is_nothing(data: object) -> bool:
    """No record is null, as far as was seen; some servers write an empty thing for it."""
    return data is None or data in ("", [], {})


def _without_envelope(request: Request[Any], response: Response, parsed: Any) -> e.KieCoverError:
    status = response.status
    if 200 <= status < 300 and isinstance(parsed, dict):
        found = short_repr(parsed["code"]) if "code" in parsed else "nothing"
        return _unreadable(request, response, "$.code", found, "a whole number")
    if 200 <= status < 300:
        return _unreadable(request, response, "$", short_repr(parsed), "a JSON object")
    kind = e.ServerError if status >= 500 else _CODES.get(status, e.ApiError)
    if status == 409 and request.endpoint == "generate":
        kind = e.CoverAlreadyExistsError
    redirected = "a redirect, which is refused" if 300 <= status < 400 else ""
    return _api_error(kind, request, response, status, redirected)


def _refusal(
    request: Request[Any], response: Response, code: int, envelope: dict[str, Any]
) -> e.ApiError:
    msg = envelope.get("msg")
    msg = msg if isinstance(msg, str) else ""
    kind = _ENVELOPE_CODES.get(code, e.ServerError if code >= 500 else e.ApiError)
    if request.endpoint == "record-info" and _no_record(kind, code, msg):
        kind = e.TaskNotFoundError
    if request.endpoint == "generate" and (found := _existing(code, msg, envelope.get("data"))):
        return _api_error(e.CoverAlreadyExistsError, request, response, code, msg, **found)
    return _api_error(kind, request, response, code, msg)


def _no_record(kind: type[e.ApiError], code: int, msg: str) -> bool:
    if code in (_OK, 404):
        return True
    # A server error may well say that something "is null"; it is still a server error.
    return kind in (e.ApiError, e.InvalidRequestError) and bool(_NO_RECORD.search(msg))


def _existing(code: int, msg: str, data: object) -> dict[str, str | None] | None:
    """The facts of "this song has a cover already", or `None` where that is not what was said."""
    task_id = data.get("taskId") if isinstance(data, dict) else None
    task_id = task_id if is_one_word(task_id) else None
    if code == 409 or (code == 400 and (task_id or "already" in msg.lower())):
        return {"existing_task_id": task_id}
    return None


def _api_error(
    kind: type[e.ApiError],
    request: Request[Any],
    response: Response,
    code: int,
    msg: str,
    **facts: Any,
) -> e.ApiError:
    if kind is e.RateLimitedError:
        facts["retry_after"] = response.retry_after
    # A gateway says 5xx of any request, of one that it has passed on too.
    taken = code not in _CERTAINLY_NOT_TAKEN or kind is e.ServerError
    safe = kind.transient and (request.repeatable or code in _REPEATABLE_THOUGH_PAID)
    return kind(
        task_id=request.task_id,
        request_id=response.request_id,
        retryable=safe,
        maybe_accepted=taken and not request.repeatable,
        code=code,
        msg=msg[:_LONGEST_MESSAGE],
        http_status=response.status,
        **facts,
    )


def _unreadable(
    request: Request[Any], response: Response, path: str, found: str, expected: str
) -> e.InvalidResponseError:
    return e.InvalidResponseError(
        task_id=request.task_id,
        request_id=response.request_id,
        retryable=request.repeatable,
        maybe_accepted=not request.repeatable,
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
