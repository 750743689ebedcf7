"""What goes where, and the exit codes: results to stdout, messages to stderr."""

import codecs
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import typer
from rich.console import Console, RenderableType
from rich.text import Text

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

LOGGER_NAME = "kie_cover_async"

ASCII_SIGNS = "kie-cover-ascii-signs"
"""The error handler of a terminal's encoding: each sign becomes one of the same width."""

# The spinner of rich, the signs of the demo, and the mark of a truncated text.
_ASCII_SIGNS = dict(zip("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏✓✗◷‖·•…", "|/-\\|/-\\|/+xo=.*~", strict=True))


def _ascii_sign(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace one character; the codec calls again for the next."""
    error = cast("UnicodeEncodeError", error)
    error.end = error.start + 1
    sign = _ASCII_SIGNS.get(error.object[error.start])
    return (sign, error.end) if sign else codecs.backslashreplace_errors(error)


codecs.register_error(ASCII_SIGNS, _ascii_sign)


class UsageError(typer.BadParameter):
    """An argument or a setting that cannot be used: typer shows the message and exits with 2."""

    def format_message(self) -> str:
        return one_line(self.message)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn the exceptions of argument validation into `UsageError`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None


class OutputLost(Exception):
    """Nothing more can be written to stdout; `code` is the exit code."""

    def __init__(self, code: int) -> None:
        self.code = code


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def show_log() -> None:
    """Write the package's log to stderr."""
    log = logging.getLogger(LOGGER_NAME)
    log.addHandler(_StderrHandler())
    log.setLevel(logging.INFO)


@contextmanager
def warnings_only() -> Iterator[None]:
    """Log nothing below warnings: the command shows the rest in another way."""
    log = logging.getLogger(LOGGER_NAME)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def wants_json(is_asked_for: bool) -> bool:
    """Return whether to write JSON: it was asked for, or stdout is not a terminal."""
    return is_asked_for or sys.stdout is None or not sys.stdout.isatty()


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints any text as it is, without markup, emoji or highlighting."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def one_line(text: object) -> str:
    """Return the text with escapes for what a terminal would obey or cannot show.

    The text may come from a server.
    """
    line = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )
    # Escaped here and not by the stream, so that the line is measured as it will be shown.
    encoding = _terminal_encoding()
    return line.encode(encoding, "backslashreplace").decode(encoding)


def _terminal_encoding() -> str:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and stream.isatty():
            return stream.encoding
    return "utf-8"


def counted(number: int, noun: str) -> str:
    """Return for example `1 id` or `1,200 ids`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def say(text: object) -> None:
    """Write a line to stderr; ignore a stderr that cannot be written to."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(one_line(text) + "\n")
            sys.stderr.flush()


def emit(text: str) -> None:
    """Write a line to stdout immediately; raises `OutputLost`."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        raise lost(error) from None


def lost(error: OSError) -> OutputLost:
    """Return what to raise for a failed write to stdout, and discard further output."""
    # Python would try to write the rest of the buffer again at exit, and fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return OutputLost(DONE)
    say(f"kie-cover: cannot write to stdout: {error.strerror}")
    return OutputLost(FAILED)


def emit_json(document: Any) -> None:
    """Write one line of JSON, in ASCII: no terminal obeys it and no encoding corrupts it."""
    emit(json.dumps(document))


def emit_renderables(*things: RenderableType) -> None:
    """Write what rich prints; a text is never wrapped, so that it can be copied."""
    console = plain_console()
    with console.capture() as captured:
        for thing in things:
            console.print(thing, soft_wrap=isinstance(thing, Text))
    emit(captured.get().rstrip("\n"))
