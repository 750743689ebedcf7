import asyncio
import logging

import attrs
import pytest

from kie_cover_async import CoverDetails, ServerError
from kie_cover_async.events import (
    CoverPolled,
    RequestFinished,
    RequestsPaused,
    RetryScheduled,
    StateChanged,
    WaitFinished,
    WaitStarted,
    as_observers,
    notify,
)

ERROR = ServerError(code=500)
DETAILS = CoverDetails(task_id="a")
EVENTS = [
    RequestFinished(
        endpoint="credit",
        method="GET",
        task_id=None,
        attempt=1,
        http_status=200,
        queue_time=0.0,
        duration=0.1,
        error=None,
    ),
    RetryScheduled(task_id="a", attempt=1, delay=0.5, error=ERROR),
    RequestsPaused(kind="polls", seconds=7.0, error=ERROR),
    WaitStarted(task_id="a", wait=object()),
    CoverPolled(task_id="a", wait=object(), age=3.0, details=DETAILS, error=None),
    StateChanged(task_id="a", wait=object(), age=3.0, previous_state=None, details=DETAILS),
    WaitFinished(task_id="a", wait=object(), polls=3, outcome=DETAILS),
]

every_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


class Failing:
    def __init__(self, error):
        self.error = error

    def __call__(self, event):
        raise self.error


async def note_later(event):
    """Do nothing: nothing awaits an async observer."""


class AsyncObserver:
    async def __call__(self, event):
        """Do nothing either."""


@every_event
def test_observers_are_called_with_the_event(event):
    """Each observer is called with the event itself, in order; what it returns does not matter."""
    received = []
    observers = [
        lambda event: received.append((1, event)) or "thanks",
        lambda event: received.append((2, event)),
    ]
    notify(as_observers(observers), event)
    assert received == [(1, event), (2, event)]


@every_event
def test_a_failing_observer_harms_neither_the_caller_nor_other_observers(event, caplog):
    """What an observer raises is logged with its traceback, and the others are called."""
    received = []
    with caplog.at_level(logging.ERROR, "kie_cover_async"):
        notify((Failing(ZeroDivisionError("oops")), received.append), event)
    (entry,) = caplog.records
    assert entry.getMessage() == f"an observer failed on {type(event).__name__}"
    assert entry.exc_info[0] is ZeroDivisionError
    assert received == [event]


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt])
def test_a_cancellation_passes_through_an_observer(error):
    """A cancellation or exit raised in an observer is passed on."""
    with pytest.raises(error):
        notify((Failing(error()),), EVENTS[0])


@every_event
def test_events_are_values(event):
    """An event cannot be changed by an observer, and its facts are named."""
    name = attrs.fields(type(event))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(event, name, None)
    with pytest.raises(TypeError, match="positional"):
        type(event)("a")


def test_observers_are_one_callable_an_iterable_or_none():
    """Observers are given as one callable, as any iterable of them, or not at all."""
    one, other = Failing(ERROR), print
    assert as_observers(None) == as_observers([]) == ()
    assert as_observers(one) == (one,)
    assert as_observers([one, other]) == as_observers(each for each in (one, other)) == (one, other)


@pytest.mark.parametrize("given", [5, "print", b"print", True], ids=repr)
def test_an_observer_that_is_not_callable_is_rejected(given):
    """The error names the argument and the given value."""
    expected = f"observer must be callable, or several callables, not {given!r}"
    with pytest.raises(TypeError) as caught:
        as_observers(given)
    assert str(caught.value) == expected


def test_a_non_callable_among_observers_is_rejected():
    """The error shows the one that cannot be called."""
    with pytest.raises(TypeError, match="observer must be callable, not 'log'"):
        as_observers([print, "log"])


@pytest.mark.parametrize("several", [False, True], ids=["alone", "among several"])
@pytest.mark.parametrize("observer", [note_later, AsyncObserver()], ids=["function", "object"])
def test_an_async_observer_is_rejected_by_name(observer, several):
    """No code would await its result; the error says which observer it is."""
    name = getattr(observer, "__name__", type(observer).__name__)
    with pytest.raises(
        TypeError, match=f"observer must be a plain function, not the async.*{name}"
    ):
        as_observers([print, observer] if several else observer)
