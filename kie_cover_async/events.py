"""The events that observers receive: small frozen values, in the order in which they happen.

An observer is any callable of one argument, given as `CoverClient(observer=…)`, alone or with
others. It is called in the event loop, so it must be quick. An exception that it raises is logged
and otherwise ignored.
"""

import logging
from collections.abc import Callable, Iterable

from attrs import frozen

from .errors import KieCoverError
from .models import CoverDetails, CoverState
from .validation import short_repr, validate_plain_callable

_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class RequestFinished:
    """A request has ended, `duration` seconds after it was sent.

    `queue_time` is how many seconds it queued before that. `http_status` is `None` if there was no
    answer. `attempt` counts from 1 within one call; a wait counts each of its polls as a first one.
    """

    endpoint: str
    method: str
    task_id: str | None
    attempt: int
    http_status: int | None
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
    """A refusal paused all users of a rate limiter for `seconds`.

    `kind` is `"submits"` or `"polls"`, which stands for all other requests.
    """

    kind: str
    seconds: float
    error: KieCoverError


@frozen(kw_only=True)
class WaitStarted:
    """A wait for a cover began; `wait` is the same object for all the events of one wait."""

    task_id: str
    wait: object


@frozen(kw_only=True)
class CoverPolled:
    """A wait received the outcome of a poll, its own or a shared one: `details` or `error`.

    `age` is the job's, in seconds; `wait` is the same object for all the events of one wait.
    """

    task_id: str
    wait: object
    age: float
    details: CoverDetails | None
    error: KieCoverError | None


@frozen(kw_only=True)
class StateChanged:
    """A wait saw its job in another state than `previous_state`, which is `None` at first.

    It follows the `CoverPolled` of the same poll.
    """

    task_id: str
    wait: object
    age: float
    previous_state: CoverState | None
    details: CoverDetails


@frozen(kw_only=True)
class WaitFinished:
    """A wait ended: `outcome` is what it returned or raised.

    It is the details of the cover, a `KieCoverError`, or any other exception: a cancellation, or an
    error of its `on_update`.
    """

    task_id: str
    wait: object
    polls: int
    outcome: CoverDetails | BaseException


Event = (
    RequestFinished
    | RetryScheduled
    | RequestsPaused
    | WaitStarted
    | CoverPolled
    | StateChanged
    | WaitFinished
)
Observer = Callable[[Event], object]
Observers = tuple[Observer, ...]


def as_observers(given: Observer | Iterable[Observer] | None) -> Observers:
    """Return the observers: one, several or none.

    Raises:
        TypeError: It is anything else, or an async function, which nothing would await.
    """
    if given is None:
        return ()
    if callable(given):
        observers: Observers = (given,)
    elif isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        observers = tuple(given)
    else:
        raise TypeError(f"observer must be callable, or several callables, not {short_repr(given)}")
    for observer in observers:
        validate_plain_callable("observer", observer)
    return observers


def notify(observers: Observers, event: Event) -> None:
    """Call the observers; log what they raise, since it must not cost the caller a cover."""
    for observer in observers:
        try:
            observer(event)
        except Exception:  # noqa: BLE001 - the observer is the caller's code
            _log.exception("an observer failed on %s", type(event).__name__)
