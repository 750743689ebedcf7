"""`demo`: 24 covers of an emulated API, drawn while they are made and reported at the end."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Final

from attrs import frozen
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.filesize import decimal
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kie_cover_async.archive import CoverArchive
from kie_cover_async.cli import options, output, progress
from kie_cover_async.cli.client import open_archive

from .demo_state import BASIC_INTERVAL, COVERS, DemoCover, DemoState, Phase, play

SIGNS: Final[dict[Phase, tuple[str, str]]] = {
    "queued": ("·", "dim"),
    "submitted": ("·", "dim"),
    "generating": ("", "cyan"),
    "rate-limited": ("‖", "bold yellow"),
    "success": ("✓", "green"),
    "failed": ("✗", "red"),
    "timed out": ("◷", "magenta"),
}
"""The sign of each phase, and its style; a phase without a sign has the spinner."""

_TILE_WIDTH = 18
_NEWS_LINES = 3
# Lines of a terminal that has room for a blank line between tiles.
_TALL = 30

_COLUMNS = ("#", "ended", "time", "polls", "files")
# Covers per line, and the columns of each; the widest layout first.
_LAYOUTS = ((2, _COLUMNS), (1, _COLUMNS), (1, ("#", "ended", "files")))
# More than any layout needs.
_ANY_WIDTH = 200
# Characters of a file name that identify the cover.
_ID_PREFIX = 6


@options.command(
    """Watch 24 covers being submitted, waited for and saved. Needs no key and no network.

    They come from an emulation of the API on this machine: one of them fails, one is not done in
    time, and one poll is refused for too many requests. Takes about ten seconds.

    Prints a table even if stdout is not a terminal, and JSON lines with --json.
    """,
    example="demo",
    text_in_pipes=True,
)
async def demo(
    *,
    out: options.Out = "kie-cover-demo",
    route: options.Route = None,
    as_json: options.Json = False,
) -> int:
    state = DemoState(COVERS, clock=asyncio.get_running_loop().time)
    with output.warnings_only():
        async with open_archive(out) as archive:
            await _show(state, archive, route, as_json=as_json)
    return output.DONE


async def _show(
    state: DemoState, archive: CoverArchive, route: str | None, *, as_json: bool
) -> None:
    if as_json:
        await play(state, archive, route, lambda cover: output.emit_json(cover.as_json()))
        output.emit_json({"totals": state.totals(), "folder": str(archive.folder)})
        return
    if progress.can_draw(sys.stdout):
        with progress.live(LiveView(state), console=output.plain_console()):
            await play(state, archive, route, lambda _: None)
    else:
        await play(state, archive, route, lambda cover: output.say(_log_line(state, cover)))
    output.emit_renderables(*report(state, archive.folder))


def _log_line(state: DemoState, cover: DemoCover) -> str:
    return f"{state.now:5.1f} s  {cover} {cover.phase}, {len(cover.polls)} polls"


class LiveView:
    """The demo while it runs: a tile for each cover, and below them the news."""

    def __init__(self, state: DemoState) -> None:
        self._state = state
        self._spinner = Spinner("dots")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = max(1, min(6, options.max_width // _TILE_WIDTH))
        yield Text("kie-cover demo", "bold", end="  ")
        yield Text("the API emulated on this machine: no key, no network", "dim")
        yield Text()
        yield self._tiles(columns, is_tall=console.height >= _TALL)
        yield from self._footer(options.max_width)

    def _tiles(self, columns: int, *, is_tall: bool) -> Table:
        table = Table.grid(expand=True, padding=(0, 1, 0, 0))
        for _ in range(columns):
            table.add_column(ratio=1, no_wrap=True)
        covers = self._state.covers
        for start in range(0, len(covers), columns):
            table.add_row(*map(self._tile, covers[start : start + columns]))
            if is_tall:
                table.add_row()
        return table

    def _tile(self, cover: DemoCover) -> Text:
        now = self._state.now
        sign, style = SIGNS[cover.phase]
        return Text.assemble(
            (f"{cover.number:02} ", "dim"),
            (f"{sign or self._spinner.render(now)} {cover.phase}\n", style),
            (f"   {cover.seconds(now):4.1f} s " if cover.task_id else " ", "dim"),
            *(("•", SIGNS[phase][1]) for phase in cover.polls),
        )

    def _footer(self, width: int) -> Iterator[RenderableType]:
        state = self._state
        covers = len(state.covers)
        ended = sum(cover.outcome is not None for cover in state.covers)
        bar = Table.grid()
        bar.add_row(ProgressBar(total=covers, completed=ended, width=width, complete_style="green"))
        yield from (Text(), bar)
        yield Text.assemble(
            (f"{ended} of {covers} covers", "bold"),
            f"  {len(state.images)} images  {state.requests.total()} requests  {state.now:.1f} s  ",
            self._pause_or_legend(),
        )
        shown = state.news[-_NEWS_LINES:]
        yield from (_news(*each) for each in shown)
        yield from [Text()] * (_NEWS_LINES - len(shown))

    def _pause_or_legend(self) -> tuple[str, str]:
        left = self._state.paused_until - self._state.now
        if left > 0:
            return f"requests pause, {left:.1f} s more", "bold yellow"
        return "each • is a poll", "dim"


def _news(time: float, news: str) -> Text:
    return Text(f"{time:5.1f} s  {news}", overflow="ellipsis", no_wrap=True)


def report(state: DemoState, folder: Path) -> Iterator[RenderableType]:
    """Yield how each cover ended and what it took, in 24 lines if there are 80 columns."""
    totals = state.totals()
    yield _CoverTable(state.covers)
    yield from (_news(*each) for each in state.news)
    yield Text.assemble(
        (f"{totals['covers']} covers in {totals['seconds']} s: ", "bold"),
        f"{totals['success']} done, {totals['failed']} failed, {totals['timed_out']} timed out.",
    )
    yield Text.assemble(
        (f"{totals['images']} images", "bold"),
        f", {decimal(totals['bytes'])}, in the folder ",
        (f"{folder}", "cyan"),
    )
    yield Text(
        f"{totals['requests']} requests, {totals['polls']} of them polls; a loop for each cover "
        f"that polls\nevery {BASIC_INTERVAL} s would have made {totals['plain_polls']}."
    )
    yield Text.assemble(
        ("Next: ", "bold"),
        ("export KIE_API_KEY=...", "cyan"),
        " and the lines in the README, or ",
        ("kie-cover --help", "cyan"),
    )


@frozen
class _CoverTable:
    """A table of the covers, in the first layout that fits its terminal."""

    covers: list[DemoCover]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        layouts = [_table(self.covers, per_line, names) for per_line, names in _LAYOUTS]
        unbounded = options.update_width(_ANY_WIDTH)
        fitting = (
            table
            for table in layouts
            if console.measure(table, options=unbounded).maximum <= options.max_width
        )
        yield next(fitting, layouts[-1])


def _table(covers: list[DemoCover], per_line: int, names: Sequence[str]) -> Table:
    """Return a table with *per_line* covers on a line, numbered from top to bottom."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for _ in range(per_line):
        for name in names:
            is_text = name in {"ended", "files"}
            table.add_column(name, justify="left" if is_text else "right", overflow="fold")
    height = ceil(len(covers) / per_line)
    for line in range(height):
        cells = [_cells(cover) for cover in covers[line::height]]
        table.add_row(*(each[name] for each in cells for name in names))
    return table


def _cells(cover: DemoCover) -> dict[str, Text]:
    sign, style = SIGNS[cover.phase]
    # A pattern for the shell: files are named by the task's id.
    files = [f"{image.path.name[:_ID_PREFIX]}*" for image in cover.images[:1]]
    return {
        "#": Text(f"{cover.number:02}", "dim"),
        "ended": Text(f"{sign} {cover.phase}", style),
        "time": Text(f"{cover.seconds():.1f} s"),
        "polls": Text(f"{len(cover.polls)}", "bold yellow" if cover.refusals else ""),
        "files": Text("".join(files)),
    }
