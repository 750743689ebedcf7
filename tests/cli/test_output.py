"""Text, JSON and error messages, on terminals and in pipes."""

import json
import sys
import time
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from rich.console import Console

from kie_cover_async import (
    AuthenticationError,
    CoverAlreadyExistsError,
    CoverDetails,
    CoverFailedError,
    CoverTimeoutError,
    InvalidTaskIdError,
    TransportError,
)
from kie_cover_async.cli.commands.demo import LiveView, report
from kie_cover_async.cli.commands.demo_state import DemoState
from kie_cover_async.cli.output import (
    ASCII_SIGNS,
    FAILED,
    USAGE,
    emit,
    one_line,
    say,
    wants_json,
)
from kie_cover_async.cli.progress import WaitView
from kie_cover_async.cli.records import error_fields, report_error


def test_one_line_escapes_controls_and_keeps_letters():
    """Line ends and text directions are escaped, too."""
    assert one_line("Grüße – 世界 ✓") == "Grüße – 世界 ✓"
    assert one_line("a\nb\x1b[31m\x9b\u2028\u202e\ud800") == r"a\nb\x1b[31m\x9b\u2028\u202e\ud800"


class AsciiTerminal(TextIOWrapper):
    """A terminal that shows ASCII only."""

    def __init__(self):
        super().__init__(BytesIO(), encoding="ascii", errors=ASCII_SIGNS, newline="")

    def isatty(self):
        return True

    @property
    def shown(self):
        self.flush()
        return self.buffer.getvalue().decode("ascii")


def test_signs_keep_their_width_in_ascii():
    """Each sign has a replacement of one column; any other character is escaped."""
    terminal = AsciiTerminal()
    terminal.write("⠋⠙✓ done…\n世•\xe9 a\n")
    assert terminal.shown == "|/+ done~\n\\u4e16*\\xe9 a\n"


def test_text_is_escaped_before_it_is_measured(monkeypatch):
    """It is the terminal that cannot show it."""
    monkeypatch.setattr(sys, "stderr", AsciiTerminal())
    assert one_line("Grüße✓\x1b\ud800") == r"Gr\xfc\xdfe\u2713\x1b\ud800"
    board = WaitView("世界" * 3)
    console = Console(file=sys.stderr, width=40, color_system=None)
    console.print(board)
    [line] = sys.stderr.shown.splitlines()
    assert len(line) <= 40
    assert line.endswith("~")


def test_demo_in_ascii_is_as_wide_as_the_terminal():
    """Neither the tiles nor the table have escapes."""
    terminal = AsciiTerminal()
    state = DemoState(24, clock=time.monotonic)
    console = Console(file=terminal, width=80, height=24, color_system=None)
    console.print(LiveView(state), *report(state, Path("here")))
    lines = terminal.shown.splitlines()
    assert "\\" not in terminal.shown
    assert max(map(len, lines)) == 80


def test_closed_streams_accept_everything(monkeypatch):
    """They are not terminals."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    emit("data")
    say("message")
    assert wants_json(is_asked_for=False)


def test_error_is_text_on_stderr_and_json_on_stdout(capsys):
    """The JSON has all its facts."""
    error = AuthenticationError(code=401, msg="Un\x7fauthorized", task_id="an-id", http_status=200)
    assert report_error(error, as_json=True) == FAILED
    captured = capsys.readouterr()
    assert captured.err == f"kie-cover: {one_line(error)} (is KIE_API_KEY right?)\n"
    assert json.loads(captured.out) == {
        "taskId": "an-id",
        "error": "AuthenticationError",
        "message": str(error),
        "retryable": False,
        "maybeAccepted": False,
        "code": 401,
        "msg": "Un\x7fauthorized",
        "httpStatus": 200,
    }


def test_error_without_json_is_on_stderr_only(capsys):
    """The line has its cause."""
    error = CoverTimeoutError(task_id="an-id", polls=3, waited=4.0)
    error.__cause__ = TransportError(reason="reset")
    assert report_error(error, as_json=False) == FAILED
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err == (
        "kie-cover: no cover after 4.0 s and 3 polls, last seen nothing; task an-id; "
        "before that: no usable answer: reset "
        "(the job goes on, and can be waited for again)\n"
    )
    assert error_fields(error)["cause"] == "no usable answer: reset"


def test_invalid_id_is_a_usage_error(capsys):
    """It is not written to stdout."""
    error = InvalidTaskIdError(argument="task_id", given="''")
    assert report_error(error, as_json=True) == USAGE
    assert not capsys.readouterr().out


def test_existing_cover_is_named(capsys):
    """Its id is what the user needs next."""
    error = CoverAlreadyExistsError(code=409, existing_task_id="other-id")
    report_error(error, as_json=False)
    assert capsys.readouterr().err.endswith(" (its cover is task other-id)\n")
    report_error(CoverAlreadyExistsError(code=409), as_json=False)
    assert capsys.readouterr().err == "kie-cover: CoverAlreadyExistsError 409\n"


def test_error_of_a_failed_cover_has_its_record():
    """It has the API's shape."""
    details = CoverDetails(task_id="an-id", success_flag=3, error_message="no")
    fields = error_fields(CoverFailedError(task_id="an-id", details=details))
    assert fields["details"]["successFlag"] == 3
    assert fields["details"]["errorMessage"] == "no"


@pytest.mark.parametrize("is_asked_for", [True, False])
def test_json_is_written_on_request_and_to_pipes(is_asked_for):
    """Under pytest stdout is not a terminal."""
    assert wants_json(is_asked_for)
