"""What goes where, and what the exit code says: stdout is data, stderr is talk."""

import asyncio
import codecs
import json
import logging
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, cast

import attrs
import typer
from rich.console import Console, RenderableType
from rich.text import Text

from kie_cover_async import (
    AuthenticationError,
    CoverAlreadyExistsError,
    CoverDetails,
    CoverTimeoutError,
    InvalidTaskIdError,
    KieCoverError,
    unstructure_details,
)
from kie_cover_async.archive import DamagedRecordError

from .threads import in_daemon_threads

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

LOGGED = "kie_cover_async"

POLL_ALIKES = "kie-cover-poll-alikes"
"""The error handler of a terminal's encoding: each of our signs becomes one of the same width."""

# The spinner of rich, the signs of the demo, and the mark of a text that was cut.
_POLL_ALIKES = dict(zip("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏✓✗◷‖·•…", "|/-\\|/-\\|/+xo=.*~", strict=True))

_HINTS: dict[type[KieCoverError], str] = {
    AuthenticationError: "is KIE_API_KEY right?",
    CoverTimeoutError: "the job goes on, and can be waited for again",
}


def _poll_alikes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace one character; the codec calls again for the next."""
    error = cast("UnicodeEncodeError", error)
    error.end = error.start + 1
    sign = _POLL_ALIKES.get(error.object[error.start])
    return (sign, error.end) if sign else codecs.backslashreplace_errors(error)


codecs.register_error(POLL_ALIKES, _poll_alikes)


class Refused(Exception):
    """A request that cannot be met as it was made, which the text says why: exit code 2."""


class OutputLost(Exception):
    """Nothing more can be written to stdout; `code` is what to exit with."""

    def __init__(self, code: int) -> None:
        self.code = code


class Talk(logging.Handler):
    """What the package logs, as lines for the person who waits."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def show_log() -> None:
    """Let the package's log be heard."""
    log = logging.getLogger(LOGGED)
    log.addHandler(Talk())
    log.setLevel(logging.INFO)


@contextmanager
def quiet() -> Iterator[None]:
    """No talk but warnings: what else is logged is shown in some other way."""
    log = logging.getLogger(LOGGED)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def wants_json(asked_for: bool) -> bool:
    """JSON for whoever asks, and for whatever is no terminal."""
    return asked_for or sys.stdout is None or not sys.stdout.isatty()


def paper() -> Console:
    """What to print on for people: all of it text, nothing of it markup."""
    return Console(highlight=False, markup=False, emoji=False)


def one_line(text: object) -> str:
    """The text without anything that a terminal would obey or cannot show: it may be a server's."""
    line = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )
    # Written out here and not by the stream, so that the line is measured as it will be shown.
    encoding = _encoding_of_terminal()
    return line.encode(encoding, "backslashreplace").decode(encoding)


def _encoding_of_terminal() -> str:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and stream.isatty():
            return stream.encoding
    return "utf-8"


def say(text: object) -> None:
    """A line of talk; nobody has to listen."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(one_line(text) + "\n")
            sys.stderr.flush()


def emit(text: str) -> None:
    """A piece of data, written at once; raises `OutputLost`."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        raise lost(error) from None


def lost(error: OSError) -> OutputLost:
    """What to raise of an error in writing to stdout, of which nothing more will come."""
    # What is still in the buffer would be tried again, and fail again, when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return OutputLost(DONE)
    say(f"kie-cover: cannot write to stdout: {error.strerror}")
    return OutputLost(FAILED)


def emit_json(document: Any) -> None:
    """One JSON line, in ASCII: no terminal obeys it and no encoding spoils it."""
    emit(json.dumps(document))


def emit_printed(*things: RenderableType) -> None:
    """Whatever rich prints; a text of any length stays in one piece, to be copied."""
    console = paper()
    with console.capture() as captured:
        for thing in things:
            console.print(thing, soft_wrap=isinstance(thing, Text))
    emit(captured.get().rstrip("\n"))


def report_error(error: KieCoverError, *, as_json: bool) -> int:
    """A line on stderr, and one on stdout where somebody reads JSON there; the exit code."""
    hint, cause = _hint(error), error.__cause__
    last = "" if cause is None else f"; before that: {cause}"
    say(f"kie-cover: {error}{last}" + ("" if hint is None else f" ({hint})"))
    if isinstance(error, InvalidTaskIdError):
        return USAGE
    if as_json:
        with suppress(OutputLost):
            emit_json(error_fields(error))
    return FAILED


def _hint(error: KieCoverError) -> str | None:
    if isinstance(error, CoverAlreadyExistsError) and error.existing_task_id is not None:
        return f"its cover is task {error.existing_task_id}"
    return _HINTS.get(type(error))


def error_fields(error: KieCoverError) -> dict[str, Any]:
    """The error as JSON: its class, its message and its facts."""
    fields: dict[str, Any] = {"taskId": error.task_id, "error": type(error).__name__}
    fields["message"] = str(error)
    for attribute in attrs.fields(type(error)):
        first, *rest = attribute.name.split("_")
        value = getattr(error, attribute.name)
        if isinstance(value, CoverDetails):
            value = unstructure_details(value)
        if value is not None:
            fields[first + "".join(map(str.capitalize, rest))] = value
    if error.__cause__ is not None:
        fields["cause"] = str(error.__cause__)
    return fields


@contextmanager
def refusing() -> Iterator[None]:
    """What is wrong with an argument or with the environment becomes `Refused`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise Refused(error) from None


def run(work: Coroutine[Any, Any, int], *, as_json: bool) -> NoReturn:
    """Run a command to its end and leave with its exit code."""
    try:
        code = asyncio.run(in_daemon_threads(work, say))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Refused as refused:
        say(f"kie-cover: {refused}")
        code = USAGE
    except KieCoverError as error:
        code = report_error(error, as_json=as_json)
    except (OSError, DamagedRecordError) as error:
        say(f"kie-cover: {error}")
        code = FAILED
    raise typer.Exit(code)
