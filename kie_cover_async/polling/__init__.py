"""The status of a cover, by one poll or by a wait.

`poller` is what the client calls. `coalescer` joins polls of one id that are in flight. `waiter` is
the loop of one wait, `task_watch` what it receives, and `state` what it decides.
"""

from .poller import OnTaskId, Poller
from .state import OnUpdate, WaitOptions

__all__ = ["OnTaskId", "OnUpdate", "Poller", "WaitOptions"]
