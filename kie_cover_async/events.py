"""What an observer hears of: small frozen facts, in the order in which they happen.

An observer is any callable of one argument, given as `CoverClient(observer=…)`. It is called in the
event loop, so it must be quick; what it raises is logged and otherwise ignored.
"""

import logging
from collections.abc import Callable

from attrs import frozen

from .errors import KieCoverError
from .models import CoverDetails, CoverState

_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class RequestFinished:
    """A request has ended: `duration` from when it was sent, `queue_time` seconds before that."""

    endpoint: str
    task_id: str | None
    queue_time: float
    duration: float
    error: KieCoverError | None


@frozen(kw_only=True)
class RetryScheduled:
    """A single call is repeated after `delay` seconds; attempt number `attempt` failed."""

    task_id: str | None
    attempt: int
    delay: float
    error: KieCoverError


@frozen(kw_only=True)
class RequestsPaused:
    """A refusal stopped every user of the rate limiter for `seconds`."""

    seconds: float
    error: KieCoverError


@frozen(kw_only=True)
class CoverPolled:
    """A wait heard an answer, its own or a shared one: `details` or `error`.

    `age` is the job's, in seconds; `wait` is the same object for all the events of one wait.
    """

    task_id: str
    wait: object
    age: float
    details: CoverDetails | None
    error: KieCoverError | None


@frozen(kw_only=True)
class StateChanged:
    """A wait saw its job in another state than `previous_state`, which is `None` at the first poll
    result.

    It follows the `CoverPolled` of the same poll.
    """

    task_id: str
    wait: object
    age: float
    previous_state: CoverState | None
    details: CoverDetails


Event = RequestFinished | RetryScheduled | RequestsPaused | CoverPolled | StateChanged
Observer = Callable[[Event], object]


def tell(observer: Observer, event: Event) -> None:
    """Let an observer hear of an event; what it raises must not cost anybody a cover."""
    try:
        observer(event)
    except Exception:  # noqa: BLE001 - the observer is somebody else's code
        _log.exception("the observer failed on %s", type(event).__name__)
