"""Arbitrary input yields a value or an error of this package, and values survive writing."""

import json
from datetime import timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict
from support.api_answers import CALLS, IMAGE, TASK, envelope, outcome_of, record
from support.parsers import INSTALLED, parsed_by
from support.strategies import check_answer, check_market_record, check_record

from kie_cover_async import (
    ApiError,
    CoverDetails,
    CoverResponse,
    InvalidResponseError,
    KieCoverError,
    structure_details,
    unstructure_details,
)
from kie_cover_async.api import Response

# Each example is read by one of the parsers; `test_parsers` shows that both read the same.
parsers = st.sampled_from(INSTALLED)
texts = st.text(st.characters(exclude_categories=[]), max_size=30)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats()
    | texts
    | st.sampled_from(["200", "0", "success", "SUCCESS", TASK, IMAGE, "2025-01-15T10:33:01Z"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)

FIELDS = [
    "taskId",
    "parentTaskId",
    "callbackUrl",
    "createTime",
    "completeTime",
    "response",
    "successFlag",
    "errorCode",
    "errorMessage",
    "status",
]
responses = st.fixed_dictionaries({"images": st.lists(anything, max_size=4) | anything})
records = st.fixed_dictionaries(
    {"taskId": st.just(TASK) | anything},
    optional=dict.fromkeys(FIELDS[1:], anything) | {"response": responses | anything},
)


def written(values):
    """JSON texts of these values."""
    return values.map(json.dumps)


images = st.lists(st.just(IMAGE) | st.none() | anything, max_size=3) | anything
results = st.fixed_dictionaries(
    {},
    optional={
        "resultUrls": images,
        "images": images,
        "data": st.fixed_dictionaries({"images": images}) | anything,
        "resultObject": st.fixed_dictionaries({"images": images}) | anything,
    },
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "input": written(st.fixed_dictionaries({"task_id": texts | anything})) | anything,
        "callBackUrl": texts | anything,
    },
)
states = st.sampled_from(["waiting", "queuing", "generating", "success", "fail", " Success ", ""])
market_records = st.fixed_dictionaries(
    {"state": states | anything, "resultJson": written(results) | anything},
    optional={
        "taskId": st.just(TASK) | anything,
        "param": written(requests) | anything,
        "response": results | anything,
        "failCode": anything,
        "failMsg": anything,
        "createTime": anything,
        "completeTime": anything,
        "creditsConsumed": anything,
        "successFlag": st.sampled_from([0, 1, "1", 3]) | anything,
        "status": st.just("SUCCESS") | anything,
    },
)
codes = st.sampled_from([200, 400, 401, 404, 409, 422, 429, 500]) | anything
values = st.floats() | st.integers() | st.just(IMAGE) | records | market_records | anything
envelopes = st.fixed_dictionaries({"code": st.just(200), "data": values}) | st.fixed_dictionaries(
    {}, optional={"code": codes, "msg": anything, "data": values}
)
statuses = st.sampled_from([200, 204, 302, 400, 401, 409, 429, 502, 599])
headers = st.dictionaries(
    st.sampled_from(["Retry-After", "Date", "cf-ray"]),
    texts | st.integers().map(str) | st.datetimes().map(lambda moment: f"{moment:%a, %d %b %Y %X}"),
)


@given(parsers, st.sampled_from(list(CALLS)), st.binary(max_size=200), statuses, headers)
@example("json", "record-info", b"\xef\xbb\xbf", 200, {})
@example("json", "generate", b'{"code":200,"data":{"taskId":"\\ud800"}}', 200, {"cf-ray": "\udc80"})
def test_arbitrary_bytes_are_a_value_or_an_error(parser, call, body, status, fields):
    """Headers are arbitrary, too; every error is one of this package."""
    with parsed_by(parser):
        check_answer(call, Response(status, CIMultiDict(fields), body))


@example("json", "record-info", envelope(200, record()), 200, {})
@example("json", "generate", envelope(200, record()), 200, {})
@example("json", "credit", envelope(200, 7), 502, {})
@example("json", "download-url", envelope("200", IMAGE), 200, {})
@given(parsers, st.sampled_from(list(CALLS)), envelopes | anything, statuses, headers)
def test_arbitrary_json_is_a_value_or_an_error(parser, call, body, status, fields):
    """It may stand in any part of the envelope or of either route's record."""
    with parsed_by(parser):
        check_answer(call, Response(status, CIMultiDict(fields), json.dumps(body).encode()))


@given(parsers, market_records)
@example("json", {"state": "odd", "a\nb\ud800": 1, "resultJson": ""})
@example("json", {"state": "success", "resultJson": "[" * 3000, "response": {"images": [IMAGE]}})
def test_any_record_of_the_market_is_details_or_an_error(parser, data):
    """Only `state` ends a job, and images come from the four places only."""
    with parsed_by(parser):
        check_market_record(data)


INFORMING = [
    "parentTaskId",
    "callbackUrl",
    "createTime",
    "completeTime",
    "errorCode",
    "errorMessage",
]


@given(st.dictionaries(st.sampled_from(INFORMING), anything, min_size=1))
@example({"createTime": "9" * 5000, "errorCode": 10**4000})
def test_informational_fields_never_cost_the_cover(fields):
    """No content of an informational field costs the caller the cover."""
    details = outcome_of("record-info", answer_with(record(**fields)))
    assert isinstance(details, CoverDetails)
    assert details.is_success
    check_record(record(**fields))


@given(st.sampled_from(["taskId", "successFlag", "status", "response"]), responses | anything)
def test_essential_field_is_read_or_named_in_the_error(field, value):
    """An error of a field that is not informational has its path."""
    outcome = outcome_of("record-info", answer_with(record(**{field: value})))
    if not isinstance(outcome, CoverDetails):
        assert isinstance(outcome, InvalidResponseError)
        assert outcome.path.startswith("$.data.")
    check_record(record(**{field: value}))


@given(parsers, st.sampled_from(list(CALLS)), codes, statuses, anything)
def test_only_code_200_yields_a_value(parser, call, code, status, data):
    """Any other code is an error."""
    body = json.dumps(envelope(code, data)).encode()
    with parsed_by(parser):
        outcome = outcome_of(call, Response(status, CIMultiDict(), body))
    if code in (200, "200") and not isinstance(code, bool):
        assert not isinstance(outcome, ApiError) or outcome.code == 200
    else:
        assert isinstance(outcome, KieCoverError)


def answer_with(data):
    return Response(200, CIMultiDict(), json.dumps(envelope(200, data)).encode())


@given(records | anything)
@example(record(successFlag="", status="\ud800"))
@example(record(createTime=-0.0004, completeTime=-1))
def test_record_that_was_read_reads_back_equal(data):
    """It is written as JSON."""
    check_record(data)


zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=zones | st.none()).map(
    lambda moment: moment.isoformat(timespec="milliseconds")
)


@given(moments | st.integers(-(10**16), 10**16) | st.floats(-1e13, 1e13))
def test_time_that_was_read_reads_back_equal(time):
    """The same moment is read from what was written."""
    details = structure_details(record(createTime=time))
    assert structure_details(unstructure_details(details)) == details


known_errors = st.none() | st.sampled_from([500, 531, "422", "SENSITIVE_WORD"])
details_by_hand = st.builds(
    CoverDetails,
    task_id=st.text("abcdef0123456789", min_size=1),
    parent_task_id=st.none() | st.text(min_size=1),
    create_time=st.none(),
    response=st.builds(CoverResponse, images=st.lists(st.just(IMAGE), max_size=3).map(tuple)),
    success_flag=st.none() | st.integers() | st.sampled_from(["SUCCESS", "3", "odd"]),
    error_code=known_errors,
)


@given(details_by_hand)
def test_details_made_by_hand_read_back_equal(details):
    """A program may put details together itself."""
    assert structure_details(unstructure_details(details)) == details
