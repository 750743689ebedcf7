"""When to poll again: the `Schedule` protocol and its implementations."""

from .adaptive import AdaptiveSchedule
from .exponential import ExponentialSchedule, exponential
from .protocol import Learner, Schedule

__all__ = ["AdaptiveSchedule", "ExponentialSchedule", "Learner", "Schedule", "exponential"]
