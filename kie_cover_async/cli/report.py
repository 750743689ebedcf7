"""The demo's end: what happened to each cover, what it cost, and where to go from here."""

from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from attrs import frozen
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from kie_cover_async import KieCoverError

from .scene import SIGNS
from .stage import Cover, Phase, Stage

PLAIN_INTERVAL = 0.5
"""Seconds between two polls of the plain loop that the waits are compared with."""

_COLUMNS = ("#", "ended", "time", "polls", "files")
# Covers on a line, and the columns of each; the widest layout first.
_LAYOUTS = ((2, _COLUMNS), (1, _COLUMNS), (1, ("#", "ended", "files")))
# More than any layout needs.
_ANY_WIDTH = 200
# Letters of a file's name that tell the covers apart.
_LETTERS = 6


@frozen(kw_only=True)
class Totals:
    """What the whole of it came to."""

    seconds: float
    requests: int
    polls: int
    plain_polls: int
    covers: int
    success: int
    failed: int
    timed_out: int
    images: int
    bytes: int

    @classmethod
    def of(cls, stage: Stage) -> "Totals":
        phases: list[Phase] = [cover.phase for cover in stage.covers]
        return cls(
            seconds=round(stage.now, 1),
            requests=stage.requests.total(),
            polls=stage.requests["record-info"],
            plain_polls=sum(map(_plain_polls, stage.covers)),
            covers=len(phases),
            success=phases.count("success"),
            failed=phases.count("failed"),
            timed_out=phases.count("timed out"),
            images=len(stage.images),
            bytes=sum(image.size for image in stage.images),
        )


def _plain_polls(cover: Cover) -> int:
    return ceil(cover.seconds(0.0) / PLAIN_INTERVAL)


def printed(stage: Stage, folder: Path) -> Iterator[RenderableType]:
    """The end for people, in 24 lines if there are 80 columns."""
    totals = Totals.of(stage)
    yield _Covers(stage.covers)
    for at, news in stage.news:
        yield Text(f"{at:5.1f} s  {news}")
    yield Text.assemble(
        (f"{totals.covers} covers in {totals.seconds} s: ", "bold"),
        f"{totals.success} done, {totals.failed} failed, {totals.timed_out} timed out.",
    )
    yield Text.assemble(
        (f"{totals.images} images", "bold"),
        f", {decimal(totals.bytes)}, to look at in ",
        (f"{folder}", "cyan"),
    )
    yield Text(
        f"{totals.requests} requests, {totals.polls} of them polls; a loop for each cover that "
        f"polls\nevery {PLAIN_INTERVAL} s would have made {totals.plain_polls}."
    )
    yield Text.assemble(
        ("Next: ", "bold"),
        ("export KIE_API_KEY=...", "cyan"),
        " and the lines in the README, or ",
        ("kie-cover --help", "cyan"),
    )


@frozen
class _Covers:
    """A renderable table of the covers, in the first layout that fits its terminal."""

    covers: list[Cover]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        layouts = [_table(self.covers, at_once, names) for at_once, names in _LAYOUTS]
        fits = (
            table
            for table in layouts
            if console.measure(table, options=options.update_width(_ANY_WIDTH)).maximum
            <= options.max_width
        )
        yield next(fits, layouts[-1])


def _table(covers: list[Cover], at_once: int, names: Sequence[str]) -> Table:
    """Return a table with *at_once* covers on a line, numbered from top to bottom."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for _ in range(at_once):
        for name in names:
            is_text = name in {"ended", "files"}
            table.add_column(name, justify="left" if is_text else "right", overflow="fold")
    height = ceil(len(covers) / at_once)
    for line in range(height):
        cells = [_cells(cover) for cover in covers[line::height]]
        table.add_row(*(each[name] for each in cells for name in names))
    return table


def _cells(cover: Cover) -> dict[str, Text]:
    sign, style = SIGNS[cover.phase]
    # A pattern for the shell. Files are named by the task's id, which the number is not part of.
    files = [f"{image.path.name[:_LETTERS]}*" for image in cover.images[:1]]
    return {
        "#": Text(f"{cover.number:02}", "dim"),
        "ended": Text(f"{sign} {cover.phase}", style),
        "time": Text(f"{cover.seconds(0.0):.1f} s"),
        "polls": Text(f"{len(cover.polls)}", "bold yellow" if cover.refusals else ""),
        "files": Text("".join(files)),
    }


def cover_fields(cover: Cover) -> dict[str, Any]:
    """A cover's end for programs."""
    error = cover.outcome if isinstance(cover.outcome, KieCoverError) else None
    return {
        "cover": cover.number,
        "taskId": cover.task_id,
        "ended": cover.phase,
        "seconds": round(cover.seconds(0.0), 3),
        "polls": len(cover.polls),
        "refusals": cover.refusals,
        "images": [image.url for image in cover.images],
        "files": [str(image.path) for image in cover.images],
        "error": None if error is None else type(error).__name__,
    }
