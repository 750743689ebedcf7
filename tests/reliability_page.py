"""The tables of docs/reliability.md, which tests read, and the words that these are written in."""

import re
from collections.abc import Awaitable
from pathlib import Path

from kie_cover_async import CoverTimeoutError, KieCoverError, TransportError

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"

Row = dict[str, str]


def table(heading: str) -> list[Row]:
    """The rows of the first table below a heading, each by the names of its columns."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2].partition("\n#")[0]
    head, _, *rows = [_cells(line) for line in section.splitlines() if line.startswith("|")]
    return [dict(zip(head, row, strict=True)) for row in rows]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


async def outcome_of(call: Awaitable[object]) -> str:
    """What a call ends in, as the page writes it."""
    try:
        await call
    except KieCoverError as error:
        return _written(error)
    return "value"


def _written(error: KieCoverError) -> str:
    words = [f"`{type(error).__name__}`"]
    if isinstance(error, CoverTimeoutError) and error.__cause__ is not None:
        words.append(f"of `{type(error.__cause__).__name__}`")
    if isinstance(error, TransportError) and error.reason.startswith("no answer within"):
        words.append("in time")
    return " ".join(words) + (", maybe accepted" if error.maybe_accepted else "")
