"""What a person sees of many ids at once: counts, the rate, waiting for the rate limiter, and the
lag.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from statistics import fmean

from rich.console import Group, RenderableType
from rich.spinner import Spinner
from rich.text import Text

from kie_cover_async import CoverDetails, CoverOutcome
from kie_cover_async.events import CoverPolled, Event, RequestFinished, RequestsPaused

from .record import STYLES

# The rate is that of the last frames, the rest are means of the last so many.
_FRAMES, _LAST = 50, 200


class Tally:
    """An observer of a client and a count of outcomes, and a renderable that shows both."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.done: int = 0
        self.failed: int = 0
        self.requests: int = 0
        self._clock = clock
        self._started = self._paused_until = clock()
        self._ends: Counter[str] = Counter()
        self._queued: deque[float] = deque([0.0], _LAST)
        self._lags: deque[float] = deque(maxlen=_LAST)
        self._frames: deque[tuple[float, int]] = deque([(self._started, 0)], _FRAMES)
        self._spinner = Spinner("dots")

    def count(self, outcome: CoverOutcome) -> None:
        """Take in what became of an id."""
        self.done += 1
        self.failed += not outcome.ok
        self._ends[how_it_ended(outcome)] += 1

    def hear(self, event: Event) -> None:
        """Take in an event of the client's."""
        if isinstance(event, RequestFinished):
            self.requests += 1
            self._queued.append(event.queue_time)
        elif isinstance(event, RequestsPaused):
            self._paused_until = self._clock() + event.seconds
        elif isinstance(event, CoverPolled) and event.details is not None:
            self._note_lag(event.details, event.age)

    def summary(self) -> str:
        """All of it in one line, for the end."""
        seconds, word = self._clock() - self._started, "id" if self.done == 1 else "ids"
        return (
            f"{self.done:,} {word} in {seconds:.1f} s: {self.done - self.failed:,} ok, "
            f"{self.failed:,} failed; {self.requests:,} requests, "
            f"{self.requests / max(seconds, 0.1):,.1f} a second"
        )

    def __rich__(self) -> RenderableType:
        return Group(*self._lines())

    def _note_lag(self, details: CoverDetails, age: float) -> None:
        if details.is_terminal and details.generation_time is not None:
            self._lags.append(max(age - details.generation_time.total_seconds(), 0.0))

    def _lines(self) -> Iterator[Text]:
        now = self._clock()
        yield _line(
            (f"{self._spinner.render(now)} ", "cyan"),
            (f"{self.done:,} done", "bold"),
            f": {self.done - self.failed:,} ok, {self.failed:,} failed   "
            f"{now - self._started:.0f} s   {self._rate(now):,.1f} requests/s",
        )
        yield _line(*(part for end in list(self._ends.items()) for part in _count(*end)))
        lag = f"   {fmean(self._lags):.1f} s from done to seen" if self._lags else ""
        yield _line((f"  {fmean(self._queued):.2f} s in the queue{lag}", "dim"))
        if now < self._paused_until:
            left = self._paused_until - now
            yield _line((f"  too many requests: goes on in {left:.1f} s", "yellow"))

    def _rate(self, now: float) -> float:
        self._frames.append((now, self.requests))
        then, before = self._frames[0]
        return (self.requests - before) / max(now - then, 0.1)


def how_it_ended(outcome: CoverOutcome) -> str:
    """The state that was seen, or the name of the error, in one word."""
    if outcome.error is not None:
        return type(outcome.error).__name__
    return outcome.result().state.value


def _count(word: str, number: int) -> Iterator[str | tuple[str, str]]:
    yield "  "
    yield word, style_of(word)
    yield f" {number:,}"


def style_of(word: str) -> str:
    """The colour of a state; errors are red."""
    return {state.value: style for state, style in STYLES.items()}.get(word, "red")


def _line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, overflow="ellipsis", no_wrap=True)
