"""How a client reads one cover: by a single poll, or by polls until it is terminal."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from inspect import isawaitable

from kie_cover_async import api
from kie_cover_async.errors import KieCoverError
from kie_cover_async.fair_queue import QueueEntry
from kie_cover_async.inbox import Inbox
from kie_cover_async.models import CoverDetails
from kie_cover_async.transport import Transport
from kie_cover_async.validation import validate_task_id

from .coalescer import OnSent, PollCoalescer, PollResult
from .state import WaitOptions
from .task_watch import TaskWatch
from .waiter import Waiter

OnTaskId = Callable[[str], Awaitable[object] | object]


def _nothing() -> None:
    """Nobody listens."""


class Poller:
    """Polls over one transport, shared by all who read the same id at the same time."""

    def __init__(self, transport: Transport, inbox: Inbox | None = None) -> None:
        self._transport = transport
        self.coalescer: PollCoalescer = PollCoalescer(self._poll, inbox)

    async def details(self, task_id: str, flow: Hashable = None) -> CoverDetails:
        """What one poll brings, repeated as the retry policy lets it.

        `flow` is whose turn the requests take, as in `RateLimiter.acquire`.
        """
        validate_task_id("task_id", task_id)

        async def attempt() -> CoverDetails:
            result = await self.coalescer.poll(task_id, flow=flow)
            if isinstance(result, KieCoverError):
                raise result
            return result.details

        with self._transport.lifetime.call(task_id):
            return await self._transport.repeated(attempt)

    async def wait(
        self, task_id: str, options: WaitOptions, *, callback_to_come: bool = False
    ) -> CoverDetails:
        """The details of the finished cover; where a `callback_to_come`, looked for after it."""
        wait = Waiter(
            watch=TaskWatch(self.coalescer, validate_task_id("task_id", task_id)),
            options=options,
            rate_limiter=self._transport.rate_limiter,
            observer=self._transport.observer,
            request_timeout=self._transport.http_client.request_timeout,
            awaits_callback=callback_to_come and self.coalescer.inbox is not None,
        )
        with self._transport.lifetime.call(task_id):
            return await wait.run()

    def try_inbox(self, music_task_id: str) -> None:
        """Raise now what the inbox would raise when a wait subscribes: it may be another loop's."""
        validate_task_id("music_task_id", music_task_id)
        if self.coalescer.inbox is not None:
            with self._transport.lifetime.call():
                self.coalescer.inbox.subscribe(music_task_id, _nothing)()

    async def wait_for_new(
        self,
        task_id: str,
        options: WaitOptions,
        on_task_id: OnTaskId | None,
        *,
        callback_to_come: bool,
    ) -> CoverDetails:
        """`wait`, after `on_task_id`; whatever is raised has the id of what was paid for."""
        try:
            if on_task_id is not None and isawaitable(noted := on_task_id(task_id)):
                await noted
            return await self.wait(task_id, options, callback_to_come=callback_to_come)
        except BaseException as error:
            if getattr(error, "task_id", None) != task_id:
                error.add_note(f"the cover that was asked for is task {task_id}")
            raise

    async def _poll(self, task_id: str, on_sent: OnSent, entry: QueueEntry) -> PollResult:
        request = api.record_info(task_id)
        details, response = await self._transport.send(request, entry=entry, on_sent=on_sent)
        return PollResult(details, response.served_at, asyncio.get_running_loop().time())
