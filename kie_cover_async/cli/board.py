"""What a person sees of waits while they go on."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

from attrs import define
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from kie_cover_async import KieCoverError
from kie_cover_async.events import CoverPolled, Event, RequestsPaused

from .output import emit, one_line, paper, say
from .record import STYLES
from .signals import suspended_by_ctrl_z

FRAMES_PER_SECOND = 10


@define
class Waiting:
    """What is known of one wait."""

    said: str = "first poll"
    style: str = "dim"
    polls: int = 0
    error: KieCoverError | None = None

    def hear(self, poll: CoverPolled) -> None:
        """Take in what a poll brought."""
        self.polls += 1
        self.error = poll.error
        if poll.details is not None:
            self.said, self.style = poll.details.state.value, STYLES[poll.details.state]


class Board:
    """An observer of waits, and a renderable that shows them: a line for each."""

    def __init__(
        self, task_ids: Iterable[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._waits = {task_id: Waiting() for task_id in task_ids}
        self._clock = clock
        self._started = clock()
        self._paused_until = self._started
        self._spinner = Spinner("dots")

    def hear(self, event: Event) -> None:
        """Take in an event of the client's."""
        if isinstance(event, CoverPolled):
            self._waits[event.task_id].hear(event)
        elif isinstance(event, RequestsPaused):
            self._paused_until = self._clock() + event.seconds

    def __rich__(self) -> RenderableType:
        return Group(*self._lines())

    def _lines(self) -> Iterator[Text]:
        now = self._clock()
        sign = self._spinner.render(now)
        width = max(map(len, self._waits), default=0)
        for task_id, wait in self._waits.items():
            polls = "1 poll" if wait.polls == 1 else f"{wait.polls} polls"
            yield _line(
                (f"{sign} ", "cyan"),
                f"{one_line(task_id):<{width}}  ",
                (f"{wait.said:<10}", wait.style),
                f"  {now - self._started:.0f} s  {polls}",
            )
            if trouble := self._trouble(wait, now):
                yield _line((f"  {trouble}", "yellow"))

    def _trouble(self, wait: Waiting, now: float) -> str:
        if now < self._paused_until:
            return f"too many requests: goes on in {self._paused_until - now:.1f} s"
        return "" if wait.error is None else one_line(wait.error)


def _line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, overflow="ellipsis", no_wrap=True)


class Changes:
    """An observer of waits that says what is new of them, where there is no board to look at."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def hear(self, event: Event) -> None:
        """Take in an event of the client's; temporary failures are not said here."""
        if isinstance(event, CoverPolled) and not (event.error and event.error.transient):
            self._polled(event)

    def _polled(self, poll: CoverPolled) -> None:
        news = type(poll.error).__name__ if poll.details is None else poll.details.state.value
        if news != self._said.get(poll.task_id):
            self._said[poll.task_id] = news
            told = news if poll.error is None else poll.error
            say(f"{poll.task_id} at {poll.age:.1f} s: {told}")


def can_draw(stream: TextIO | None) -> bool:
    """Whether something can be drawn there and wiped off again."""
    return stream is not None and stream.isatty() and not Console(file=stream).is_dumb_terminal


@contextmanager
def live(shown: RenderableType, *, console: Console) -> Iterator[None]:
    """Draw it on the terminal, again and again, and wipe it off in the end.

    Ctrl-Z wipes it off too and shows the cursor; it is drawn again when the command continues.
    What is said meanwhile stands above it, where stderr is a terminal. What is written to stdout is
    data, and goes where it went before.
    """
    is_on_stderr = can_draw(sys.stderr)

    def draw() -> None:
        # A new one each time: a `Live` that is started again erases lines above its own.
        drawing = Live(
            shown,
            console=console,
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=is_on_stderr,
        )
        stack.enter_context(drawing)

    with ExitStack() as stack:
        draw()
        with suspended_by_ctrl_z(before=stack.close, after=draw):
            yield


@contextmanager
def watched(shown: RenderableType) -> Iterator[Callable[[str | Text], None]]:
    """Draw it where there is a terminal; gives the way to write a line meanwhile."""
    if can_draw(sys.stdout):
        console = paper()
        with live(shown, console=console):
            yield lambda line: console.print(line, soft_wrap=True)
        return
    if can_draw(sys.stderr):
        with live(shown, console=Console(stderr=True, markup=False, highlight=False)):
            yield lambda line: emit(str(line))
        return
    yield lambda line: emit(str(line))
