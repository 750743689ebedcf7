"""What each published or recorded answer means, on the endpoint it is of and on every other."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
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
from kie_cover_async.api import SUNO

pytestmark = pytest.mark.usefixtures("parser")

REPLIES = {file.stem: file for file in (Path(__file__).parents[1] / "replies").iterdir()}
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


def an_object(for_record, task_id):
    """What `data` as an object with a task id is to the endpoints other than record-info."""
    return {
        "record-info": for_record,
        "generate": task_id,
        "credit": unreadable(),
        "download-url": unreadable(),
    }


NOT_A_COVER = InvalidRequestError, 422
NO_DATA = {
    "record-info": says(TaskNotFoundError, 200, msg="success"),
    "generate": unreadable(),
    "credit": unreadable(),
    "download-url": unreadable(),
}

MEANING = {
    "callback-failure-documented": everywhere(ApiError, 501, msg="Cover generation failed"),
    # A callback's body has no flag, so it is no record of a finished cover.
    "callback-success-documented": an_object(CoverDetails(task_id=TASK), TASK),
    "credits-live": {
        "record-info": unreadable(),
        "generate": unreadable(),
        "credit": 5916.25,
        "download-url": unreadable(),
    },
    "download-url-foreign-live": everywhere(*NOT_A_COVER, msg="url is wrong"),
    "generate-accepted-documented": an_object(CoverDetails(task_id=TASK), TASK),
    "generate-missing-callback-live-sister": everywhere(
        *NOT_A_COVER, msg="Please enter callBackUrl."
    ),
    "generate-unknown-music-live": {
        **everywhere(*NOT_A_COVER, msg="Original music record does not exist"),
        "record-info": says(TaskNotFoundError, 422),
    },
    "rate-limited-reported": everywhere(
        RateLimitedError,
        429,
        msg="Your call frequency is too high. Please try again later.",
        retry_after=None,
    ),
    "record-success-documented": an_object(DOCUMENTED, TASK),
    "record-success-live": an_object(LIVE, LIVE_TASK),
    "record-unknown-id-live": NO_DATA,
    "server-error-documented": everywhere(ServerError, 500),
    "unauthorised-live-sister": everywhere(AuthenticationError, 401),
}


# Every other record is of the id that all calls here ask for.
ASKED = {("record-success-live", "record-info"): SUNO.poll(LIVE_TASK)}


def test_every_reply_has_a_meaning_on_every_endpoint():
    """The table is total: a new file is given its rows before this passes."""
    assert MEANING.keys() == REPLIES.keys()
    assert all(meaning.keys() == CALLS.keys() for meaning in MEANING.values())


@pytest.mark.parametrize("endpoint", CALLS)
@pytest.mark.parametrize("reply", MEANING)
def test_reply(reply, endpoint):
    """Each body is the value or the error that its row says, with these facts."""
    expected = MEANING[reply][endpoint]
    outcome = outcome_of(
        ASKED.get((reply, endpoint), endpoint), answer(REPLIES[reply].read_bytes())
    )
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
