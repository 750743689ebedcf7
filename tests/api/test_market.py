"""What the Market route submits and reads: `state` decides, and images have four places."""

import json
import logging
from datetime import UTC, datetime

import pytest
from support.api_answers import IMAGE, TASK, answer, envelope, outcome_of

from kie_cover_async import (
    CoverDetails,
    CoverState,
    InvalidResponseError,
    structure_details,
    unstructure_details,
)
from kie_cover_async.api.market import MARKET

pytestmark = pytest.mark.usefixtures("parser")

OTHER = "https://file.aiquickdraw.com/as/other.png"
SONG = "73d6128b3523a0079df10da9471017c8"


def record(**fields):
    """A finished job's `data` as the Market writes it, with these fields in place of its own."""
    request = {"input": json.dumps({"task_id": SONG}), "model": "ai-music-api/cover-generate"}
    return {
        "taskId": TASK,
        "state": "success",
        "param": json.dumps(request),
        "resultJson": json.dumps({"resultUrls": [IMAGE]}),
        "failCode": None,
        "failMsg": None,
        "costTime": 55,
        "createTime": 1776862567160,
        "completeTime": 1776862622656,
    } | fields


def read(**fields):
    """What a poll of the Market returns, or raises."""
    return outcome_of("recordInfo", answer(envelope(200, record(**fields))))


# Submits.


def test_submit_has_the_documented_body():
    """The callback URL stands next to `input`, in camelCase; `input` is in snake_case."""
    request = MARKET.submit_request(SONG, "https://api.example.com/callback")
    assert json.loads(request.body) == {
        "model": "ai-music-api/cover-generate",
        "callBackUrl": "https://api.example.com/callback",
        "input": {"task_id": SONG},
    }


def test_submit_without_a_callback_url_names_none():
    """Here the callback is optional: no member stands for it."""
    assert set(json.loads(MARKET.submit_request(SONG, None).body)) == {"model", "input"}


@pytest.mark.parametrize(
    "data", [{"taskId": TASK}, {"recordId": TASK}, {"taskId": None, "recordId": TASK}]
)
def test_accepted_submit_names_the_task_as_either_id(data):
    """The id is `taskId`, or `recordId` if there is none."""
    assert outcome_of("createTask", answer(envelope(200, data))) == TASK


@pytest.mark.parametrize("data", [{"id": TASK}, {"taskId": ""}, {"recordId": 7}, [TASK], "text"])
def test_accepted_submit_without_an_id_may_have_started_a_job(data):
    """It is unreadable, and must not be sent again by itself."""
    error = outcome_of("createTask", answer(envelope(200, data)))
    assert (type(error), error.maybe_accepted) == (InvalidResponseError, True)


# The state.

STATES = {
    "waiting": CoverState.PENDING,
    "queuing": CoverState.PENDING,
    "generating": CoverState.GENERATING,
    "success": CoverState.SUCCESS,
    "fail": CoverState.GENERATE_COVER_FAILED,
    " Generating ": CoverState.GENERATING,
    "paused": CoverState.UNKNOWN,
    "failed": CoverState.UNKNOWN,
    "1": CoverState.UNKNOWN,
    "3": CoverState.UNKNOWN,
    "CREATE_TASK_FAILED": CoverState.UNKNOWN,
}


@pytest.mark.parametrize(("state", "meaning"), STATES.items())
def test_state_decides(state, meaning):
    """The five words of the vendor's pages are known; any other is unknown, and not terminal."""
    details = read(state=state)
    assert details.state is meaning
    assert details.is_terminal is (state in ("success", "fail"))


@pytest.mark.parametrize(("flag", "status"), [(0, None), (1, "SUCCESS"), (3, "FAILED")])
def test_flag_and_status_next_to_a_state_are_ignored(flag, status):
    """`successFlag` was seen as 0 while the job was generating."""
    details = read(state="generating", successFlag=flag, status=status, resultJson="")
    assert details.state is CoverState.GENERATING


@pytest.mark.parametrize(
    ("fields", "meaning"),
    [
        ({}, CoverState.UNKNOWN),
        ({"successFlag": 1}, CoverState.SUCCESS),
        ({"successFlag": "1"}, CoverState.SUCCESS),
        ({"status": "SUCCESS"}, CoverState.SUCCESS),
        ({"successFlag": 0}, CoverState.UNKNOWN),
        ({"successFlag": 3, "status": "FAILED"}, CoverState.UNKNOWN),
    ],
)
@pytest.mark.parametrize("state", [None, "", " "])
def test_without_a_state_only_a_success_is_read(state, fields, meaning):
    """No other value of the flag has a known meaning on this route."""
    assert read(state=state, **fields).state is meaning


@pytest.mark.parametrize("state", [1, True, ["success"], {"success": 1}])
def test_state_that_is_not_a_text_is_unreadable(state):
    """The error says where."""
    error = read(state=state)
    assert (type(error), error.path, error.expected) == (
        InvalidResponseError,
        "$.data.state",
        "a text",
    )


# The images.


def in_json(**results):
    return {"resultJson": json.dumps(results)}


@pytest.mark.parametrize(
    "fields",
    [
        in_json(resultUrls=[IMAGE, OTHER]),
        in_json(images=[IMAGE, OTHER]),
        in_json(data={"images": [IMAGE, OTHER]}),
        in_json(resultObject={"images": [IMAGE, OTHER]}),
        in_json(resultUrls=None, images=[], data={"images": [IMAGE, OTHER]}),
        {"resultJson": {"resultUrls": [IMAGE, OTHER]}},
        {"resultJson": "", "response": {"images": [IMAGE, OTHER]}},
        {"resultJson": None, "response": json.dumps({"resultUrls": [IMAGE, OTHER]})},
        {"resultJson": "{broken", "response": {"resultUrls": [IMAGE, OTHER]}},
        {"resultJson": "7", "response": {"data": {"images": [IMAGE, OTHER]}}},
        in_json(resultUrls={"url": OTHER}, images=[IMAGE, OTHER]),
        in_json(resultUrls=[None]) | {"response": {"resultObject": {"images": [IMAGE, OTHER]}}},
        in_json(resultUrls=[IMAGE, None, OTHER]) | {"response": {"resultUrls": ["https://no/"]}},
    ],
)
def test_images_are_read_from_four_places(fields):
    """`resultJson` comes before `response`; a broken one next to a good one does not matter."""
    assert read(**fields).images == (IMAGE, OTHER)


@pytest.mark.parametrize(
    "fields",
    [
        {"resultJson": None},
        {"resultJson": "", "response": {}},
        in_json(),
        in_json(resultUrls=[]),
        in_json(resultUrls=[None, ""]),
        in_json(data=[{"image_url": IMAGE, "audio_url": IMAGE}]),
        in_json(firstFrameUrl=[IMAGE], resultObject=[IMAGE]),
        {"resultJson": "", "param": json.dumps({"input": {"images": [IMAGE]}, "images": [IMAGE]})},
        {"resultJson": "", "images": [IMAGE], "resultUrls": [IMAGE], "data": {"images": [IMAGE]}},
    ],
)
def test_url_elsewhere_is_not_an_image(fields):
    """A success without images is one, as on the other route: they may come later."""
    details = read(**fields)
    assert details.images == ()
    assert details.state is CoverState.SUCCESS
    assert not details.is_success


UNREADABLE = {
    ".resultJson": {"resultJson": "{broken"},
    ".response": {"resultJson": "", "response": [IMAGE]},
    ".resultJson.resultUrls": in_json(resultUrls={"url": IMAGE}),
    ".resultJson.images[0]": in_json(images=["no URL"]),
    ".response.data.images": {"resultJson": "", "response": {"data": {"images": 7}}},
}


@pytest.mark.parametrize(("path", "fields"), UNREADABLE.items())
def test_unreadable_images_of_a_success_are_an_error(path, fields):
    """The path names the place in the Market's own record."""
    error = read(**fields)
    assert (type(error), error.path) == (InvalidResponseError, f"$.data{path}")


@pytest.mark.parametrize("fields", UNREADABLE.values())
@pytest.mark.parametrize("state", ["generating", "fail", "paused"])
def test_unreadable_images_of_another_state_are_left_out(state, fields, caplog):
    """They cost nothing but a line in the log."""
    caplog.set_level(logging.WARNING)
    assert read(state=state, **fields).images == ()
    assert "cannot be read" in caplog.text


# What informs.


def test_song_and_callback_are_read_from_the_request():
    """`param` is a JSON text, in which `input` is again one."""
    request = {"input": json.dumps({"task_id": SONG}), "callBackUrl": "https://example.com/hook"}
    for param in (json.dumps(request), request, json.dumps(request | {"input": {"task_id": SONG}})):
        details = read(param=param)
        assert details.parent_task_id == SONG
        assert details.callback_url == "https://example.com/hook"


@pytest.mark.parametrize("param", [None, "", "{broken", "7", [], json.dumps({"input": "{broken"})])
def test_request_that_cannot_be_read_is_left_out(param):
    """The rest of the record is read without it."""
    details = read(param=param)
    assert (details.parent_task_id, details.callback_url) == (None, None)
    assert details.is_success


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"failCode": "500", "failMsg": "task id is blank"}, "500", "task id is blank"),
        ({"failCode": 501, "failMsg": 501}, 501, "501"),
        ({"failCode": "GENERATION_FAILED", "failMsg": ""}, "GENERATION_FAILED", None),
        ({"failCode": None, "failMsg": "why"}, None, "why"),
        ({"failCode": "", "failMsg": None}, None, None),
    ],
)
def test_failure_tells_code_and_message(fields, code, message):
    """Both may be texts or numbers, and either may be missing."""
    details = read(state="fail", resultJson=None, **fields)
    assert (details.error_code, details.error_message) == (code, message)


@pytest.mark.parametrize(
    ("given", "known"), [(6, 6.0), (0.1, 0.1), (None, None), ("6", None), (True, None)]
)
def test_credits_consumed_are_a_number(given, known):
    """They are seen while the job is generating, too."""
    assert read(creditsConsumed=given).credits_consumed == known


def test_record_without_an_id_is_of_the_id_asked_for():
    """Records of failed jobs were reported without one."""
    assert read(taskId=None, state="fail").task_id == TASK


def test_record_of_another_id_is_refused():
    """It would be the cover of another song."""
    assert read(taskId="0" * 32).path == "$.data.taskId"


@pytest.mark.parametrize("data", ["text", 7, [record()]])
def test_data_that_is_not_an_object_is_refused(data):
    assert outcome_of("recordInfo", answer(envelope(200, data))).path == "$.data"


@pytest.mark.parametrize("name", ["msg", "message"])
def test_message_is_read_by_either_name(name):
    """Some editions of the vendor's pages print `message`."""
    error = outcome_of("recordInfo", answer({"code": 404, name: "Task not found", "data": None}))
    assert error.msg == "Task not found"


def test_what_is_written_reads_back_equal():
    """`structure_details` and `unstructure_details` have one shape for both routes."""
    details = read(creditsConsumed=0.5)
    assert details == CoverDetails(
        task_id=TASK,
        parent_task_id=SONG,
        create_time=datetime(2026, 4, 22, 12, 56, 7, 160000, tzinfo=UTC),
        complete_time=datetime(2026, 4, 22, 12, 57, 2, 656000, tzinfo=UTC),
        response=details.response,
        success_flag="SUCCESS",
        credits_consumed=0.5,
    )
    assert structure_details(unstructure_details(details)) == details


# The shape of an unknown record.


def test_shape_of_an_unknown_record_shows_no_value():
    """Keys and types are enough for a report, and no value is in it."""
    details = read(state="paused", resultJson=json.dumps({"covers": [{"url": IMAGE}, {"n": 1.5}]}))
    assert details.record_shape == (
        "{taskId: str, state: str, param: str of {input: str of {task_id: str}, model: str}, "
        "resultJson: str of {covers: [{url: URL}, {n: float}]}, failCode: null, failMsg: null, "
        "costTime: int, createTime: int, completeTime: int}"
    )


def test_success_without_images_has_a_shape():
    """Where the images of a cover stand on this route was never shown."""
    assert "covers: [URL]" in read(**in_json(covers=[IMAGE])).record_shape


@pytest.mark.parametrize("state", ["waiting", "generating", "success", "fail"])
def test_known_record_has_no_shape(state):
    assert read(state=state).record_shape is None


def test_shape_shows_keys_in_one_printable_line():
    """A control character or half a surrogate pair of a key reaches no terminal."""
    shape = read(state="paused", **{"a\nkey": 1, "\x1b[2J": 2, "half\ud800": 3}).record_shape
    assert shape.isprintable()
    assert "a�key: int, �[2J: int, half�: int" in shape


def test_shape_of_a_huge_record_is_bounded():
    """Depth, the number of keys and their length are."""
    deep: list = []
    for _ in range(50):
        deep = [{"k" * 100: deep}]
    many = {str(number): number for number in range(1000)}
    assert len(read(state="paused", deep=deep, many=many).record_shape) <= 2000


def test_shape_of_texts_within_texts_ends():
    """A JSON text at the deepest level that is shown is not followed further."""
    nested: object = json.dumps([[[[[[1]]]]]])
    for _ in range(5):
        nested = [nested]
    assert read(state="paused", nested=nested).record_shape.endswith("nested: [[[[[str of …]]]]]}")
