"""How a client waits: polls of one id, joined with those of all other callers.

`poller` is what the client calls. `coalescer` joins polls that are in flight, `results` is what
they come to. `waiter` is the loop of one wait, `task_watch` what it receives, and `state` what it
decides.
"""

from .coalescer import PollCoalescer
from .poller import OnTaskId, Poller
from .results import PollOutcome, PollResult
from .state import OnUpdate, WaitOptions, WaitState
from .task_watch import TaskWatch
from .waiter import Waiter

__all__ = [
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
