"""Polling a cover's status: once, or until the job is terminal or time is up.

`poller` is what a client uses. `coalescer` has calls for one id share a request, and `task_watch`
is how one wait learns of poll results and of callbacks. `state` decides what follows from them and
is pure; `waiter` is the loop around it.
"""

from .coalescer import OnSent, PollCoalescer, PollOutcome, PollResult
from .poller import OnTaskId, Poller
from .state import OnUpdate, WaitOptions, WaitState
from .task_watch import TaskWatch
from .waiter import Waiter

__all__ = [
    "OnSent",
    "OnTaskId",
    "OnUpdate",
    "PollCoalescer",
    "PollOutcome",
    "PollResult",
    "Poller",
    "TaskWatch",
    "WaitOptions",
    "WaitState",
    "Waiter",
]
