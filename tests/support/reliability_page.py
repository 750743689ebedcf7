"""Reads the tables of docs/reliability.md for the tests, and writes outcomes in their words."""

import ast
import inspect
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from kie_cover_async import CoverTimeoutError, DownloadError, KieCoverError, TransportError
from kie_cover_async.emulator import Fault

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

_TIMEOUT_REASON = re.compile(r"no answer within|nothing came for|only \d+ bytes came in")

Row = dict[str, str]


def table(heading: str) -> list[Row]:
    """Return the rows of the first table below a heading, as dicts by column."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2].partition("\n#")[0]
    head, _, *rows = [_cells(line) for line in section.splitlines() if line.startswith("|")]
    return [dict(zip(head, row, strict=True)) for row in rows]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def fault_of(cell: str) -> Fault:
    """Return the fault that a cell contains as Python: a call of a class method of `Fault`."""
    call: Any = ast.parse(cell.strip("`"), mode="eval").body
    options = {option.arg: ast.literal_eval(option.value) for option in call.keywords}
    fault = getattr(Fault, call.func.attr)(*map(ast.literal_eval, call.args), **options)
    assert isinstance(fault, Fault)
    return fault


def kinds_of_faults(rows: list[Row]) -> set[str]:
    """Return the names of the class methods that make the faults of these rows."""
    return {re.findall(r"`Fault\.(\w+)\(", row["fault"])[0] for row in rows}


def all_kinds_of_faults() -> set[str]:
    """Return the names of all class methods that make faults."""
    return {
        name for name, _ in inspect.getmembers(Fault, inspect.ismethod) if not name.startswith("_")
    }


async def outcome_of(call: Awaitable[object]) -> str:
    """Return the outcome of a call, in the words of the page."""
    try:
        await call
    except KieCoverError as error:
        return _describe(error)
    return "value"


def _describe(error: KieCoverError) -> str:
    words = [f"`{type(error).__name__}`"]
    if isinstance(error, CoverTimeoutError) and error.__cause__ is not None:
        words.append(f"of `{type(error.__cause__).__name__}`")
    if isinstance(error, (DownloadError, TransportError)) and _TIMEOUT_REASON.match(error.reason):
        words.append("by timeout")
    return " ".join(words) + (", maybe accepted" if error.maybe_accepted else "")
