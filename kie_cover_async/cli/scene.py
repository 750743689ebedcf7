"""The demo as it is drawn while it runs: a tile for each cover, and below them the news."""

from collections.abc import Iterator
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .stage import Cover, Phase, Stage

SIGNS: Final[dict[Phase, tuple[str, str]]] = {
    "queued": ("·", "dim"),
    "asked for": ("·", "dim"),
    "generating": ("", "cyan"),
    "rate-limited": ("‖", "bold yellow"),
    "success": ("✓", "green"),
    "failed": ("✗", "red"),
    "timed out": ("◷", "magenta"),
}
"""The sign of each phase, and its style; where there is none something turns."""

_TILE_WIDTH = 18
_NEWS = 3
_ROOMY = 30


class Scene:
    """A renderable of the stage that fits its terminal."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._spinner = Spinner("dots")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = max(1, min(6, options.max_width // _TILE_WIDTH))
        yield Text("kie-cover demo", "bold", end="  ")
        yield Text("the API emulated on this machine: no key, no network", "dim")
        yield Text()
        yield self._tiles(columns, roomy=console.height >= _ROOMY)
        yield from self._footer(options.max_width)

    def _tiles(self, columns: int, *, roomy: bool) -> Table:
        table = Table.grid(expand=True, padding=(0, 1, 0, 0))
        for _ in range(columns):
            table.add_column(ratio=1, no_wrap=True)
        covers = self._stage.covers
        for at in range(0, len(covers), columns):
            table.add_row(*map(self._tile, covers[at : at + columns]))
            if roomy:
                table.add_row()
        return table

    def _tile(self, cover: Cover) -> Text:
        now = self._stage.now
        sign, style = SIGNS[cover.phase]
        dots = [("•", SIGNS[poll][1]) for poll in cover.polls]
        return Text.assemble(
            (f"{cover.number:02} ", "dim"),
            (f"{sign or self._turning(now)} {cover.phase}\n", style),
            (f"   {cover.seconds(now):4.1f} s " if cover.task_id else " ", "dim"),
            *dots,
        )

    def _turning(self, now: float) -> str:
        frame = self._spinner.render(now)
        return str(frame)

    def _footer(self, width: int) -> Iterator[RenderableType]:
        stage = self._stage
        ended, covers = len(stage.ended), len(stage.covers)
        bar = Table.grid()
        bar.add_row(ProgressBar(total=covers, completed=ended, width=width, complete_style="green"))
        yield from (Text(), bar)
        yield Text.assemble(
            (f"{ended} of {covers} covers", "bold"),
            f"  {len(stage.images)} images  {stage.requests.total()} requests  {stage.now:.1f} s  ",
            self._pause_left(),
        )
        shown = stage.news[-_NEWS:]
        for at, news in shown:
            yield Text(f"{at:5.1f} s  {news}", overflow="ellipsis", no_wrap=True)
        yield from [Text()] * (_NEWS - len(shown))

    def _pause_left(self) -> tuple[str, str]:
        left = self._stage.paused_until - self._stage.now
        if left > 0:
            return f"requests pause, {left:.1f} s more", "bold yellow"
        return "each • is a poll", "dim"
