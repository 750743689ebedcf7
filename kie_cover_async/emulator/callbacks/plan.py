"""Which callbacks a job gets, and when. Everything is drawn here; no clock is read."""

from random import Random
from typing import Literal, NamedTuple

from attrs import field, frozen

from kie_cover_async.emulator import accepted
from kie_cover_async.emulator.jobs import Duration, drawn

Kind = Literal["genuine", "repeated", "wrong-signature", "forged"]


class Posting(NamedTuple):
    """A callback to be sent, so many seconds after the event it belongs to."""

    kind: Kind
    after: float


class Course(NamedTuple):
    """The callbacks of one job: those sent after its creation, and those after its end."""

    from_creation: tuple[Posting, ...]
    from_end: tuple[Posting, ...]


@frozen(kw_only=True)
class CallbackPlan:
    """How the emulator calls back, and what goes wrong with it.

    Shares are of the jobs that have a callback URL, from 0 to 1; which jobs they strike follows
    from the seed and the song. Seconds are a number, a range to draw from evenly, or a callable
    that is given a `random.Random`.

    - `delay`: seconds from the end of a job to its callback. A range lets some overtake others.
    - `late`, `late_by`: the share that comes later still, and by how many seconds.
    - `lost`: the share that is never sent.
    - `duplicated`, `duplicate_after`: the share that is sent a second time although the first was
      accepted, and how many seconds after it.
    - `wrong_signature`: the share that is signed with a key that nobody has, each time.
    - `forged`: the share for which somebody else posts a success with images of
      `https://forged.example`, under a signature that is right. It comes before the job has ended,
      or up to a second after the genuine one, or instead of it.
    - `response_timeout`: seconds in which HTTP 200 must have come. Anything else is a failed try.
    - `max_attempts`, `retry_interval`: how many failed tries are the end of it, and how many
      seconds lie between two. The service gives up after three in 15 s each; its spacing is not
      known.
    - `allow_remote`: whether to post to other machines. Where it is `False`, such callbacks are
      logged and dropped.
    """

    delay: Duration = field(default=0.0, validator=accepted.duration)
    late: float = field(default=0.0, validator=accepted.share)
    late_by: Duration = field(default=(1.0, 5.0), validator=accepted.duration)
    lost: float = field(default=0.0, validator=accepted.share)
    duplicated: float = field(default=0.0, validator=accepted.share)
    duplicate_after: Duration = field(default=(0.0, 1.0), validator=accepted.duration)
    wrong_signature: float = field(default=0.0, validator=accepted.share)
    forged: float = field(default=0.0, validator=accepted.share)
    response_timeout: float = field(default=15.0, validator=accepted.limit)
    max_attempts: int = field(default=3, validator=accepted.number_of_times)
    retry_interval: float = field(default=1.0, validator=accepted.pause)
    allow_remote: bool = field(default=False, validator=accepted.yes_or_no)

    def course(self, dice: Random, seconds: float) -> Course:
        """What this job gets; it takes `seconds`, or 0 where only its polls know its end."""
        # All is drawn whatever the shares, so that one of them changes nothing for the others.
        late, lost, duplicated, wrong, forged, place, moment = (dice.random() for _ in range(7))
        spans = (self.delay, self.late_by, self.duplicate_after)
        delay, late_by, duplicate_after = (drawn(span, dice) for span in spans)
        due = delay + (late_by if late < self.late else 0.0)
        kinds: tuple[Kind, Kind] = ("genuine", "repeated")
        if wrong < self.wrong_signature:
            kinds = ("wrong-signature", "wrong-signature")
        pair = (Posting(kinds[0], due), Posting(kinds[1], due + duplicate_after))
        genuine = () if lost < self.lost else pair[: 2 if duplicated < self.duplicated else 1]
        if forged >= self.forged:
            return Course((), genuine)
        if place < 1 / 3:
            return Course((Posting("forged", moment * seconds),), genuine)
        if place < 2 / 3:
            return Course((), (*genuine, Posting("forged", due + moment)))
        return Course((), (Posting("forged", due),))
