"""What happens in the demo: the covers, what became of them, and the run that makes them."""

from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Literal, cast

from attrs import define, field

from kie_cover_async import (
    CoverClient,
    CoverDetails,
    CoverFailedError,
    CoverState,
    CoverTimeoutError,
    ExponentialSchedule,
    KieCoverError,
    RateLimitedError,
    RateLimiter,
)
from kie_cover_async.archive import CoverArchive, SavedImage
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault
from kie_cover_async.events import CoverPolled, Event, RequestFinished, RequestsPaused
from kie_cover_async.jobs import make_covers
from kie_cover_async.ledger import SongOutcome

COVERS = 24
FAILING, STUCK, REFUSED = 11, 6, 17

BASIC_INTERVAL = 0.5
"""Seconds between two polls of the basic loop that the waits are compared with."""

# Ten times as fast as the service, and the polls accordingly.
_GENERATION_TIME = (2.0, 6.0)
_TIMEOUT = 8.5
_SCHEDULE = ExponentialSchedule(initial_delay=1.0, factor=1.5, max_delay=2.5, not_before=1.5)
_RATE_LIMIT = 20
_CALLBACK_URL = "https://example.com/unused"
_IMAGE_SIZE = 512

Phase = Literal[
    "queued", "submitted", "generating", "rate-limited", "success", "failed", "timed out"
]
Outcome = CoverDetails | KieCoverError

_FAILURES = {CoverState.CREATE_TASK_FAILED, CoverState.GENERATE_COVER_FAILED}


@define
class DemoCover:
    """A cover of the demo. `polls` has the phase after each poll; times are those of the state."""

    number: int
    phase: Phase = "queued"
    task_id: str | None = None
    submitted: float = 0.0
    ended: float | None = None
    polls: list[Phase] = field(factory=list)
    outcome: Outcome | None = None
    images: tuple[SavedImage, ...] = ()

    def __str__(self) -> str:
        return f"cover {self.number:02}"

    def seconds(self, now: float = 0.0) -> float:
        """Return how long the wait has taken since the submit."""
        return 0.0 if self.task_id is None else (self.ended or now) - self.submitted

    @property
    def refusals(self) -> int:
        """How many of its polls were refused for too many requests."""
        return self.polls.count("rate-limited")

    def record(self, poll: CoverPolled) -> None:
        """Record what a poll returned; an error other than a refusal keeps the phase."""
        if poll.details is not None:
            self.phase = _phase_in(poll.details.state)
        elif isinstance(poll.error, RateLimitedError):
            self.phase = "rate-limited"
        self.polls.append(self.phase)

    def as_json(self) -> dict[str, Any]:
        """Return how it ended."""
        error = self.outcome if isinstance(self.outcome, KieCoverError) else None
        return {
            "cover": self.number,
            "taskId": self.task_id,
            "ended": self.phase,
            "seconds": round(self.seconds(), 3),
            "polls": len(self.polls),
            "refusals": self.refusals,
            "images": [image.url for image in self.images],
            "files": [str(image.path) for image in self.images],
            "error": None if error is None else type(error).__name__,
        }


class DemoState:
    """All covers, their requests, and the news; `on_event` is an observer of the client.

    `requests` counts by method: all GETs of the demo are polls, and all POSTs submits.
    """

    def __init__(self, covers: int, *, clock: Callable[[], float]) -> None:
        self.covers: list[DemoCover] = [DemoCover(1 + index) for index in range(covers)]
        self.requests: Counter[str] = Counter()
        self.news: list[tuple[float, str]] = []
        self.paused_until: float = 0.0
        self._clock = clock
        self._started = clock()
        self._by_id: dict[str, DemoCover] = {}

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    @property
    def images(self) -> list[SavedImage]:
        """All images that are on disk."""
        return [image for cover in self.covers for image in cover.images]

    def submit(self, cover: DemoCover, task_id: str) -> None:
        """Record that the API accepted the cover and the wait begins."""
        cover.task_id, cover.submitted, cover.phase = task_id, self.now, "submitted"
        self._by_id[task_id] = cover

    def end(self, cover: DemoCover, outcome: Outcome) -> None:
        """Record the end of the wait."""
        cover.outcome, cover.ended, cover.phase = outcome, self.now, _end_phase(outcome)
        if isinstance(outcome, KieCoverError):
            self._add_news(f"{cover} {cover.phase}: {_reason(outcome)}")

    def on_event(self, event: Event) -> None:
        """Record an event of the client."""
        if isinstance(event, RequestFinished):
            self.requests[event.method] += 1
        elif isinstance(event, CoverPolled):
            self._by_id[event.task_id].record(event)
        elif isinstance(event, RequestsPaused):
            self.paused_until = self.now + event.seconds
            refused = self._by_id[event.error.task_id or ""]
            pause = f"all {event.kind} pause for {event.seconds:.1f} s"
            self._add_news(f"{refused} refused with a 429: {pause}")

    def _add_news(self, news: str) -> None:
        self.news.append((self.now, news))

    def totals(self) -> dict[str, Any]:
        """Return the sums of all covers."""
        phases = [cover.phase for cover in self.covers]
        return {
            "seconds": round(self.now, 1),
            "requests": self.requests.total(),
            "polls": self.requests["GET"],
            "plain_polls": sum(ceil(cover.seconds() / BASIC_INTERVAL) for cover in self.covers),
            "covers": len(phases),
            "success": phases.count("success"),
            "failed": phases.count("failed"),
            "timed_out": phases.count("timed out"),
            "images": len(self.images),
            "bytes": sum(image.size for image in self.images),
        }


def _phase_in(state: CoverState) -> Phase:
    if state is CoverState.SUCCESS:
        return "success"
    return "failed" if state in _FAILURES else "generating"


def _end_phase(outcome: Outcome) -> Phase:
    if isinstance(outcome, CoverDetails):
        return "success"
    return "timed out" if isinstance(outcome, CoverTimeoutError) else "failed"


def _reason(error: KieCoverError) -> str:
    if isinstance(error, CoverFailedError):
        return error.details.error_message or error.details.state.value
    if isinstance(error, CoverTimeoutError):
        return f"not done in {error.waited:.1f} s"
    return str(error)


async def play(
    state: DemoState,
    archive: CoverArchive,
    route: str | None,
    on_end: Callable[[DemoCover], object],
) -> None:
    """Run emulator and client to the end; call *on_end* with each cover that has ended."""
    async with (
        CoverEmulator(
            seed="demo",
            generation_time=_GENERATION_TIME,
            visible_after=0.2,
            latency=(0.01, 0.06),
            image_size=_IMAGE_SIZE,
        ) as emulator,
        _DemoClient(
            "demo",
            route=route,
            base_url=emulator.url,
            schedule=_SCHEDULE,
            rate_limiter=RateLimiter(_RATE_LIMIT),
            submit_rate_limiter=RateLimiter(_RATE_LIMIT),
            observer=state.on_event,
        ) as client,
    ):
        songs = await _new_songs(archive, state.covers)
        failing, stuck, refused = (songs[number - 1] for number in (FAILING, STUCK, REFUSED))
        emulator.script_song(failing, CoverScript(seconds=3.5, end="failure"))
        emulator.script_song(stuck, CoverScript(end="never"))
        emulator.script_song(refused, CoverScript(seconds=5.5))
        covers = dict(zip(songs, state.covers, strict=True))

        def on_task_id(song: str, task_id: str) -> None:
            state.submit(covers[song], task_id)
            if song == refused:
                refusal = Fault.rate_limited(retry_after=1)
                emulator.fault(refusal, endpoint="poll", task_id=task_id, after=1)

        client.on_task_id = on_task_id
        stream = make_covers(client, archive, songs, callback_url=_CALLBACK_URL, timeout=_TIMEOUT)
        async with stream as outcomes:
            async for outcome in outcomes:
                # Songs of earlier runs had an emulator of their own, and are left as they are.
                if (cover := covers.get(outcome.song.music_task_id)) is not None:
                    await _end(cover, outcome, state, archive)
                    on_end(cover)


class _DemoClient(CoverClient):
    """A client that also says which id each song got, as soon as the API has accepted it."""

    on_task_id: Callable[[str, str], None]

    async def generate_cover(self, music_task_id: str, **options: Any) -> str:
        task_id = await super().generate_cover(music_task_id, **options)
        self.on_task_id(music_task_id, task_id)
        return task_id


async def _new_songs(archive: CoverArchive, covers: Sequence[DemoCover]) -> list[str]:
    """Return a song for each cover; in a folder of earlier runs they are other ones."""
    known = len([song async for song in archive.songs()])
    prefix = f"after-{known}-" if known else ""
    return [f"{prefix}song-{cover.number:02}" for cover in covers]


async def _end(
    cover: DemoCover, outcome: SongOutcome, state: DemoState, archive: CoverArchive
) -> None:
    song = outcome.song
    if outcome.ok and (saved := await archive.find(str(song.task_id))) is not None:
        cover.images = saved.images
    state.end(cover, cast("Outcome", outcome.error or song.details))
