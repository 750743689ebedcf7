"""The demo's end: what happened to each cover, what it cost, and where to go from here."""

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

from attrs import frozen
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from kie_cover_async import KieCoverError

from .scene import LOOKS
from .stage import Cover, Phase, Stage

PLAIN_INTERVAL = 0.5
"""Seconds between two looks of the plain loop that the waits are compared with."""


@frozen(kw_only=True)
class Totals:
    """What the whole of it came to."""

    seconds: float
    requests: int
    looks: int
    plain_looks: int
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
            looks=stage.requests["record-info"],
            plain_looks=sum(map(_plain_looks, stage.covers)),
            covers=len(phases),
            success=phases.count("success"),
            failed=phases.count("failed"),
            timed_out=phases.count("timed out"),
            images=len(stage.images),
            bytes=sum(image.size for image in stage.images),
        )


def _plain_looks(cover: Cover) -> int:
    return ceil(cover.seconds(0.0) / PLAIN_INTERVAL)


def printed(stage: Stage, folder: Path) -> Iterator[RenderableType]:
    """The end for people, on 80 columns and 24 lines."""
    totals = Totals.of(stage)
    yield _table(stage.covers)
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
        f"{totals.requests} requests, {totals.looks} of them looks; a loop for each cover that "
        f"looks\nevery {PLAIN_INTERVAL} s would have made {totals.plain_looks}."
    )
    yield Text.assemble(
        ("Next: ", "bold"),
        ("export KIE_API_KEY=…", "cyan"),
        " and the ten lines in the README, or ",
        ("kie-cover --help", "cyan"),
    )


def _table(covers: list[Cover]) -> Table:
    """Two covers to a line, so that all are seen at once."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for _ in range(2):
        table.add_column("#", justify="right")
        table.add_column("ended", min_width=11)
        for name in ("time", "looks", "images"):
            table.add_column(name, justify="right")
    half = ceil(len(covers) / 2)
    for left, right in zip(covers[:half], covers[half:], strict=True):
        table.add_row(*_cells(left), *_cells(right))
    return table


def _cells(cover: Cover) -> Iterator[Text]:
    sign, style = LOOKS[cover.phase]
    yield Text(f"{cover.number:02}", "dim")
    yield Text(f"{sign} {cover.phase}", style)
    yield Text(f"{cover.seconds(0.0):.1f} s")
    yield Text(f"{len(cover.looks)}", "bold yellow" if cover.refusals else "")
    yield Text(f"{len(cover.images)}")


def cover_fields(cover: Cover) -> dict[str, Any]:
    """A cover's end for programs."""
    error = cover.outcome if isinstance(cover.outcome, KieCoverError) else None
    return {
        "cover": cover.number,
        "taskId": cover.task_id,
        "ended": cover.phase,
        "seconds": round(cover.seconds(0.0), 3),
        "looks": len(cover.looks),
        "refusals": cover.refusals,
        "images": [image.url for image in cover.images],
        "files": [str(image.path) for image in cover.images],
        "error": None if error is None else type(error).__name__,
    }
