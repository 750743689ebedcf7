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
    tell,
)

ERROR = ServerError(code=500)
EVENTS = [
    RequestFinished(endpoint="credit", task_id=None, queue_time=0.0, duration=0.1, error=None),
    RetryScheduled(task_id="a", attempt=1, delay=0.5, error=ERROR),
    RequestsPaused(seconds=7.0, error=ERROR),
    CoverPolled(task_id="a", wait=object(), age=3.0, details=CoverDetails(task_id="a"), error=None),
    StateChanged(
        task_id="a", wait=object(), age=3.0, previous_state=None, details=CoverDetails(task_id="a")
    ),
]

every_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


class Failing:
    def __init__(self, error):
        self.error = error

    def __call__(self, event):
        raise self.error


@every_event
def test_an_observer_hears_the_event(event):
    """The observer is called with the event itself, and what it returns does not matter."""
    heard = []
    tell(lambda event: heard.append(event) or "thanks", event)
    assert heard == [event]


@every_event
def test_a_failing_observer_harms_nobody(event, caplog):
    """What an observer raises is logged with its traceback, and goes no further."""
    with caplog.at_level(logging.ERROR, "kie_cover_async"):
        tell(Failing(ZeroDivisionError("oops")), event)
    (entry,) = caplog.records
    assert entry.getMessage() == f"the observer failed on {type(event).__name__}"
    assert entry.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt])
def test_a_cancellation_is_no_failure_of_an_observer(error):
    """What ends a task or the program passes through."""
    with pytest.raises(error):
        tell(Failing(error()), EVENTS[0])


@every_event
def test_events_are_values(event):
    """An event cannot be changed by one who hears it, and its facts are named."""
    name = attrs.fields(type(event))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(event, name, None)
    with pytest.raises(TypeError, match="positional"):
        type(event)("a")
