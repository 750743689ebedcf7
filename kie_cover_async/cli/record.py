"""A cover's record, and an answer as it came, for people to read."""

from collections.abc import Iterator
from datetime import datetime

from rich.text import Text

from kie_cover_async import CoverDetails, CoverState

from .connection import RawAnswer
from .output import one_line

STYLES = {
    CoverState.PENDING: "cyan",
    CoverState.GENERATING: "cyan",
    CoverState.SUCCESS: "green",
    CoverState.CREATE_TASK_FAILED: "red",
    CoverState.GENERATE_COVER_FAILED: "red",
    CoverState.UNKNOWN: "yellow",
}


def record_lines(details: CoverDetails) -> Iterator[Text]:
    """The record, a fact to a line."""
    for name, fact in _facts(details):
        style = STYLES[details.state] if name == "state" else ""
        yield Text.assemble((f"{name:<9}", "dim"), (one_line(fact), style))


def _facts(details: CoverDetails) -> Iterator[tuple[str, object]]:
    yield "cover", details.task_id
    yield "state", _state(details)
    if details.parent_task_id is not None:
        yield "song", details.parent_task_id
    if details.create_time is not None:
        yield "created", _moment(details.create_time)
    if details.generation_time is not None:
        yield "took", f"{details.generation_time.total_seconds():.1f} s"
    for number, image in enumerate(details.images):
        yield "" if number else "images", image
    if details.expires_at is not None:
        yield "expires", f"{_moment(details.expires_at)} at the latest: save the images at once"
    if details.error_code is not None or details.error_message is not None:
        yield "error", " ".join(map(str, filter(None, (details.error_code, details.error_message))))


def _state(details: CoverDetails) -> str:
    if details.state is CoverState.UNKNOWN:
        return f"UNKNOWN (flag {details.success_flag!r})"
    return str(details.state.value)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def raw_lines(answer: RawAnswer) -> Iterator[str]:
    """What was asked and what was answered, as curl would show it."""
    yield f"GET {answer.url}"
    yield "Authorization: Bearer ***"
    yield ""
    yield f"HTTP {answer.status}"
    yield from (f"{name}: {value}" for name, value in answer.headers)
    yield ""
    yield from answer.body.decode(errors="backslashreplace").splitlines()
