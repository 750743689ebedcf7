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
class RequestDone:
    """A request has ended: `seconds` from when it was sent, `queued` seconds before that."""

    endpoint: str
    task_id: str | None
    queued: float
    seconds: float
    error: KieCoverError | None


@frozen(kw_only=True)
class RetryPlanned:
    """A single call is repeated after `pause` seconds; `tries` have been made."""

    task_id: str | None
    tries: int
    pause: float
    error: KieCoverError


@frozen(kw_only=True)
class BudgetHeld:
    """A refusal stopped every user of the budget for `seconds`."""

    seconds: float
    error: KieCoverError


@frozen(kw_only=True)
class CoverLooked:
    """A wait heard an answer, its own or a shared one: `details` or `error`.

    `age` is the job's, in seconds; `wait` is the same object for all the events of one wait.
    """

    task_id: str
    wait: object
    age: float
    details: CoverDetails | None
    error: KieCoverError | None


@frozen(kw_only=True)
class CoverChanged:
    """A wait saw its job in another state than `before`, which is `None` at the first sighting.

    It follows the `CoverLooked` of the same look.
    """

    task_id: str
    wait: object
    age: float
    before: CoverState | None
    details: CoverDetails


Event = RequestDone | RetryPlanned | BudgetHeld | CoverLooked | CoverChanged
Observer = Callable[[Event], object]


def tell(observer: Observer, event: Event) -> None:
    """Let an observer hear of an event; what it raises must not cost anybody a cover."""
    try:
        observer(event)
    except Exception:  # noqa: BLE001 - the observer is somebody else's code
        _log.exception("the observer failed on %s", type(event).__name__)
