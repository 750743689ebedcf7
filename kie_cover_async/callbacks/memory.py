"""Which ids were called of, and with what: for a while, and not without bound."""

from collections import OrderedDict, deque

from attrs import define, field

# An early callback is early by seconds; a vendor's repetition comes within minutes.
_REMEMBERED_FOR = 3600.0
_MOST_IDS = 10_000
_MOST_WORDINGS = 4


@define(eq=False)
class _Heard:
    at: float
    wordings: deque[int] = field(factory=lambda: deque(maxlen=_MOST_WORDINGS))


class Memory:
    """What was heard in the last hour, of at most ten thousand ids. Times are `loop.time()`."""

    def __init__(self) -> None:
        self._heard: OrderedDict[str, _Heard] = OrderedDict()

    def knows(self, task_id: str, now: float) -> bool:
        """Whether there was a callback for this id."""
        self._forget(now)
        return task_id in self._heard

    def repeats(self, task_id: str, wording: int, now: float) -> bool:
        """Whether this id was called of in the same words before; if not, they are noted."""
        wordings = self.note(task_id, now).wordings
        if wording in wordings:
            return True
        wordings.append(wording)
        return False

    def note(self, task_id: str, now: float) -> _Heard:
        """Remember that there was a callback for this id."""
        self._forget(now)
        heard = self._heard.setdefault(task_id, _Heard(now))
        heard.at = now
        self._heard.move_to_end(task_id)
        if len(self._heard) > _MOST_IDS:
            self._heard.popitem(last=False)
        return heard

    def _forget(self, now: float) -> None:
        while self._heard and now - next(iter(self._heard.values())).at >= _REMEMBERED_FOR:
            self._heard.popitem(last=False)
