"""Whatever comes, a value comes of it or an error of ours, and what was read can be written."""

import json
from datetime import timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict
from support.api_answers import CALLS, IMAGE, TASK, envelope, outcome_of, record
from support.strategies import check_answer, check_record

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

pytestmark = pytest.mark.usefixtures("parser")

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
codes = st.sampled_from([200, 400, 401, 404, 409, 422, 429, 500]) | anything
values = st.floats() | st.integers() | st.just(IMAGE) | records | anything
envelopes = st.fixed_dictionaries({"code": st.just(200), "data": values}) | st.fixed_dictionaries(
    {}, optional={"code": codes, "msg": anything, "data": values}
)
statuses = st.sampled_from([200, 204, 302, 400, 401, 409, 429, 502, 599])
headers = st.dictionaries(
    st.sampled_from(["Retry-After", "Date", "cf-ray"]),
    texts | st.integers().map(str) | st.datetimes().map(lambda moment: f"{moment:%a, %d %b %Y %X}"),
)


@given(st.sampled_from(list(CALLS)), st.binary(max_size=200), statuses, headers)
@example("record-info", b"\xef\xbb\xbf", 200, {})
@example("generate", b'{"code":200,"data":{"taskId":"\\ud800"}}', 200, {"cf-ray": "\udc80"})
def test_bytes(call, body, status, fields):
    """Of arbitrary bytes, with arbitrary headers, only a value or an error of ours comes."""
    check_answer(call, Response(status, CIMultiDict(fields), body))


@example("record-info", envelope(200, record()), 200, {})
@example("generate", envelope(200, record()), 200, {})
@example("credit", envelope(200, 7), 502, {})
@example("download-url", envelope("200", IMAGE), 200, {})
@given(st.sampled_from(list(CALLS)), envelopes | anything, statuses, headers)
def test_json(call, body, status, fields):
    """Arbitrary JSON in any part of the envelope or the record yields a value or an error."""
    check_answer(call, Response(status, CIMultiDict(fields), json.dumps(body).encode()))


INFORMING = [
    "parentTaskId",
    "callbackUrl",
    "createTime",
    "completeTime",
    "errorCode",
    "errorMessage",
]


@given(st.dictionaries(st.sampled_from(INFORMING), anything))
@example({"createTime": "9" * 5000, "errorCode": 10**4000})
def test_informational_fields_never_cost_the_cover(fields):
    """No content of an informational field costs the caller the cover."""
    details = outcome_of("record-info", answer_with(record(**fields)))
    assert isinstance(details, CoverDetails)
    assert details.is_success
    check_record(record(**fields))


@given(st.sampled_from(["taskId", "successFlag", "status", "response"]), responses | anything)
def test_what_matters(field, value):
    """Whatever stands in one of the others, it is read, or refused by its path."""
    outcome = outcome_of("record-info", answer_with(record(**{field: value})))
    if not isinstance(outcome, CoverDetails):
        assert isinstance(outcome, InvalidResponseError)
        assert outcome.path.startswith("$.data.")
    check_record(record(**{field: value}))


@given(st.sampled_from(list(CALLS)), codes, statuses, anything)
def test_any_code(call, code, status, data):
    """With any code an answer is a value only if that is 200, and an error that fits it if not."""
    body = json.dumps(envelope(code, data)).encode()
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
def test_there_and_back(data):
    """What could be read is written as JSON, and read again it is the same."""
    check_record(data)


zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=zones | st.none()).map(
    lambda moment: moment.isoformat(timespec="milliseconds")
)


@given(moments | st.integers(-(10**16), 10**16) | st.floats(-1e13, 1e13))
def test_times_there_and_back(written):
    """A time that could be read is written so that the same moment is read again."""
    details = structure_details(record(createTime=written))
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
def test_details_made_by_hand_there_and_back(details):
    """Details that a program has put together survive as those that were read."""
    assert structure_details(unstructure_details(details)) == details
