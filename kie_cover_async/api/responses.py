"""What an answer means: `(request, response)` to a value or an error, in one pure function.

JSON is parsed by orjson if it is installed (the extra `speedups`), and by the standard library if
not. Both read every body the same: `json` reads each one that orjson would read differently.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeVar

from attrs import define
from multidict import istr

from kie_cover_async import errors as e

from .records import MISSING, DecodeError
from .requests import NOT_ACCEPTED, ErrorClass, Request

T = TypeVar("T")

Parser = Callable[[bytes], Any]
"""Returns a body as JSON, or raises `ValueError` or `RecursionError`."""

_OK = 200
_DATE = istr("Date")  # its case is ignored without a look at each letter
_MAX_MESSAGE_LENGTH = 500
_MAX_CODE_DIGITS = 4

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

_RETRYABLE_SUBMITS = frozenset({429, 430})

# What `raw_decode` calls after one more frame.
_scan_once: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

# orjson reserves twelve times the length of a body, which is much for one of a mebibyte. The API's
# have less than two kibibytes.
_MAX_ORJSON_LENGTH = 1 << 16


# Without a repr: error trackers show local variables, and a header may echo the key.
@define(eq=False, repr=False)
class Response:
    """An HTTP answer, read whole. `headers` is any mapping that ignores case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def request_id(self) -> str | None:
        """The gateway's `cf-ray`, the only id that a request has."""
        return self.headers.get("cf-ray")

    @property
    def served_at(self) -> datetime | None:
        """The server's own clock, from its `Date` header: whole seconds."""
        return _parse_date(self.headers.get(_DATE, ""))

    @property
    def retry_after(self) -> float | None:
        """`Retry-After` in seconds: a number, or a date against the server's clock."""
        text = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"(?a)\d+(?:\.\d*)?", text):
            return float(text)
        if (then := _parse_date(text)) is None:
            return None
        return max(0.0, (then - (self.served_at or datetime.now(UTC))).total_seconds())


# Thousands of answers within a second carry the same text.
@lru_cache(maxsize=8)
def _parse_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
        return date.replace(tzinfo=date.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def parse_response(request: Request[T], response: Response) -> T:
    """Return the value that the answer holds, or raise the error that it means.

    Raises:
        ApiError: The API refused the request.
        InvalidResponseError: The answer cannot be read.
    """
    envelope = parse_body(response.body)
    code = code_of(envelope)
    if code is None:
        raise _error_without_envelope(request, response, envelope)
    data = envelope.get("data")
    if code != _OK or not data:
        _raise_if_refused(request, response, code, envelope)
    try:
        return request.endpoint.parse(data, request.task_id)
    except DecodeError as error:
        problem = error
    raise _invalid_response(request, response, problem, "$.data")


def _raise_if_refused(
    request: Request[Any], response: Response, code: int, envelope: Mapping[str, Any]
) -> None:
    """Raise the error that the answer means, if it means one."""
    usual = None
    if code != _OK:
        usual = _ENVELOPE_CODES.get(code, e.ServerError if code >= 500 else e.ApiError)
    msg = message_of(envelope)
    refusal = request.endpoint.refusal(code, msg, envelope.get("data"), usual)
    kind, facts = refusal or (usual, {})
    if kind is not None:
        raise _api_error(kind, request, response, code, msg, **facts)


def _error_without_envelope(
    request: Request[Any], response: Response, parsed: Any
) -> e.KieCoverError:
    status = response.status
    if 200 <= status < 300:
        problem = DecodeError("", parsed, "a JSON object")
        if isinstance(parsed, dict):
            problem = DecodeError(".code", parsed.get("code", MISSING), "a whole number")
        return _invalid_response(request, response, problem, "$")
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
    is_submit = request.endpoint.is_submit
    # A gateway answers 5xx to any request, including one that it has passed on.
    accepted = kind is e.ServerError or code not in NOT_ACCEPTED
    return kind(
        task_id=request.task_id,
        request_id=response.request_id,
        retryable=kind.transient and (not is_submit or code in _RETRYABLE_SUBMITS),
        maybe_accepted=is_submit and accepted,
        code=code,
        msg=msg[:_MAX_MESSAGE_LENGTH],
        http_status=response.status,
        **facts,
    )


def _invalid_response(
    request: Request[Any], response: Response, problem: DecodeError, root: str
) -> e.InvalidResponseError:
    return e.InvalidResponseError(
        task_id=request.task_id,
        request_id=response.request_id,
        retryable=not request.endpoint.is_submit,
        maybe_accepted=request.endpoint.is_submit,
        http_status=response.status,
        **problem.facts(root),
    )


def code_of(parsed: Any) -> int | None:
    """Return the envelope's code, or `None` if there is no envelope."""
    code = parsed.get("code") if isinstance(parsed, (dict, Mapping)) else None
    if type(code) is int:
        return code
    if isinstance(code, str) and len(code) <= _MAX_CODE_DIGITS:
        return int(code) if code.isascii() and code.isdigit() else None
    return None


def message_of(envelope: Mapping[Any, Any]) -> str:
    """Return the API's own text; some editions of its pages print `message` for `msg`."""
    texts = (envelope.get(name) for name in ("msg", "message"))
    return next((text for text in texts if isinstance(text, str)), "")


def parse_body(body: bytes | str) -> Any:
    """Return the body as JSON, or unchanged if it cannot be parsed; raise nothing."""
    try:
        return parse_quickly(body.encode() if isinstance(body, str) else body)
    except (ValueError, RecursionError):
        pass
    # JSON in other encodings, with blanks around it, or with numbers of any length.
    try:
        return json.loads(body, parse_int=_parse_int)
    except (ValueError, RecursionError):
        return body


def _parse_int(digits: str) -> float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def parse_with_json(body: bytes) -> Any:
    """Parse JSON in UTF-8 with nothing around it, as the API writes it.

    Raises:
        ValueError: It is anything else, such as JSON with blanks around it.
        RecursionError: It is nested too deep.
    """
    text = body.decode()
    try:
        value, end = _scan_once(text, 0)
    except StopIteration:
        raise ValueError from None
    if end != len(text):
        raise ValueError
    return value


def orjson_parser() -> Parser | None:
    """Return a parser that uses orjson, or `None` if it is not installed."""
    try:
        import orjson  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    loads, dumps = orjson.loads, orjson.dumps

    def parse_with_orjson(body: bytes) -> Any:
        # It raises `ValueError` for much that `json` reads: NaN, half a surrogate pair, a byte
        # order mark. It reads integers past 64 bits as floats, and stops at another depth. What it
        # writes back unchanged it has read exactly; it writes no more than 254 levels.
        if len(body) <= _MAX_ORJSON_LENGTH:
            value = loads(body)
            try:
                if dumps(value) == body:
                    return value
            except orjson.JSONEncodeError:
                pass
        return parse_with_json(body)

    return parse_with_orjson


parse_quickly: Parser = orjson_parser() or parse_with_json
