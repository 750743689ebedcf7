"""Bodies that are not answers of the API, and the headers that are read."""

import json
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from multidict import CIMultiDict
from support.api_answers import CALLS, SUBMITS, answer, envelope, outcome_of, record

from kie_cover_async import InvalidResponseError
from kie_cover_async.api import Response

pytestmark = pytest.mark.usefixtures("parser")

DEEP = 200_000
NO_ENVELOPES = {
    "empty": b"",
    "a gateway's page": b"<html>502 Bad Gateway</html>",
    "truncated": b'{"code":200,"msg":"success","data":{"taskId":"21ae',
    "two answers": b'{"code":200}{"code":200}',
    "no text": b"\xff\xfe\xfd\x80",
    "half a character": '{"code":200,"msg":"–"}'.encode()[:-4],
    "zeros": b"\x00" * 64,
    "nested without end": b"[" * DEEP,
    "nested objects": b'{"a":' * DEEP,
    "nested and closed": b"[" * DEEP + b"]" * DEEP,
    "a text": b'"success"',
    "a number": b"200",
    "null": b"null",
    "an array": b'[{"code":200}]',
    "not a number": b"NaN",
    "endless": b"-Infinity",
    "a megabyte": b"x" * 2**20,
}


@pytest.mark.parametrize("endpoint", CALLS)
@pytest.mark.parametrize("body", NO_ENVELOPES.values(), ids=NO_ENVELOPES)
def test_what_is_no_envelope_is_unreadable(body, endpoint):
    """Whatever came with a good status is one unreadable answer, its beginning shown."""
    error = outcome_of(endpoint, answer(body))
    assert type(error) is InvalidResponseError
    assert (error.path, error.expected) == ("$", "a JSON object")
    assert 0 < len(error.found) <= 60
    assert error.retryable is (endpoint not in SUBMITS)
    assert error.maybe_accepted is (endpoint in SUBMITS)


@pytest.mark.parametrize("body", NO_ENVELOPES.values(), ids=NO_ENVELOPES)
def test_without_an_envelope_the_status_decides(body):
    """The same bodies with a bad status are what the status says."""
    assert type(outcome_of("credit", answer(body, 502))).__name__ == "ServerError"


def test_what_stood_there_is_shown():
    """The beginning of a gateway's page is in the message: it often tells what is wrong."""
    assert "b'<html>error code: 1010" in str(
        outcome_of("credit", answer(b"<html>error code: 1010"))
    )


def test_nesting_within_the_limit_is_found_at_its_place():
    """Data nested as deep as can be read at all is refused at its path."""
    depth = sys.getrecursionlimit() // 2
    body = b'{"code":200,"data":' + b"[" * depth + b"]" * depth + b"}"
    for endpoint in CALLS:
        error = outcome_of(endpoint, answer(body))
        assert (type(error), error.path) == (InvalidResponseError, "$.data")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_of_json_are_read(encoding):
    """JSON may come with a byte order mark."""
    assert outcome_of("credit", answer(json.dumps(envelope(200, 1.5)).encode(encoding))) == 1.5


def test_a_number_of_any_length_costs_only_its_field():
    """A time of ten thousand digits does not take the finished cover with it."""
    body = json.dumps(envelope(200, record(createTime=0))).encode()
    assert b'"createTime": 0' in body
    huge = body.replace(b'"createTime": 0', b'"createTime": ' + b"9" * 10_000)
    details = outcome_of("record-info", answer(huge))
    assert details.create_time is None
    assert details.is_success


@pytest.mark.parametrize("digits", [b"9" * 10_000, b"-" + b"9" * 10_000, b"1e999", b"NaN"])
def test_a_number_past_all_numbers_is_no_balance(digits):
    """What is not finite is refused where a number matters."""
    error = outcome_of("credit", answer(b'{"code":200,"data":' + digits + b"}"))
    assert (type(error), error.path, error.expected) == (
        InvalidResponseError,
        "$.data",
        "a finite number",
    )


def test_a_code_past_all_numbers_is_no_code():
    """Nor is it one that decides."""
    assert outcome_of("credit", answer(b'{"code":' + b"9" * 10_000 + b"}")).path == "$.code"


@pytest.mark.parametrize("name", ["cf-ray", "CF-RAY", "Cf-Ray"])
def test_the_request_id_is_found_in_any_case(name):
    """A request is known by the gateway's `cf-ray`."""
    assert (
        outcome_of("credit", Response(500, CIMultiDict({name: "abc-FRA"}), b"")).request_id
        == "abc-FRA"
    )


def test_a_request_without_an_id():
    """An answer that came past the gateway has none."""
    assert outcome_of("credit", Response(500, CIMultiDict(), b"")).request_id is None


def limited(**headers):
    """The pause that a refusal with these headers asks for."""
    return outcome_of("credit", answer(envelope(429), **headers)).retry_after


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("007", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("2.", 2.0),
        ("120", 120.0),
        ("86400", 86400.0),
        ("99999999999999", 99999999999999.0),
        ("9" * 400, float("inf")),
    ],
)
def test_retry_after_in_seconds(text, seconds):
    """A number of seconds is read unchanged, however large; its use is decided elsewhere."""
    assert limited(Retry_After=text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "-5", "+5", "5 s", "1e3", "0x10", "1,5", "²", "٣", "NaN", "inf", "1_0", "."],
)
def test_retry_after_that_cannot_be_read(text):
    """What is neither seconds nor a date is as good as none."""
    assert limited(Retry_After=text) is None


def test_no_retry_after():
    """Without the header nothing is asked for."""
    assert limited() is None


SERVED = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)


def http_date(moment):
    return format_datetime(moment, usegmt=True)


@pytest.mark.parametrize("seconds", [0, 1, 90, 86400])
def test_retry_after_as_a_date(seconds):
    """A date is compared with the server's own clock, not with ours."""
    then = http_date(SERVED + timedelta(seconds=seconds))
    assert limited(Retry_After=then, Date=http_date(SERVED)) == seconds


def test_retry_after_that_is_past():
    """A date that is over asks for no pause."""
    then = http_date(SERVED - timedelta(hours=1))
    assert limited(Retry_After=then, Date=http_date(SERVED)) == 0.0


@pytest.mark.parametrize("date", [{}, {"Date": "nonsense"}])
def test_retry_after_as_a_date_without_a_server_clock(date):
    """Where the server does not tell its time, ours has to do."""
    then = http_date(datetime.now(UTC) + timedelta(seconds=100))
    assert 90 < limited(Retry_After=then, **date) <= 100


@pytest.mark.parametrize(
    "text",
    [
        "Wed, 21 Oct 2026 07:28:00 GMT",
        "21 Oct 2026 07:28:00 GMT",
        "Wed, 21 Oct 2026 09:28:00 +0200",
        "Wed, 21 Oct 2026 07:28:00 -0000",
        "Wednesday, 21-Oct-26 07:28:00 GMT",
        "Wed Oct 21 07:28:00 2026",
    ],
)
def test_the_servers_clock(text):
    """`Date` is read in the notations that HTTP has had."""
    assert answer(b"", Date=text).served_at == SERVED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1760512082",
        "2026-10-21T07:28:00Z",
        "Wed, 99 Oct 2026 07:28:00 GMT",
        "Wed, 21 Oct 2026 07:28:00 +9999",
        "Fri, 31 Dec 9999 23:59:59 -1200",
        "a b c d e f",
    ],
)
def test_no_server_clock(text):
    """A date that no clock shows is none, and no error."""
    assert answer(b"", Date=text).served_at is None


def test_retry_after_is_read_only_for_a_refusal():
    """`Retry-After` is read only for a refusal for too many requests."""
    assert not hasattr(outcome_of("credit", answer(envelope(500), Retry_After="7")), "retry_after")
