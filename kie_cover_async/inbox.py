"""What waits need of whoever hears of callbacks, so that they need not know who that is."""

from collections.abc import Callable
from typing import Protocol

from .validation import short_repr, validate_number


class Inbox(Protocol):
    """Who hears of callbacks; `kie_cover_async.callbacks.CallbackInbox` is one.

    `fallback_poll_interval` is how many seconds polls are apart while a callback is expected.
    """

    @property
    def fallback_poll_interval(self) -> float: ...

    def subscribe(self, task_id: str, listener: Callable[[], object]) -> Callable[[], object]:
        """Call the listener at each callback for this id, at once where there was one before.

        Returns what ends the subscription.
        """
        ...


def validate_inbox(given: Inbox | None) -> Inbox | None:
    """An inbox, or none; a class is none."""
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
