"""The script that a job follows, and the statuses it is written in."""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from attrs import field, frozen, validators

from kie_cover_async.emulator import accepted
from kie_cover_async.emulator.faults import Fault

Stage = Literal["missing", "pending", "generating", "bare-success", "success", "failure"]

_pause_or_none: Final = validators.optional(accepted.pause)


class Status(NamedTuple):
    """What one poll of a job meets: how far the record is, and what goes wrong with the answer."""

    stage: Stage
    fault: Fault | None = None


STATUSES: Final[dict[str, Status]] = {
    "missing": Status("missing"),
    "pending": Status("pending"),
    "generating": Status("generating"),
    "bare-success": Status("bare-success"),
    "success": Status("success"),
    "failure": Status("failure"),
    "429": Status("generating", Fault.rate_limited()),
    "500": Status("generating", Fault.server_error()),
}
ScriptedStatus = str | Fault | tuple[str, Fault]


def _read_status(status: ScriptedStatus) -> Status:
    if isinstance(status, Fault):
        return Status("generating", status)
    if isinstance(status, tuple):
        return Status(_read_status(status[0]).stage, status[1])
    if status not in STATUSES:
        raise ValueError(
            f"no status is called {status!r}; there are {', '.join(STATUSES)} and faults"
        )
    return STATUSES[status]


def _read_statuses(statuses: Iterable[ScriptedStatus] | None) -> tuple[Status, ...]:
    if isinstance(statuses, str):
        statuses = [status.strip() for status in statuses.split(",")]
    return tuple(map(_read_status, statuses or ()))


@frozen(kw_only=True)
class CoverScript:
    """How one job goes.

    By time: the job is invisible (`data: null`) for `visible_after` seconds, is being generated
    until `seconds` after its creation, and then ends as `end` says. Where either is `None`, the
    emulator's own setting is used.

    Or poll by poll: `statuses` scripts the answers one by one, and the last is repeated. Each is
    `missing` (`data: null`), `pending` (flag 0), `generating` (flag 2), `success`, `failure`
    (flag 3), `bare-success` (flag 1, no images yet), `429`, `500`, a `Fault` met while the cover
    is being generated, or a pair such as `("success", Fault.truncated_json())`. Where all are
    words, they may be one text: `statuses="pending, generating, 429, success"`.

    `images` is the number of images of a success; `error_code` and `error_message` are written
    into the record of a failure.

    The callback is sent at the end. Where statuses are scripted, that is when the first one that
    says `success` or `failure` has been asked for; or `seconds` after the creation if they are
    given here, whatever the statuses say by then.
    """

    seconds: float | None = field(default=None, validator=_pause_or_none)
    end: Literal["success", "failure", "never"] = field(
        default="success", validator=validators.in_(("success", "failure", "never"))
    )
    images: int = field(default=2, validator=accepted.whole_number)
    visible_after: float | None = field(default=None, validator=_pause_or_none)
    statuses: tuple[Status, ...] = field(default=None, converter=_read_statuses)
    error_code: int | str | None = 501
    error_message: str | None = "Cover generation failed"


def read_script(script: CoverScript | str) -> CoverScript:
    """The script itself, or the one whose statuses the text names."""
    if isinstance(script, str):
        return CoverScript(statuses=script)
    accepted.argument("script", script, accepted.a(CoverScript, "a script that is no text"))
    return script
