"""What happens in the demo: each cover's fate, and the news."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Literal

from attrs import define, field

from kie_cover_async import (
    CoverDetails,
    CoverFailedError,
    CoverState,
    CoverTimeoutError,
    KieCoverError,
    RateLimitedError,
)
from kie_cover_async.archive import SavedImage
from kie_cover_async.events import CoverPolled, Event, RequestFinished, RequestsPaused

Phase = Literal[
    "queued", "asked for", "generating", "rate-limited", "success", "failed", "timed out"
]
Outcome = CoverDetails | KieCoverError

_PHASES: Final[dict[CoverState, Phase]] = {
    CoverState.SUCCESS: "success",
    CoverState.CREATE_TASK_FAILED: "failed",
    CoverState.GENERATE_COVER_FAILED: "failed",
}


def phase_of(outcome: Outcome) -> Phase:
    """How it ended, in a word."""
    if isinstance(outcome, CoverDetails):
        return "success"
    return "timed out" if isinstance(outcome, CoverTimeoutError) else "failed"


def _why(error: KieCoverError) -> str:
    if isinstance(error, CoverFailedError):
        return error.details.error_message or error.details.state.value
    if isinstance(error, CoverTimeoutError):
        return f"not done in {error.waited:.1f} s"
    return str(error)


@define
class Cover:
    """One cover of the demo; times are the stage's, `polls` what each poll brought."""

    number: int
    phase: Phase = "queued"
    task_id: str | None = None
    asked: float = 0.0
    ended: float | None = None
    polls: list[Phase] = field(factory=list)
    outcome: Outcome | None = None
    images: tuple[SavedImage, ...] = ()

    def seconds(self, now: float) -> float:
        """How long it has been waited for since it was asked for."""
        return 0.0 if self.task_id is None else (self.ended or now) - self.asked

    @property
    def refusals(self) -> int:
        """How many of its polls were refused for too many requests."""
        return self.polls.count("rate-limited")


class Stage:
    """All the covers, the requests they cost, and the news; an observer of the client."""

    def __init__(self, number: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.covers: list[Cover] = [Cover(1 + at) for at in range(number)]
        self.requests: Counter[str] = Counter()
        self.news: list[tuple[float, str]] = []
        self.paused_until: float = 0.0
        self._clock = clock
        self._started = clock()
        self._by_id: dict[str, Cover] = {}

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._started

    @property
    def ended(self) -> list[Cover]:
        """The covers whose waits are over."""
        return [cover for cover in self.covers if cover.outcome is not None]

    def ask(self, cover: Cover, task_id: str) -> None:
        """The API has taken the request, and the wait begins."""
        cover.task_id, cover.asked, cover.phase = task_id, self.now, "asked for"
        self._by_id[task_id] = cover

    @property
    def images(self) -> list[SavedImage]:
        """All images that are on disk."""
        return [image for cover in self.covers for image in cover.images]

    def end(self, cover: Cover, outcome: Outcome) -> None:
        """The wait is over."""
        cover.outcome, cover.ended, cover.phase = outcome, self.now, phase_of(outcome)
        if isinstance(outcome, KieCoverError):
            self._tell(f"cover {cover.number:02} {cover.phase}: {_why(outcome)}")

    def hear(self, event: Event) -> None:
        """Take in what the client tells its observer."""
        if isinstance(event, RequestFinished):
            self.requests[event.endpoint] += 1
        elif isinstance(event, CoverPolled):
            self._polled(self._by_id[event.task_id], event)
        elif isinstance(event, RequestsPaused):
            self._pause(event)

    def _pause(self, event: RequestsPaused) -> None:
        self.paused_until = self.now + event.seconds
        cover = self._by_id[event.error.task_id or ""]
        self._tell(
            f"cover {cover.number:02} refused with a 429: "
            f"all {event.kind} pause for {event.seconds:.1f} s"
        )

    def _polled(self, cover: Cover, poll: CoverPolled) -> None:
        if poll.details is not None:
            cover.phase = _PHASES.get(poll.details.state, "generating")
        elif isinstance(poll.error, RateLimitedError):
            cover.phase = "rate-limited"
        cover.polls.append(cover.phase)

    def _tell(self, news: str) -> None:
        self.news.append((self.now, news))
