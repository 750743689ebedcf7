"""What a run has brought so far: counts, and what is seen of them."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Literal

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.spinner import Spinner
from rich.text import Text

from kie_cover_async.archive import ArchivedCover
from kie_cover_async.events import Event, RequestsPaused

# "refused" is what can be no id, "failed before" what an earlier run gave up.
End = Literal["saved", "failed", "not done", "refused", "failed before"]
_STYLES: dict[End, str] = {"saved": "green", "not done": "yellow"}

# The rate is that of the last frames.
_FRAMES = 50


class Haul:
    """An observer of a client and a count of covers, and a renderable that shows both.

    `pending` counts the covers of the archive that are still to be saved, by this run or by
    another; `here` those that were asked for, had been saved before and are still there.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.ends: Counter[End] = Counter()
        self.pending: int = 0
        self.here: int = 0
        self.images: int = 0
        self.bytes: int = 0
        self._clock = clock
        self._started = self._paused_until = clock()
        self._frames: deque[tuple[float, int]] = deque([(self._started, 0)], _FRAMES)
        self._spinner = Spinner("dots")

    @property
    def is_complete(self) -> bool:
        """Whether every cover that was tried is saved."""
        return self.ends.total() == self.ends["saved"]

    def save(self, cover: ArchivedCover) -> None:
        """Take in a cover whose images are on disk."""
        self.ends["saved"] += 1
        self.pending -= 1
        self.images += len(cover.images)
        self.bytes += sum(image.size for image in cover.images)

    def fail(self, end: End) -> None:
        """Take in a cover that there are no images of."""
        self.ends[end] += 1
        self.pending -= end == "failed"

    def hear(self, event: Event) -> None:
        """Take in an event of the client's."""
        if isinstance(event, RequestsPaused):
            self._paused_until = self._clock() + event.seconds

    def summary(self) -> str:
        """All of it in one line, for the end."""
        saved, seconds = self.ends["saved"], self._clock() - self._started
        covers = f"{saved:,} cover{'' if saved == 1 else 's'}"
        others = [f"{count:,} {what}" for what, count, _ in self._others()]
        return "; ".join([f"{covers} saved in {seconds:.1f} s: {self._weight()}", *others])

    def __rich__(self) -> RenderableType:
        return Group(*self._lines())

    def _weight(self) -> str:
        images = f"{self.images:,} image{'' if self.images == 1 else 's'}"
        return f"{images}, {decimal(self.bytes)}"

    def _others(self) -> Iterator[tuple[str, int, str]]:
        for end, count in [*self.ends.items()]:
            if end != "saved":
                yield end, count, style_of(end)
        if self.here:
            yield "saved before", self.here, "dim"

    def _lines(self) -> Iterator[Text]:
        now = self._clock()
        yield _line(
            (f"{self._spinner.render(now)} ", "cyan"),
            (f"{self.ends['saved']:,} saved", "bold"),
            f": {self._weight()}   {now - self._started:.0f} s   {decimal(self._rate(now))}/s",
        )
        others = [(f"  {count:,} {what}", style) for what, count, style in self._others()]
        yield _line(f"  {self.pending:,} pending", *others)
        if now < self._paused_until:
            left = self._paused_until - now
            yield _line((f"  too many requests: goes on in {left:.1f} s", "yellow"))

    def _rate(self, now: float) -> int:
        self._frames.append((now, self.bytes))
        then, before = self._frames[0]
        return int((self.bytes - before) / max(now - then, 0.1))


def style_of(end: End) -> str:
    """The colour of an end; failures are red."""
    return _STYLES.get(end, "red")


def _line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, overflow="ellipsis", no_wrap=True)
