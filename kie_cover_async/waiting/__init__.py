"""Looking at one job until it is terminal or time is up.

`state` decides and is pure; `wait` is the loop around it.
"""

from .state import OnUpdate, WaitState, WaitTerms
from .wait import Wait

__all__ = ["OnUpdate", "Wait", "WaitState", "WaitTerms"]
