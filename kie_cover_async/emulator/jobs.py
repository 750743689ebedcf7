"""Cover jobs: the scripts that they follow, and their state at a given time."""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from random import Random
from typing import Any, Final, Literal, NamedTuple, get_args

from attrs import define, field, frozen
from attrs.validators import in_, optional

from . import values
from .faults import Fault
from .values import Duration, draw

Stage = Literal["missing", "pending", "generating", "bare-success", "success", "failure"]
End = Literal["success", "failure", "never"]

TERMINAL_STAGES: Final = ("bare-success", "success", "failure")


class Instant(NamedTuple):
    """One instant on both clocks, in seconds: `loop` for progress, `wall` for what is written."""

    loop: float
    wall: float

    def before(self, seconds: float) -> "Instant":
        return Instant(self.loop - seconds, self.wall - seconds)


class Status(NamedTuple):
    """The result of one poll of a job: the stage of its record, and a fault of the answer."""

    stage: Stage
    fault: Fault | None = None


STATUSES: Final[dict[str, Status]] = {
    **{stage: Status(stage) for stage in get_args(Stage)},
    "429": Status("generating", Fault.rate_limited()),
    "500": Status("generating", Fault.server_error()),
}
ScriptedStatus = str | Fault | tuple[str, Fault]


def _parse_status(status: ScriptedStatus) -> Status:
    if isinstance(status, Fault):
        return Status("generating", status)
    if isinstance(status, tuple):
        return Status(_parse_status(status[0]).stage, status[1])
    if status not in STATUSES:
        raise ValueError(
            f"no status is called {status!r}; there are {', '.join(STATUSES)} and faults"
        )
    return STATUSES[status]


def _parse_statuses(statuses: Iterable[ScriptedStatus] | None) -> tuple[Status, ...]:
    if isinstance(statuses, str):
        statuses = [status.strip() for status in statuses.split(",")]
    return tuple(map(_parse_status, statuses or ()))


@frozen(kw_only=True)
class CoverScript:
    """The course of one job.

    By time: the job is answered like an unknown id for `visible_after` seconds, is being generated
    until `seconds` after its creation, and then ends as `end` says. If either is `None`, the
    emulator's own setting is used.

    Or poll by poll: `statuses` scripts the answers one by one, and the last is repeated. Each is
    `missing` (`data: null`), `pending` (flag 0), `generating` (flag 2), `success`, `failure`
    (flag 3), `bare-success` (flag 1, no images yet), `429`, `500`, a `Fault` that happens while the
    cover is being generated, or a pair such as `("success", Fault.truncated_json())`. If all are
    words, they may be one str: `statuses="pending, generating, 429, success"`. The Market route
    writes the same as 422 "recordInfo is null", `waiting`, `generating`, `success` and `fail`.

    `images` is the number of images of a success; `error_code` and `error_message` are written
    into the record of a failure.

    The callback is sent at the end. With scripted statuses, that is when the first `success` or
    `failure` has been polled; or `seconds` after the creation if they are given here, whatever the
    statuses say by then.
    """

    seconds: float | None = field(default=None, validator=optional(values.seconds))
    end: End = field(default="success", validator=in_(("success", "failure", "never")))
    images: int = field(default=2, validator=values.count_or_zero)
    visible_after: float | None = field(default=None, validator=optional(values.seconds))
    statuses: tuple[Status, ...] = field(default=None, converter=_parse_statuses)
    error_code: int | str | None = 501
    error_message: str | None = "Cover generation failed"


def parse_script(script: CoverScript | str) -> CoverScript:
    """Return the script itself, or the one whose statuses a str names."""
    if isinstance(script, str):
        return CoverScript(statuses=script)
    values.validate("script", script, values.instance(CoverScript, "a script that is not a str"))
    return script


CallbackBody = Callable[["Job", list[str] | None], dict[str, Any]]
"""Returns a callback's body from the job and its images, which are `None` if it has failed."""


@define(kw_only=True)
class Job:
    """One job; `polls` counts how often its record has been polled.

    `callback_body` belongs to the route of its submit; `None` stands for that of the suno route.
    """

    task_id: str
    music_task_id: str
    script: CoverScript
    seconds: float
    visible_after: float
    created: Instant
    callback_url: str | None = None
    callback_body: CallbackBody | None = None
    polls: int = 0
    ended_after: float | None = None

    @property
    def outcome(self) -> End:
        """How it ends, or has ended."""
        for status in self.script.statuses:
            if status.stage in ("success", "failure"):
                return status.stage
        return self.script.end

    @property
    def ends_by_poll(self) -> bool:
        """Whether it ends when it is polled, and not at a time that is known before."""
        return bool(self.script.statuses) and self.script.seconds is None

    @property
    def end_time(self) -> float:
        """Unix seconds at which it ended; those of its creation until then."""
        return self.created.wall + (self.ended_after or 0.0)

    def end(self) -> None:
        """End the job now, unless it has ended."""
        if self.ended_after is None:
            self.ended_after = self.seconds

    def poll(self, now: Instant) -> Status:
        """Return the status for this poll, and count the poll."""
        age = now.loop - self.created.loop
        scripted = self.script.statuses
        status = scripted[min(self.polls, len(scripted) - 1)] if scripted else self._stage_at(age)
        self.polls += 1
        if status.stage in TERMINAL_STAGES and self.ended_after is None:
            self.ended_after = age if scripted else self.seconds
        return status

    def _stage_at(self, age: float) -> Status:
        if age < self.visible_after:
            return STATUSES["missing"]
        if self.script.end == "never" or (age < self.seconds and self.ended_after is None):
            return STATUSES["generating"]
        return STATUSES[self.script.end]

    def image_paths(self) -> list[str]:
        """Return paths as on the vendor's image host: Unix seconds and 32 hexadecimal digits."""
        names = (f"{self.task_id}/{n}".encode() for n in range(self.script.images))
        hashes = (blake2b(name, digest_size=16).hexdigest() for name in names)
        return [f"/s/{int(self.end_time)}_{each}.png" for each in hashes]


@define
class JobFactory:
    """Creates jobs.

    The random choices for a song depend only on the seed and the song's id, so that the order in
    which concurrent requests arrive changes nothing.
    """

    seed: int | str
    generation_time: Duration = field(validator=values.duration)
    visible_after: float = field(validator=values.seconds)
    failure_rate: float = field(validator=values.share)
    stuck_rate: float = field(validator=values.share)
    scripts: dict[str, CoverScript] = field(factory=dict, init=False)

    @stuck_rate.validator
    def _validate_sum(self, _: Any, rate: float) -> None:
        if self.failure_rate + rate > 1:
            shares = f"not {self.failure_rate!r} and {rate!r}"
            raise ValueError(f"failure_rate and stuck_rate must be at most 1 together, {shares}")

    def create(
        self,
        music_task_id: str,
        created: Instant,
        *,
        script: CoverScript | None = None,
        task_id: str | None = None,
        callback_url: str | None = None,
        callback_body: CallbackBody | None = None,
    ) -> Job:
        rng = Random(f"{self.seed}/{music_task_id}")
        own_id, end = f"{rng.getrandbits(128):032x}", self._end(rng.random())
        script = script or self.scripts.get(music_task_id) or CoverScript(end=end)
        seconds, visible_after = script.seconds, script.visible_after
        return Job(
            task_id=task_id or own_id,
            music_task_id=music_task_id,
            script=script,
            seconds=draw(self.generation_time, rng) if seconds is None else seconds,
            visible_after=self.visible_after if visible_after is None else visible_after,
            created=created,
            callback_url=callback_url,
            callback_body=callback_body,
        )

    def song_id(self, number: int) -> str:
        """Return an id for a song that has none."""
        return f"{Random(f'{self.seed}/song/{number}').getrandbits(128):032x}"

    def _end(self, choice: float) -> End:
        if choice < self.failure_rate:
            return "failure"
        return "never" if choice < self.failure_rate + self.stuck_rate else "success"
