"""The status of a cover, by one poll or by a wait.

`poller` is what the client calls. `coalescer` joins polls of one id that are in flight. `waiter` is
the loop of one wait, `task_watch` what it receives, and `state` what it decides.
"""

from .coalescer import PollCoalescer, PolledRecord, PollOutcome
from .poller import OnTaskId, Poller
from .state import OnUpdate, WaitOptions, WaitState
from .task_watch import TaskWatch
from .waiter import Waiter

__all__ = [
    "OnTaskId",
    "OnUpdate",
    "PollCoalescer",
    "PollOutcome",
    "PolledRecord",
    "Poller",
    "TaskWatch",
    "WaitOptions",
    "WaitState",
    "Waiter",
]
