"""A cover job, and what its record says at a moment that is given."""

from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any, Final, Literal, NamedTuple

from attrs import define, field

from kie_cover_async.emulator import accepted
from kie_cover_async.emulator.scripts import STATUSES, CoverScript, Stage, Status

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


@define(kw_only=True)
class Job:
    """One job; `polls` counts the answers its record has given."""

    task_id: str
    music_task_id: str
    script: CoverScript
    seconds: float
    visible_after: float
    created: Moment
    callback_url: str | None = None
    polls: int = 0
    ended_after: float | None = None

    @property
    def outcome(self) -> Literal["success", "failure", "never"]:
        """How it ends, or has ended."""
        for status in self.script.statuses:
            if status.stage in ("success", "failure"):
                return status.stage
        return self.script.end

    @property
    def ends_by_poll(self) -> bool:
        """Whether it ends when it is polled, and not at a time that is known before."""
        return bool(self.script.statuses) and self.script.seconds is None

    def end(self) -> None:
        """Has it ended from now on, if it has not yet."""
        if self.ended_after is None:
            self.ended_after = self.seconds

    def poll(self, now: Moment) -> Status:
        """What the next poll meets; counts it."""
        age = now.loop - self.created.loop
        scripted = self.script.statuses
        status = scripted[min(self.polls, len(scripted) - 1)] if scripted else self._stage_at(age)
        self.polls += 1
        if status.stage in _ENDED and self.ended_after is None:
            self.ended_after = age if scripted else self.seconds
        return status

    def _stage_at(self, age: float) -> Status:
        if age < self.visible_after:
            return STATUSES["missing"]
        if self.script.end == "never" or (age < self.seconds and self.ended_after is None):
            return STATUSES["generating"]
        return STATUSES[self.script.end]

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
    generation_time: Duration = field(validator=accepted.duration)
    visible_after: float = field(validator=accepted.pause)
    failure_rate: float = field(validator=accepted.share)
    stuck_rate: float = field(validator=accepted.share)
    scripts: dict[str, CoverScript] = field(factory=dict)

    @stuck_rate.validator
    def _leaves_room(self, _: Any, rate: float) -> None:
        if self.failure_rate + rate > 1:
            shares = f"not {self.failure_rate!r} and {rate!r}"
            raise ValueError(f"failure_rate and stuck_rate must be at most 1 together, {shares}")

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
