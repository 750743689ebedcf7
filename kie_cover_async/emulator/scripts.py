"""The script that a job follows, and the looks it is written in."""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from attrs import field, frozen, validators

from kie_cover_async.emulator import accepted
from kie_cover_async.emulator.faults import Fault

Stage = Literal["missing", "pending", "generating", "bare-success", "success", "failure"]

_pause_or_none: Final = validators.optional(accepted.pause)


class Look(NamedTuple):
    """What one look at a job meets: how far the record is, and what goes wrong with the answer."""

    stage: Stage
    fault: Fault | None = None


LOOKS: Final[dict[str, Look]] = {
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
    if look not in LOOKS:
        raise ValueError(f"no look is called {look!r}; there are {', '.join(LOOKS)} and faults")
    return LOOKS[look]


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

    seconds: float | None = field(default=None, validator=_pause_or_none)
    end: Literal["success", "failure", "never"] = field(
        default="success", validator=validators.in_(("success", "failure", "never"))
    )
    images: int = field(default=2, validator=accepted.whole_number)
    visible_after: float | None = field(default=None, validator=_pause_or_none)
    looks: tuple[Look, ...] = field(default=None, converter=_read_looks)
    error_code: int | str | None = 501
    error_message: str | None = "Cover generation failed"


def read_script(script: CoverScript | str) -> CoverScript:
    """The script itself, or the one whose looks the text names."""
    if isinstance(script, str):
        return CoverScript(looks=script)
    accepted.argument("script", script, accepted.a(CoverScript, "a script that is no text"))
    return script
