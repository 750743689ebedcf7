"""What is written, what is said, and what neither a terminal nor a closed pipe can spoil."""

import json
import sys

import pytest

from kie_cover_async import (
    AuthenticationError,
    CoverAlreadyExistsError,
    CoverDetails,
    CoverFailedError,
    CoverTimeoutError,
    InvalidTaskIdError,
    TransportError,
)
from kie_cover_async.cli.output import (
    FAILED,
    USAGE,
    emit,
    error_fields,
    one_line,
    report_error,
    say,
    wants_json,
)


def test_one_line():
    """Letters of any language stay; controls, line ends and directions are written out."""
    assert one_line("Grüße – 世界 ✓") == "Grüße – 世界 ✓"
    assert one_line("a\nb\x1b[31m\x9b\u2028\u202e\ud800") == r"a\nb\x1b[31m\x9b\u2028\u202e\ud800"


def test_closed_streams(monkeypatch):
    """A stream that was closed before the start takes everything, and is no terminal."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    emit("data")
    say("talk")
    assert wants_json(asked_for=False)


def test_an_error_has_a_line_on_each_side(capsys):
    """stderr has it for people, stdout with all its facts for programs."""
    error = AuthenticationError(code=401, msg="Un\x7fauthorized", task_id="an-id", http_status=200)
    assert report_error(error, as_json=True) == FAILED
    heard = capsys.readouterr()
    assert heard.err == f"kie-cover: {one_line(error)} (is KIE_API_KEY right?)\n"
    assert json.loads(heard.out) == {
        "taskId": "an-id",
        "error": "AuthenticationError",
        "message": str(error),
        "safeToRepeat": False,
        "maybeAccepted": False,
        "code": 401,
        "msg": "Un\x7fauthorized",
        "httpStatus": 200,
    }


def test_an_error_for_people(capsys):
    """On a terminal there is nothing on stdout, and the line names what came before."""
    error = CoverTimeoutError(task_id="an-id", looks=3, waited=4.0)
    error.__cause__ = TransportError(reason="reset")
    assert report_error(error, as_json=False) == FAILED
    heard = capsys.readouterr()
    assert not heard.out
    assert heard.err == (
        "kie-cover: no cover after 4.0 s and 3 looks, last seen nothing; task an-id; "
        "before that: no usable answer: reset "
        "(the job goes on, and can be waited for again)\n"
    )
    assert error_fields(error)["cause"] == "no usable answer: reset"


def test_an_id_that_can_be_none_is_a_matter_of_usage(capsys):
    """A wrong argument is no answer of the API's, and stays off stdout."""
    error = InvalidTaskIdError(argument="task_id", given="''")
    assert report_error(error, as_json=True) == USAGE
    assert not capsys.readouterr().out


def test_an_existing_cover_is_named(capsys):
    """Where the song has a cover, its id is what one needs next."""
    error = CoverAlreadyExistsError(code=409, existing_task_id="other-id")
    report_error(error, as_json=False)
    assert capsys.readouterr().err.endswith(" (its cover is task other-id)\n")
    report_error(CoverAlreadyExistsError(code=409), as_json=False)
    assert capsys.readouterr().err == "kie-cover: CoverAlreadyExistsError 409\n"


def test_the_record_of_a_failure():
    """A failure's record stands in its error, in the API's shape."""
    details = CoverDetails(task_id="an-id", success_flag=3, error_message="no")
    fields = error_fields(CoverFailedError(task_id="an-id", details=details))
    assert fields["details"]["successFlag"] == 3
    assert fields["details"]["errorMessage"] == "no"


@pytest.mark.parametrize("asked_for", [True, False])
def test_json_is_for_whoever_asks_and_for_pipes(asked_for):
    """Under pytest stdout is no terminal."""
    assert wants_json(asked_for)
