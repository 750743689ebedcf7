"""What is known of the callbacks that came: counts for a person, and what is to be done next."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import RenderableType
from rich.spinner import Spinner
from rich.text import Text

from kie_cover_async import CoverOutcome, InvalidResponseError, SignatureError
from kie_cover_async.callbacks import CallbackInbox, CoverCallback
from kie_cover_async.callbacks.inbox import RecentCallbacks

# A flood of callbacks without signatures fills this, and not the memory of the machine.
_MOST_WAITING = 10_000


class Reception:
    """Receives callbacks through an inbox, and shows how many."""

    def __init__(
        self, inbox: CallbackInbox, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._inbox = inbox
        self._heard, self._confirmed = RecentCallbacks(), RecentCallbacks()
        self._clock = clock
        self._waiting: asyncio.Queue[CoverCallback] = asyncio.Queue(_MOST_WAITING)
        self._spinner = Spinner("dots")

    def receive(self, headers: Any, body: bytes) -> CoverCallback:
        """As `CallbackInbox.receive`."""
        try:
            callback = self._inbox.receive(headers, body)
        except SignatureError as error:
            self.counts[f"signature {error.reason}"] += 1
            raise
        except InvalidResponseError:
            self.counts["unreadable"] += 1
            raise
        self._take(callback)
        return callback

    async def next(self) -> CoverCallback:
        """The next one that is new, when it comes."""
        return await self._waiting.get()

    def count(self, outcome: CoverOutcome) -> bool:
        """Take in what a poll has shown; whether that is the end which was claimed."""
        is_confirmed = outcome.ok and outcome.result().is_terminal
        self.counts["confirmed" if is_confirmed else "not confirmed"] += 1
        if is_confirmed:
            self._confirmed.add(outcome.task_id, self._clock())
        return is_confirmed

    def knows_the_end(self, task_id: str) -> bool:
        """Whether there is nothing new to be heard of it: its end is confirmed."""
        return self._confirmed.contains(task_id, self._clock())

    def summary(self) -> str:
        """All counts in one line."""
        counts = [f"{count:,} {what}" for what, count in list(self.counts.items())]
        return "callbacks: " + (", ".join(counts) or "none")

    def __rich__(self) -> RenderableType:
        spinner = self._spinner.render(self._clock())
        return Text.assemble((f"{spinner} ", "cyan"), self.summary())

    def _take(self, callback: CoverCallback) -> None:
        is_repeated = self._heard.is_duplicate(callback.task_id, hash(callback), self._clock())
        if is_repeated or self.knows_the_end(callback.task_id):
            self.counts["repeated"] += 1
        elif self._waiting.full():
            self.counts["too many at once"] += 1
        else:
            self.counts["received"] += 1
            self._waiting.put_nowait(callback)
