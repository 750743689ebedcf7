"""What each code means, per endpoint, in an envelope and as the bare status of a gateway.

In a cell: the error's class without its last word; `+` where the call may be repeated by itself;
`?` where a paid request may have been taken.
"""

import pytest
from support.api_answers import CALLS, RAY, TASK, answer, envelope, outcome_of

import kie_cover_async
from kie_cover_async import (
    ApiError,
    CoverAlreadyExistsError,
    InvalidResponseError,
    KieCoverError,
    ServerError,
)

pytestmark = pytest.mark.usefixtures("parser")

TABLE = """
code how       record-info,recordInfo  generate,createTask    credit,download-url
200  envelope  TaskNotFound            InvalidResponse?       InvalidResponse+
200  bare      InvalidResponse+        InvalidResponse?       InvalidResponse+
400  envelope  InvalidRequest          InvalidRequest         InvalidRequest
400  bare      InvalidRequest          InvalidRequest         InvalidRequest
401  envelope  Authentication          Authentication         Authentication
401  bare      Authentication          Authentication         Authentication
402  envelope  InsufficientCredits     InsufficientCredits    InsufficientCredits
402  bare      InsufficientCredits     InsufficientCredits    InsufficientCredits
403  envelope  Forbidden               Forbidden              Forbidden
403  bare      Forbidden               Forbidden              Forbidden
404  envelope  TaskNotFound            Api                    Api
404  bare      Api                     Api                    Api
405  envelope  RateLimited+            RateLimited            RateLimited+
405  bare      Api                     Api                    Api
408  envelope  Server+                 Server?                Server+
408  bare      Server+                 Server?                Server+
409  envelope  Api                     CoverAlreadyExists     Api
409  bare      Api                     CoverAlreadyExists     Api
413  envelope  InvalidRequest          InvalidRequest         InvalidRequest
413  bare      InvalidRequest          InvalidRequest         InvalidRequest
422  envelope  InvalidRequest          InvalidRequest         InvalidRequest
422  bare      InvalidRequest          InvalidRequest         InvalidRequest
429  envelope  RateLimited+            RateLimited+           RateLimited+
429  bare      RateLimited+            RateLimited+           RateLimited+
430  envelope  RateLimited+            RateLimited+           RateLimited+
430  bare      Api                     Api                    Api
433  envelope  RateLimited+            RateLimited            RateLimited+
433  bare      Api                     Api                    Api
451  envelope  Api                     Api                    Api
451  bare      Api                     Api                    Api
455  envelope  Maintenance+            Maintenance            Maintenance+
455  bare      Maintenance+            Maintenance            Maintenance+
500  envelope  Server+                 Server?                Server+
500  bare      Server+                 Server?                Server+
501  envelope  Api                     Api?                   Api
501  bare      Server+                 Server?                Server+
502  envelope  Server+                 Server?                Server+
502  bare      Server+                 Server?                Server+
503  envelope  Server+                 Server?                Server+
503  bare      Server+                 Server?                Server+
504  envelope  Server+                 Server?                Server+
504  bare      Server+                 Server?                Server+
505  envelope  Api                     Api                    Api
505  bare      Server+                 Server?                Server+
531  envelope  Api                     Api?                   Api
531  bare      Server+                 Server?                Server+
"""
ROWS = [line.split() for line in TABLE.split("\n") if line]
CELLS = [
    pytest.param(int(code), how, endpoint, cell, id=f"{code}-{how}-{endpoint}")
    for code, how, *cells in ROWS[1:]
    for endpoints, cell in zip(ROWS[0][2:], cells, strict=True)
    for endpoint in endpoints.split(",")
]

DOCUMENTED = "200 400 401 402 404 405 408 409 413 422 429 430 433 451 455 500 501 505 531"
GATEWAYS = "403 502 503 504"

PAGE = b"<html><body>cloudflare: something is wrong</body></html>"


def test_the_table_is_total():
    """Every code that the vendor or its gateway is known to send has both its rows, once."""
    codes = sorted((DOCUMENTED + " " + GATEWAYS).split())
    assert [row[:2] for row in ROWS[1:]] == [
        [code, how] for code in codes for how in ("envelope", "bare")
    ]
    assert sorted(",".join(ROWS[0][2:]).split(",")) == sorted(CALLS)


def answered(code: int, how: str):
    return answer(envelope(code)) if how == "envelope" else answer(PAGE, code)


@pytest.mark.parametrize(("code", "how", "endpoint", "cell"), CELLS)
def test_code(code, how, endpoint, cell):
    """The error is of the row's class, tells what may be done, and holds the facts."""
    error = outcome_of(endpoint, answered(code, how))
    assert type(error) is getattr(kie_cover_async, f"{cell.rstrip('+?')}Error")
    assert error.retryable is ("+" in cell)
    assert error.maybe_accepted is ("?" in cell)
    assert error.task_id == (TASK if endpoint in ("record-info", "recordInfo") else None)
    assert error.request_id == RAY
    assert error.http_status == (200 if how == "envelope" else code)
    if isinstance(error, ApiError):
        assert (error.code, error.msg) == (code, "said so" if how == "envelope" else "")


@pytest.mark.parametrize("status", [200, 404, 429, 500, 502])
def test_the_envelope_decides(status):
    """Where there is an envelope the HTTP status has no say."""
    assert outcome_of("credit", answer(envelope(200, 7), status)) == 7.0
    error = outcome_of("credit", answer(envelope(401), status))
    assert (type(error).__name__, error.code) == ("AuthenticationError", 401)
    assert error.http_status == status


@pytest.mark.parametrize("code", ["401", "0401"])
def test_a_code_may_be_written_in_digits(code):
    """A code that is a text of digits is the number that it spells."""
    assert outcome_of("credit", answer(envelope(code))).code == 401


@pytest.mark.parametrize(
    "code", [None, True, 200.0, "", "two hundred", "-1", "12345", "²", " 200", [200], {"code": 200}]
)
def test_body_without_numeric_code_is_not_an_envelope(code):
    """If `code` is not a number, the body is unreadable, or the HTTP status decides."""
    error = outcome_of("credit", answer(envelope(code, 7)))
    assert (type(error), error.path) == (InvalidResponseError, "$.code")
    assert error.expected == "a whole number"
    assert type(outcome_of("credit", answer(envelope(code, 7), 503))).__name__ == "ServerError"


@pytest.mark.parametrize(("body", "found"), [({}, "nothing"), ({"code": None}, "None")])
def test_a_missing_code_is_told_from_an_empty_one(body, found):
    """The error says whether there was something, and what."""
    assert outcome_of("credit", answer(body)).found == found


@pytest.mark.parametrize("endpoint", CALLS)
def test_every_other_number_is_some_error(endpoint):
    """Every number has a meaning: from 500 on it is the server's, anything else just an error."""
    known = {int(code) for code, *_ in ROWS[1:]}
    for number in {*range(-1, 1000), 9999} - known:
        error = outcome_of(endpoint, answer(envelope(number)))
        assert (type(error), error.code) == (ServerError if number >= 500 else ApiError, number)
    for status in set(range(300, 600)) - known:
        error = outcome_of(endpoint, answer(PAGE, status))
        assert type(error).__name__ == ("ServerError" if status >= 500 else "ApiError")
    for status in range(200, 300):
        assert type(outcome_of(endpoint, answer(PAGE, status))) is InvalidResponseError


def test_a_redirect_says_so():
    """A redirect is refused, and the error names it."""
    assert "redirect" in str(outcome_of("credit", answer(b"", 302)))
    assert "redirect" not in str(outcome_of("credit", answer(b"", 404)))


@pytest.mark.parametrize(
    ("code", "msg"),
    [
        (200, "success"),
        (404, "Not Found"),
        (422, "recordInfo is null"),
        (422, "The record does not exist"),
        (400, "THE RECORD DOES NOT EXIST"),
        (451, "recordInfo is null"),
    ],
)
def test_no_record(code, msg):
    """However the API says that it has no record of an id, it is the one error."""
    error = outcome_of("record-info", answer(envelope(code, None, msg)))
    assert type(error).__name__ == "TaskNotFoundError"
    assert (error.code, error.msg, error.task_id) == (code, msg, TASK)
    assert not error.transient


@pytest.mark.parametrize("code", [401, 402, 429, 455, 500])
def test_what_says_null_for_another_reason(code):
    """A fault of the server, the key or the pace is that, whatever text comes with it."""
    error = outcome_of("record-info", answer(envelope(code, None, "recordInfo is null")))
    assert type(error).__name__ != "TaskNotFoundError"


def test_only_a_record_can_be_missing():
    """The same words on another endpoint are a request that could not be used."""
    error = outcome_of("generate", answer(envelope(422, None, "The record does not exist")))
    assert type(error).__name__ == "InvalidRequestError"


@pytest.mark.parametrize(
    ("code", "data", "msg", "known"),
    [
        (409, None, "Cover record already exists", None),
        (409, {"taskId": TASK}, "", TASK),
        (400, None, "Cover ALREADY generated", None),
        (400, {"taskId": TASK}, "Bad Request", TASK),
        (400, {"taskId": TASK}, "Cover already generated", TASK),
        (409, {"recordId": TASK}, "", TASK),
        (409, {"taskId": ""}, "", None),
        (409, {"taskId": 7}, "", None),
        (409, {"taskId": "\ud800"}, "", None),
        (409, {"taskId": "two words"}, "", None),
        (409, TASK, "", None),
        (409, [TASK], "", None),
    ],
)
def test_existing_cover(code, data, msg, known):
    """A song that has its cover is told by code, word or id; the id is kept if it can be one."""
    error = outcome_of("generate", answer(envelope(code, data, msg)))
    assert type(error) is CoverAlreadyExistsError
    assert error.existing_task_id == known
    assert not error.retryable
    assert not error.maybe_accepted


@pytest.mark.parametrize(
    ("endpoint", "code", "data", "msg"),
    [
        ("generate", 400, None, "Bad Request"),
        ("generate", 400, {"taskId": ""}, "Bad Request"),
        ("generate", 422, {"taskId": TASK}, "already"),
        ("credit", 400, {"taskId": TASK}, "already"),
        ("record-info", 409, {"taskId": TASK}, "already"),
    ],
)
def test_no_existing_cover(endpoint, code, data, msg):
    """Anything short of that is an ordinary refusal."""
    assert (
        type(outcome_of(endpoint, answer(envelope(code, data, msg)))) is not CoverAlreadyExistsError
    )


@pytest.mark.parametrize("msg", [None, 7, ["a"], {"a": 1}, True])
def test_a_message_that_is_no_text_is_left_out(msg):
    """Only a text is a message."""
    assert outcome_of("credit", answer(envelope(500, None, msg))).msg == ""


def test_a_long_message_is_cut():
    """A message of a megabyte does not become an exception of a megabyte."""
    error = outcome_of("credit", answer(envelope(500, None, "x" * 2**20)))
    assert error.msg == "x" * 500
    assert len(str(error)) < 700


@pytest.mark.parametrize("endpoint", CALLS)
def test_only_our_errors_are_raised(endpoint):
    """An answer's error has no cause and no context that could show more than it does."""
    error = outcome_of(endpoint, answer(envelope(200, {"taskId": []})))
    assert isinstance(error, KieCoverError)
    assert error.__cause__ is None
    assert error.__context__ is None
