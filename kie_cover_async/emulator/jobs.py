"""A cover job: the script it follows, and what its record says at a moment that is given."""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from random import Random
from typing import Any, Final, Literal, NamedTuple

from attrs import define, field, frozen, validators

from kie_cover_async.emulator.faults import Fault

Stage = Literal["missing", "pending", "generating", "bare-success", "success", "failure"]
Duration = float | tuple[float, float] | Callable[[Random], float]

_FLAGS: Final[dict[str, int]] = {
    "pending": 0,
    "generating": 2,
    "bare-success": 1,
    "success": 1,
    "failure": 3,
}
_ENDED: Final = ("bare-success", "success", "failure")


class Moment(NamedTuple):
    """One instant on both clocks, in seconds: `loop` for progress, `wall` for what is written."""

    loop: float
    wall: float

    def before(self, seconds: float) -> "Moment":
        return Moment(self.loop - seconds, self.wall - seconds)


class Look(NamedTuple):
    """What one look at a job meets: how far the record is, and what goes wrong with the answer."""

    stage: Stage
    fault: Fault | None = None


_LOOKS: Final[dict[str, Look]] = {
    "missing": Look("missing"),
    "pending": Look("pending"),
    "generating": Look("generating"),
    "bare-success": Look("bare-success"),
    "success": Look("success"),
    "failure": Look("failure"),
    "429": Look("generating", Fault.rate_limited()),
    "500": Look("generating", Fault.server_error()),
}
ScriptedLook = str | Fault | tuple[str, Fault]


def _read_look(look: ScriptedLook) -> Look:
    if isinstance(look, Fault):
        return Look("generating", look)
    if isinstance(look, tuple):
        return Look(_read_look(look[0]).stage, look[1])
    if look not in _LOOKS:
        raise ValueError(f"no look is called {look!r}; there are {', '.join(_LOOKS)} and faults")
    return _LOOKS[look]


def _read_looks(looks: Iterable[ScriptedLook] | None) -> tuple[Look, ...]:
    if isinstance(looks, str):
        looks = [look.strip() for look in looks.split(",")]
    return tuple(map(_read_look, looks or ()))


@frozen(kw_only=True)
class CoverScript:
    """How one job goes.

    By time: the job is invisible (`data: null`) for `visible_after` seconds, is being generated
    until `seconds` after its creation, and then ends as `end` says. Where either is `None`, the
    emulator's own setting is used.

    Or look by look: `looks` scripts the answers one by one, and the last is repeated. Each is
    `missing` (`data: null`), `pending` (flag 0), `generating` (flag 2), `success`, `failure`
    (flag 3), `bare-success` (flag 1, no images yet), `429`, `500`, a `Fault` met while the cover
    is being generated, or a pair such as `("success", Fault.truncated_json())`. Where all are
    words, they may be one text: `looks="pending, generating, 429, success"`.

    `images` is the number of images of a success; `error_code` and `error_message` are written
    into the record of a failure.

    The callback is sent at the end. Where looks are scripted, that is when the first look that
    says `success` or `failure` has been asked for; or `seconds` after the creation if they are
    given here, whatever the looks say by then.
    """

    seconds: float | None = None
    end: Literal["success", "failure", "never"] = field(
        default="success", validator=validators.in_(("success", "failure", "never"))
    )
    images: int = 2
    visible_after: float | None = None
    looks: tuple[Look, ...] = field(default=None, converter=_read_looks)
    error_code: int | str | None = 501
    error_message: str | None = "Cover generation failed"


def read_script(script: CoverScript | str) -> CoverScript:
    """The script itself, or the one whose looks the text names."""
    return CoverScript(looks=script) if isinstance(script, str) else script


@define(kw_only=True)
class Job:
    """One job; `looks` counts the answers its record has given."""

    task_id: str
    music_task_id: str
    script: CoverScript
    seconds: float
    visible_after: float
    created: Moment
    callback_url: str | None = None
    looks: int = 0
    ended_after: float | None = None

    @property
    def outcome(self) -> Literal["success", "failure", "never"]:
        """How it ends, or has ended."""
        for look in self.script.looks:
            if look.stage in ("success", "failure"):
                return look.stage
        return self.script.end

    @property
    def ends_by_look(self) -> bool:
        """Whether it ends when it is looked at, and not at a time that is known before."""
        return bool(self.script.looks) and self.script.seconds is None

    def end(self) -> None:
        """Has it ended from now on, if it has not yet."""
        if self.ended_after is None:
            self.ended_after = self.seconds

    def look(self, now: Moment) -> Look:
        """What the next look meets; counts it."""
        age = now.loop - self.created.loop
        scripted = self.script.looks
        look = scripted[min(self.looks, len(scripted) - 1)] if scripted else self._stage_at(age)
        self.looks += 1
        if look.stage in _ENDED and self.ended_after is None:
            self.ended_after = age if scripted else self.seconds
        return look

    def _stage_at(self, age: float) -> Look:
        if age < self.visible_after:
            return _LOOKS["missing"]
        if self.script.end == "never" or (age < self.seconds and self.ended_after is None):
            return _LOOKS["generating"]
        return _LOOKS[self.script.end]

    def image_paths(self) -> list[str]:
        """Paths as the vendor's image host has them: Unix seconds and 32 hexadecimal digits."""
        done = int(self.created.wall + (self.ended_after or 0.0))
        return [
            f"/s/{done}_{blake2b(f'{self.task_id}/{n}'.encode(), digest_size=16).hexdigest()}.png"
            for n in range(self.script.images)
        ]

    def image_urls(self, origin: str) -> list[str]:
        return [origin + path for path in self.image_paths()]

    def record(self, stage: Stage, image_url: str) -> dict[str, Any] | None:
        """The field `data` of the answer, its members in the order they were recorded in."""
        if stage == "missing":
            return None
        has_failed = stage == "failure"
        return {
            "taskId": self.task_id,
            "parentTaskId": self.music_task_id,
            "completeTime": self._complete_time() if stage in _ENDED else None,
            "response": self._response(stage, image_url),
            "successFlag": _FLAGS[stage],
            "errorCode": self.script.error_code if has_failed else None,
            "errorMessage": self.script.error_message if has_failed else None,
            "createTime": int(self.created.wall * 1000),
        }

    def _complete_time(self) -> int:
        return int((self.created.wall + (self.ended_after or 0.0)) * 1000)

    def _response(self, stage: Stage, image_url: str) -> dict[str, list[str]] | None:
        if stage == "success":
            return {"images": self.image_urls(image_url)}
        return {"images": []} if stage == "bare-success" else None


@define(kw_only=True)
class Studio:
    """Makes jobs. What is drawn for a song depends on the seed and the song's id alone, so that
    the order in which concurrent requests arrive changes nothing.
    """

    seed: int | str
    generation_time: Duration
    visible_after: float
    failure_rate: float
    stuck_rate: float
    scripts: dict[str, CoverScript] = field(factory=dict)

    def new_job(
        self,
        music_task_id: str,
        created: Moment,
        *,
        script: CoverScript | None = None,
        task_id: str | None = None,
        callback_url: str | None = None,
    ) -> Job:
        dice = Random(f"{self.seed}/{music_task_id}")
        own_id, end = f"{dice.getrandbits(128):032x}", self._end(dice.random())
        script = script or self.scripts.get(music_task_id) or CoverScript(end=end)
        seconds, unseen = script.seconds, script.visible_after
        return Job(
            task_id=task_id or own_id,
            music_task_id=music_task_id,
            script=script,
            seconds=drawn(self.generation_time, dice) if seconds is None else seconds,
            visible_after=self.visible_after if unseen is None else unseen,
            created=created,
            callback_url=callback_url,
        )

    def song_id(self, number: int) -> str:
        """An id for a song that nobody named."""
        return f"{Random(f'{self.seed}/song/{number}').getrandbits(128):032x}"

    def _end(self, roll: float) -> Literal["success", "failure", "never"]:
        if roll < self.failure_rate:
            return "failure"
        return "never" if roll < self.failure_rate + self.stuck_rate else "success"


def drawn(duration: Duration, dice: Random) -> float:
    """Seconds: the number itself, one out of the range, or what the callable makes of the dice."""
    if callable(duration):
        return duration(dice)
    return dice.uniform(*duration) if isinstance(duration, tuple) else duration
