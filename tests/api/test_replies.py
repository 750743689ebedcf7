"""What each published or recorded answer means, on the endpoint it is of and on every other."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import evolve
from support.api_answers import CALLS, IMAGE, TASK, answer, outcome_of

from kie_cover_async import (
    ApiError,
    AuthenticationError,
    CoverDetails,
    CoverResponse,
    CoverState,
    InvalidRequestError,
    InvalidResponseError,
    RateLimitedError,
    ServerError,
    TaskNotFoundError,
)
from kie_cover_async.api import Request
from kie_cover_async.api.market import MARKET
from kie_cover_async.api.suno import SUNO

pytestmark = pytest.mark.usefixtures("parser")

REPLIES = {file.stem: file for file in (Path(__file__).parents[1] / "replies").iterdir()}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LIVE_TASK = "4135131e47b02dffe351a3a5e8471e97"

DOCUMENTED = CoverDetails(
    task_id=TASK,
    parent_task_id="73d6128b3523a0079df10da9471017c8",
    callback_url="https://api.example.com/callback",
    create_time=datetime(2025, 1, 15, 10, 33, 1, tzinfo=UTC),
    complete_time=datetime(2025, 1, 15, 10, 35, 27, tzinfo=UTC),
    response=CoverResponse(
        images=(
            IMAGE,
            "https://tempfile.aiquickdraw.com/s/1753958524_c153143acc6340908431cf0e90cbce9e.png",
        )
    ),
    success_flag=1,
)
LIVE = CoverDetails(
    task_id=LIVE_TASK,
    parent_task_id="26aa3cf035e9660408fce96954acfbfa",
    create_time=datetime(2025, 10, 15, 7, 7, 15, tzinfo=UTC),
    complete_time=datetime(2025, 10, 15, 7, 8, 2, tzinfo=UTC),
    response=CoverResponse(
        images=(
            "https://tempfile.aiquickdraw.com/s/1760512076_5dbf29ba8de3493b9ef87ed650831c14.png",
            "https://tempfile.aiquickdraw.com/s/1760512078_7795f6847112469c85dc6f22d34f479e.png",
        )
    ),
    success_flag=1,
)


def says(error, code, **facts):
    """The API's no, with the message that stands in the file."""
    return error, {"code": code, **facts}


def unreadable(path="$.data"):
    return InvalidResponseError, {"path": path}


def everywhere(error, code, **facts):
    return dict.fromkeys(CALLS, says(error, code, **facts))


NEITHER = {"credit": unreadable(), "download-url": unreadable()}


def an_object(task_id, *, suno, market):
    """`data` with a task id: a record to both routes, an accepted submit, and no amount or link."""
    return {
        "record-info": suno,
        "recordInfo": market,
        "generate": task_id,
        "createTask": task_id,
        **NEITHER,
    }


def market_record(task_id, state, created=None, completed=None, images=(), **facts):
    """A record of the Market, which to the suno route is one without a flag.

    Times are in milliseconds since the epoch.
    """
    known = {
        "task_id": task_id,
        "create_time": created and EPOCH + timedelta(milliseconds=created),
        "complete_time": completed and EPOCH + timedelta(milliseconds=completed),
        "credits_consumed": facts.pop("credits_consumed", None),
    }
    response = CoverResponse(images=images)
    flag = facts.pop("suno_flag", None)
    market = CoverDetails(**known, response=response, success_flag=state, **facts)
    return an_object(task_id, suno=CoverDetails(**known, success_flag=flag), market=market)


NOT_A_COVER = InvalidRequestError, 422
NO_DATA = {
    "record-info": says(TaskNotFoundError, 200, msg="success"),
    "recordInfo": says(TaskNotFoundError, 200, msg="success"),
    "generate": unreadable(),
    "createTask": unreadable(),
    **NEITHER,
}


def missing(code, msg, elsewhere):
    """To a poll of either route there is no record; a submit is refused."""
    polls = dict.fromkeys(("record-info", "recordInfo"), says(TaskNotFoundError, code, msg=msg))
    return everywhere(elsewhere, code, msg=msg) | polls


NO_ENVELOPE = dict.fromkeys(CALLS, unreadable("$.code"))

MEANING = {
    "callback-failure-documented": everywhere(ApiError, 501, msg="Cover generation failed"),
    # A callback's body has no flag, so it is not a record of a finished cover.
    "callback-success-documented": an_object(
        TASK, suno=CoverDetails(task_id=TASK), market=CoverDetails(task_id=TASK)
    ),
    "credits-live": dict.fromkeys(CALLS, unreadable()) | {"credit": 5916.25},
    "download-url-foreign-live": everywhere(*NOT_A_COVER, msg="url is wrong"),
    "generate-accepted-documented": an_object(
        TASK, suno=CoverDetails(task_id=TASK), market=CoverDetails(task_id=TASK)
    ),
    "generate-missing-callback-live-sister": everywhere(
        *NOT_A_COVER, msg="Please enter callBackUrl."
    ),
    "generate-unknown-music-live": missing(
        422, "Original music record does not exist", InvalidRequestError
    ),
    "rate-limited-reported": everywhere(
        RateLimitedError,
        429,
        msg="Your call frequency is too high. Please try again later.",
        retry_after=None,
    ),
    # The Market names song and callback elsewhere; of these flags it is told only a success.
    "record-success-documented": an_object(
        TASK,
        suno=DOCUMENTED,
        market=evolve(DOCUMENTED, parent_task_id=None, callback_url=None, success_flag="SUCCESS"),
    ),
    "record-success-live": an_object(
        LIVE_TASK,
        suno=LIVE,
        market=evolve(LIVE, parent_task_id=None, success_flag="SUCCESS"),
    ),
    "record-unknown-id-live": NO_DATA,
    "server-error-documented": everywhere(ServerError, 500),
    "unauthorised-live-sister": everywhere(AuthenticationError, 401),
    "suno-generate-unknown-record-live-sister": missing(
        422, "Record does not exist", InvalidRequestError
    ),
    # A sister's failure on the suno route; the Market would write a word for it.
    "aleph-record-failed-flag3-live-sister": an_object(
        "c0d088df35254cc3e7187fb7116b2efa",
        suno=CoverDetails(
            task_id="c0d088df35254cc3e7187fb7116b2efa",
            create_time=datetime(2026, 8, 18, 22, 51, 40, tzinfo=UTC),
            complete_time=datetime(2026, 8, 18, 22, 51, 56, tzinfo=UTC),
            success_flag=3,
            error_code=500,
            error_message="internal error, please try again later.",
        ),
        market=CoverDetails(
            task_id="c0d088df35254cc3e7187fb7116b2efa",
            create_time=datetime(2026, 8, 18, 22, 51, 40, tzinfo=UTC),
            complete_time=datetime(2026, 8, 18, 22, 51, 56, tzinfo=UTC),
        ),
    ),
    "market-callback-failure-documented": everywhere(ApiError, 501, msg="Playground task failed."),
    "market-callback-image-success-documented": market_record(
        "558a0e58d58a6cb69e5c6a55170398da",
        "SUCCESS",
        1786413258000,
        1786413282000,
        (
            (
                "https://tempfile.aiquickdraw.com/p/"
                "558a0e58d58a6cb69e5c6a55170398da_1_1786413281_4092.jpg"
            ),
        ),
        callback_url="https://webhook.example/00000000",
        credits_consumed=5.0,
    ),
    "market-callback-success-documented": market_record(
        "task_example_video_webhook_001",
        "SUCCESS",
        1234560000000,  # the page's example has seconds
        1234567890000,
        ("https://example.com/generated-video.mp4",),
        callback_url="https://example.com/callback",
        credits_consumed=1.23,
    ),
    "market-create-accepted-documented": market_record("task_bytedance_1765186743319", None),
    "market-create-accepted-live-sister": market_record("2a83cb163db45e1d1c1b3e314beeb462", None),
    "market-create-blank-id-reported": everywhere(
        ServerError, 500, msg="generate playground failed, task id is blank"
    ),
    "market-create-cover-request-documented": NO_ENVELOPE,
    "market-record-fail-blank-id-reported": {
        "record-info": unreadable("$.data.taskId"),
        "recordInfo": CoverDetails(
            task_id=TASK,
            success_flag="GENERATE_COVER_FAILED",
            error_code="500",
            error_message="generate playground failed, task id is blank",
        ),
        "generate": unreadable("$.data.taskId"),
        "createTask": unreadable("$.data.taskId"),
        **NEITHER,
    },
    "market-record-fail-int-code-reported": market_record(
        "task-1", "GENERATE_COVER_FAILED", error_code=501, error_message="generation failed"
    ),
    "market-record-fail-timeout-reported": NO_ENVELOPE,
    "market-record-generating-2026-09-live-sister": market_record(
        "366e2065ed94e590a9e1201e1f1e1704",
        "GENERATING",
        1789126694807,
        suno_flag=0,
        credits_consumed=6.0,
    ),
    "market-record-not-found-documented": missing(404, "Task not found", ApiError),
    "market-record-success-2026-04-live-sister": market_record(
        "330a9433fd309e9e18df1c567ae38471",
        "SUCCESS",
        1776862567160,
        1776862622656,
        (
            (
                "https://tempfile.aiquickdraw.com/images/chatgpt/"
                "file_0000000075ec71f7bb69819392f67227.png"
            ),
        ),
    ),
    "market-record-success-2026-10-live-sister": market_record(
        "2a83cb163db45e1d1c1b3e314beeb462",
        "SUCCESS",
        1791187185851,
        1791187188701,
        ("https://file.aiquickdraw.com/as/2a83cb163db45e1d1c1b3e314beeb462_1791187188120.wav",),
        suno_flag=1,
        credits_consumed=0.1,
    ),
    # A song's record: its URLs stand in none of the four places.
    "market-record-suno-sounds-success-live-sister": market_record(
        "ac44146a580738e4b39a21809f287de3",
        "SUCCESS",
        1790546560633,
        1790546580394,
        suno_flag=1,
        credits_consumed=2.5,
    ),
    "market-record-unknown-id-documented": missing(422, "recordInfo is null", InvalidRequestError),
    "market-record-waiting-2026-04-live-sister": market_record(
        "a8de419efea8acc988aa41b07b131d18", "PENDING", 1776323931162
    ),
    "market-resultjson-shapes-reported": NO_ENVELOPE,
    "market-unknown-model-reported": missing(
        404,
        "The model name you specified is not supported. Please verify your input and use one of "
        "the supported models provided by KIE.",
        ApiError,
    ),
}


def asked(reply, endpoint):
    """The request of an endpoint; a poll asks for the id that the reply is about, if it has one."""
    data = json.loads(REPLIES[reply].read_bytes()).get("data")
    task_id = data.get("taskId", TASK) if isinstance(data, dict) else TASK
    polls = {"record-info": SUNO.poll, "recordInfo": MARKET.poll}
    return Request(polls[endpoint], task_id) if endpoint in polls else endpoint


def test_every_reply_has_a_meaning_on_every_endpoint():
    """The table is total: a new file is given its rows before this passes."""
    assert MEANING.keys() == REPLIES.keys()
    assert all(meaning.keys() == CALLS.keys() for meaning in MEANING.values())


@pytest.mark.parametrize("endpoint", CALLS)
@pytest.mark.parametrize("reply", MEANING)
def test_reply(reply, endpoint):
    """Each body is the value or the error that its row says, with these facts."""
    expected = MEANING[reply][endpoint]
    outcome = outcome_of(asked(reply, endpoint), answer(REPLIES[reply].read_bytes()))
    if isinstance(expected, tuple):
        error, facts = expected
        assert type(outcome) is error
        assert {name: getattr(outcome, name) for name in facts} == facts
    else:
        assert outcome == expected


def test_a_message_is_kept_as_it_was_sent():
    """`msg` is the API's own text, dash and all."""
    reply = REPLIES["unauthorised-live-sister"].read_bytes()
    assert outcome_of("credit", answer(reply)).msg == json.loads(reply)["msg"]


def test_the_finished_cover_answers_questions():
    """The recorded cover was 47 s in the making, and its images are kept for 14 days."""
    assert LIVE.state is CoverState.SUCCESS
    assert LIVE.is_success
    assert LIVE.generation_time.total_seconds() == 47
    assert LIVE.expires_at == datetime(2025, 10, 29, 7, 8, 2, tzinfo=UTC)
