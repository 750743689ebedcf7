"""What a command shows while it runs: progress drawn on a terminal, or lines on stderr."""

import re
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from statistics import fmean
from typing import Any, TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from kie_cover_async import ApiError, CoverDetails, DownloadError, KieCoverError, RateLimitedError
from kie_cover_async.events import (
    CoverPolled,
    Event,
    RequestFinished,
    RequestsPaused,
    RetryScheduled,
)

from .output import counted, emit, one_line, plain_console, say
from .process import suspended_by_ctrl_z
from .records import style_of

FRAMES_PER_SECOND = 10

# Seconds that the rate is measured over, and how many requests or covers other means are over.
_RATE_PERIOD, _MEAN_OF = 5.0, 200
# Seconds between two lines about the same kind of failure.
_FAILURE_INTERVAL = 30.0


class ProgressView(ABC):
    """A row that `rich.progress` draws, lines below it, and the pause after too many requests.

    `on_event` is an observer of the client. `live` draws the view: a started `Progress` cannot
    continue after Ctrl-Z.
    """

    def __init__(self, *columns: ProgressColumn, clock: Callable[[], float], **fields: str) -> None:
        spinner = SpinnerColumn(style="cyan")
        self._progress = Progress(
            spinner, *columns, get_time=clock, speed_estimate_period=_RATE_PERIOD
        )
        self._row = self._progress.add_task("", total=None, **cast("Any", fields))
        self._clock = clock
        self._paused_until = clock()

    def on_event(self, event: Event) -> None:
        """Record an event of the client."""
        if isinstance(event, RequestsPaused):
            self._paused_until = self._clock() + event.seconds

    @abstractmethod
    def lines(self) -> Iterator[Text]:
        """Yield the lines below the row."""

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._progress.tasks[0].elapsed or 0.0

    @property
    def pause_left(self) -> float:
        """Seconds until requests are sent again."""
        return max(self._paused_until - self._clock(), 0.0)

    def __rich__(self) -> RenderableType:
        return Group(self._progress, *self.lines(), *self._pause())

    def _pause(self) -> Iterator[Text]:
        if self.pause_left:
            yield _line((f"  too many requests: resuming in {self.pause_left:.1f} s", "yellow"))


class WaitView(ProgressView):
    """A wait: its id, state, time and polls; below them, the error that keeps it waiting."""

    def __init__(self, task_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(
            TextColumn("{task.description}", markup=False),
            TextColumn(" [{task.fields[style]}]{task.fields[state]:<10}[/]"),
            TextColumn(" {task.elapsed:.0f} s "),
            TextColumn("{task.fields[polls]}"),
            clock=clock,
            state="first poll",
            style="dim",
            polls=counted(0, "poll"),
        )
        self._progress.update(self._row, description=one_line(task_id))
        self._polls = 0
        self._error: KieCoverError | None = None

    def on_event(self, event: Event) -> None:
        """Record an event of the client."""
        super().on_event(event)
        if isinstance(event, CoverPolled):
            self._polls += 1
            self._error = event.error
            self._progress.update(self._row, polls=counted(self._polls, "poll"))
            if event.details is not None:
                state = event.details.state.value
                self._progress.update(self._row, state=state, style=style_of(state))

    def lines(self) -> Iterator[Text]:
        """Yield the error of the last poll, unless it is a pause."""
        if self._error is not None and not self.pause_left:
            yield _line((f"  {one_line(self._error)}", "yellow"))


class RateColumn(ProgressColumn):
    """The speed of a row, written by the function that it is given."""

    def __init__(self, write: Callable[[float], str]) -> None:
        super().__init__()
        self._write = write

    def render(self, task: Task) -> Text:
        """Return the rate of the last seconds."""
        return Text("  " + self._write(task.speed or 0.0))


class CoversView(ProgressView):
    """The progress of many covers: a headline, the rate, counts, the queue time and the lag.

    A subclass defines what is counted.
    """

    def __init__(self, write_rate: Callable[[float], str], *, clock: Callable[[], float]) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            TextColumn("  {task.elapsed:.0f} s"),
            RateColumn(write_rate),
            clock=clock,
        )
        self.requests: int = 0
        self._queue_times: deque[float] = deque([0.0], _MEAN_OF)
        self._lags: deque[float] = deque(maxlen=_MEAN_OF)

    @abstractmethod
    def row(self) -> tuple[str, float]:
        """Return the headline, in rich's markup, and the amount that the rate is of."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Return the numbers below the headline."""

    def on_event(self, event: Event) -> None:
        """Record an event of the client."""
        super().on_event(event)
        if isinstance(event, RequestFinished):
            self.requests += 1
            # Submits have a queue of their own, which is much longer.
            if event.method == "GET":
                self._queue_times.append(event.queue_time)
        elif isinstance(event, CoverPolled) and event.details is not None:
            self._record_lag(event.details, event.age)

    def _record_lag(self, details: CoverDetails, age: float) -> None:
        if details.is_terminal and details.generation_time is not None:
            self._lags.append(max(age - details.generation_time.total_seconds(), 0.0))

    def __rich__(self) -> RenderableType:
        headline, amount = self.row()
        self._progress.update(self._row, description=headline, completed=amount)
        return super().__rich__()

    def lines(self) -> Iterator[Text]:
        """Yield the counts, and the means of queue time and lag."""
        counts = [*self.counts().items()]
        yield _line(*((f"  {count:,} {what}", style_of(what)) for what, count in counts))
        lag = f"   {fmean(self._lags):.1f} s from done to seen" if self._lags else ""
        yield _line((f"  {fmean(self._queue_times):.2f} s in the queue{lag}", "dim"))


def _line(*parts: tuple[str, str]) -> Text:
    return Text.assemble(*parts, overflow="ellipsis", no_wrap=True)


def can_draw(stream: TextIO | None) -> bool:
    """Return whether the stream is a terminal on which something can be drawn and erased."""
    return stream is not None and stream.isatty() and not Console(file=stream).is_dumb_terminal


@contextmanager
def live(view: RenderableType, *, console: Console) -> Iterator[None]:
    """Draw the view on the terminal, again and again, and erase it in the end.

    Ctrl-Z erases it too and shows the cursor; it is drawn again when the command continues.
    Messages appear above it if stderr is a terminal. Output to stdout is data and is not touched.
    """
    is_on_stderr = can_draw(sys.stderr)

    def draw() -> None:
        # A new one each time: a `Live` that is started again erases lines above its own.
        drawing = Live(
            view,
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
def drawn(view: RenderableType) -> Iterator[Callable[[str | Text], None]]:
    """Draw the view if there is a terminal; yield the function that writes a result line."""
    if can_draw(sys.stdout):
        console = plain_console()
        with live(view, console=console):
            yield lambda line: console.print(line, soft_wrap=True)
        return
    with ExitStack() as stack:
        if can_draw(sys.stderr):
            stack.enter_context(live(view, console=plain_console(stderr=True)))
        yield lambda line: emit(str(line))


class StateChangeLog:
    """An observer that writes each change of a wait to stderr, for use without a terminal."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def on_event(self, event: Event) -> None:
        """Write a line if the event is news; temporary failures are written elsewhere."""
        if not isinstance(event, CoverPolled) or (event.error and event.error.transient):
            return
        news = type(event.error).__name__ if event.details is None else event.details.state.value
        if news != self._last.get(event.task_id):
            self._last[event.task_id] = news
            say(f"{event.task_id} at {event.age:.1f} s: {event.error or news}")


class FailureLog:
    """An observer that writes temporary failures to stderr: a line for each kind in 30 seconds.

    The kind is the class of the error with the API's code, or with the reason without its figures.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}
        self._unreported: Counter[str] = Counter()

    def on_event(self, event: Event) -> None:
        """Record an event of the client."""
        if isinstance(event, RequestsPaused):
            text = f"too many requests: all of them pause for {event.seconds:.1f} s"
            self._report("too many requests", text)
        elif (error := _temporary_failure(event)) is not None:
            self._report(_kind(error), f"temporary failure: {error}")

    def _report(self, kind: str, text: str) -> None:
        now, last = self._clock(), self._last.get(kind, -inf)
        if now - last < _FAILURE_INTERVAL:
            self._unreported[kind] += 1
            return
        self._last[kind] = now
        if more := self._unreported.pop(kind, 0):
            text += f" ({more:,} more in the last {now - last:.0f} s)"
        say(text)


def _temporary_failure(event: Event) -> KieCoverError | None:
    """Return the error of a request or a download that is repeated, or may be."""
    if isinstance(event, RetryScheduled) and isinstance(event.error, DownloadError):
        return event.error
    if not isinstance(event, RequestFinished) or event.error is None:
        return None
    # A rate-limited request is reported by its `RequestsPaused`.
    is_reported = isinstance(event.error, RateLimitedError) or not event.error.transient
    return None if is_reported else event.error


def _kind(error: KieCoverError) -> str:
    if isinstance(error, ApiError):
        return f"{type(error).__name__} {error.code}"
    reason, _, _ = getattr(error, "reason", "").partition(":")
    return f"{type(error).__name__} {re.sub('[0-9.]+', '', reason)}"
