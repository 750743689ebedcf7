"""What a schedule is: anything that can say when to poll again."""

from typing import Protocol, runtime_checkable

from kie_cover_async.models import CoverDetails


@runtime_checkable
class Schedule(Protocol):
    """Any object that can say when to poll again; one serves any number of waits."""

    def delay(self, age: float, pressure: float) -> float:
        """Seconds until the next poll of a job that is `age` seconds old.

        `pressure` is 1 while the rate limiter keeps up, and one more for every second that its
        queue will take. Only requests that have a place in flight queue there: of each client at
        most `max_concurrent_requests` are counted.
        """
        ...


@runtime_checkable
class Learner(Protocol):
    """A schedule that also wants to hear of the jobs that have ended."""

    def learn(self, details: CoverDetails) -> None:
        """Hear of a record in a terminal state, once per wait; what it raises is logged."""
        ...
