"""The protocol by which waits subscribe to callbacks."""

from collections.abc import Callable
from typing import Protocol

from .validation import short_repr, validate_number


class Inbox(Protocol):
    """Receives callbacks; `kie_cover_async.callbacks.CallbackInbox` is one.

    `fallback_poll_interval` is the number of seconds between polls while a callback is expected.
    """

    @property
    def fallback_poll_interval(self) -> float: ...

    def subscribe(self, task_id: str, listener: Callable[[], object]) -> Callable[[], object]:
        """Call the listener for each callback for this id, immediately if there was one before.

        Return a function that ends the subscription.
        """
        ...


def validate_inbox(given: Inbox | None) -> Inbox | None:
    """Return the inbox, which may be `None` but not a class."""
    if given is None:
        return None
    if isinstance(given, type) or not callable(getattr(given, "subscribe", None)):
        raise TypeError(
            f"inbox must have a method subscribe(task_id, listener), not {short_repr(given)}"
        )
    validate_number(
        "inbox.fallback_poll_interval", getattr(given, "fallback_poll_interval", None), at_least=0
    )
    return given
