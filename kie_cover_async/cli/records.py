"""Covers, errors and raw answers, as text for people and as JSON for programs."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import attrs
from rich.text import Text

from kie_cover_async import (
    AuthenticationError,
    CoverAlreadyExistsError,
    CoverDetails,
    CoverOutcome,
    CoverState,
    CoverTimeoutError,
    InvalidTaskIdError,
    KieCoverError,
    unstructure_details,
)
from kie_cover_async.ledger import Song, SongState

from .output import FAILED, USAGE, OutputLost, emit_json, one_line, say

# Of states, and of what becomes of a cover otherwise; an error is red.
_STYLES = {
    "PENDING": "cyan",
    "GENERATING": "cyan",
    "SUCCESS": "green",
    "UNKNOWN": "yellow",
    "saved": "green",
    "pending": "",
    "not done": "yellow",
    "saved before": "dim",
    "wanted": "",
    "submitting": "cyan",
    "submitted": "cyan",
    "generating": "cyan",
    "in doubt": "yellow",
    "kept": "green",
}

_HINTS: dict[type[KieCoverError], str] = {
    AuthenticationError: "is KIE_API_KEY right?",
    CoverTimeoutError: "the job goes on, and can be waited for again",
}


def record_lines(details: CoverDetails) -> Iterator[Text]:
    """Yield the record as text, one fact per line."""
    for name, fact in _facts(details):
        if fact:
            style = style_of(details.state.value) if name == "state" else ""
            yield Text.assemble((f"{name:<9}", "dim"), (one_line(fact), style))


def _facts(details: CoverDetails) -> Iterator[tuple[str, str | None]]:
    """Yield the names and facts of a record; the fact is empty if the record does not have it."""
    flag = f" (flag {details.success_flag!r})" if details.state is CoverState.UNKNOWN else ""
    created, took, expires = details.create_time, details.generation_time, details.expires_at
    yield "cover", details.task_id
    yield "state", f"{details.state.value}{flag}"
    yield "song", details.parent_task_id
    yield "created", _format_time(created) if created else None
    yield (
        "cost",
        None if details.credits_consumed is None else f"{details.credits_consumed:,} credits",
    )
    yield "took", f"{took.total_seconds():.1f} s" if took is not None else None
    for number, image in enumerate(details.images):
        yield "" if number else "images", image
    if expires:
        yield "expires", f"{_format_time(expires)} at the latest: save the images now"
    yield "error", " ".join(map(str, filter(None, (details.error_code, details.error_message))))


def _format_time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def outcome_fields(outcome: CoverOutcome) -> dict[str, Any]:
    """Return the record as JSON, or the error and its facts."""
    if outcome.error is None:
        return unstructure_details(outcome.result())
    # The error of an invalid id does not contain it.
    return {**error_fields(outcome.error), "taskId": str(outcome.task_id)}


def outcome_text(outcome: CoverOutcome) -> Text:
    """Return the outcome as one line of text."""
    return cover_text(outcome.task_id, state_or_error(outcome), _summary(outcome))


def cover_text(task_id: str, word: str, rest: object) -> Text:
    """Return a line of text about a cover: its id, a coloured word, and the rest."""
    end = f"  {one_line(rest)}".rstrip()
    return Text.assemble(f"{one_line(task_id)}  ", (word, style_of(word)), end)


def _summary(outcome: CoverOutcome) -> object:
    if outcome.error is not None:
        return outcome.error
    details = outcome.result()
    return " ".join(details.images) or details.error_message or ""


def state_or_error(outcome: CoverOutcome) -> str:
    """Return the state that was polled, or the class name of the error."""
    if outcome.error is not None:
        return type(outcome.error).__name__
    return outcome.result().state.value


def song_fields(song: Song) -> dict[str, Any]:
    """Return what the ledger says of a song as JSON."""
    return {
        "song": song.music_task_id,
        "state": song.state.value,
        "task_id": song.task_id,
        "reason": song.reason,
    }


def song_text(song: Song, rest: object) -> Text:
    """Return a line of text about a song: its id, its state, and the rest."""
    return cover_text(song.music_task_id, state_words(song.state), rest)


def state_words(state: SongState) -> str:
    """Return the state of a song as text."""
    return state.replace("_", " ")


def error_words(error: Exception) -> dict[str, Any]:
    """Return the class and the message of an error as JSON."""
    return {"error": type(error).__name__, "message": str(error)}


def song_error_fields(given: object, song: Song | None, error: Exception) -> dict[str, Any]:
    """Return the error about a song as JSON, with what the ledger says of it if it is known."""
    known = {"song": str(given), "state": None} if song is None else song_fields(song)
    return known | error_words(error)


def style_of(word: str) -> str:
    """Return the colour of a state, or of another word about a cover; errors are red."""
    return _STYLES.get(word, "red")


def report_error(error: KieCoverError, *, as_json: bool) -> int:
    """Write the error to stderr, and to stdout if JSON is written there; return the exit code."""
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
    """Return the error as JSON: its class, its message and its facts."""
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
