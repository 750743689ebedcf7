"""How a client reads one cover: by a single look, or by looks until it is terminal."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from inspect import isawaitable

from . import wire
from .arguments import a_task_id
from .errors import KieCoverError
from .inbox import Inbox
from .looks import Ear, OnSent, SharedLooks, Sighting
from .models import CoverDetails
from .transport import Transport
from .turns import Ticket
from .waiting import Wait, WaitTerms

OnTaskId = Callable[[str], Awaitable[object] | object]


def _nothing() -> None:
    """Nobody listens."""


class Reader:
    """Looks over one transport, shared by all who read the same id at the same time."""

    def __init__(self, transport: Transport, inbox: Inbox | None = None) -> None:
        self._transport = transport
        self.looks: SharedLooks = SharedLooks(self._sight, inbox)

    async def details(self, task_id: str, flow: Hashable = None) -> CoverDetails:
        """What one look brings, repeated as the retry policy lets it.

        `flow` is whose turn the requests take, as in `RequestBudget.acquire`.
        """
        a_task_id("task_id", task_id)

        async def attempt() -> CoverDetails:
            heard = await self.looks.look(task_id, flow=flow)
            if isinstance(heard, KieCoverError):
                raise heard
            return heard.details

        with self._transport.lifetime.call(task_id):
            return await self._transport.repeated(attempt)

    async def wait(
        self, task_id: str, terms: WaitTerms, *, callback_to_come: bool = False
    ) -> CoverDetails:
        """The details of the finished cover; where a `callback_to_come`, looked for after it."""
        wait = Wait(
            ear=Ear(self.looks, a_task_id("task_id", task_id)),
            terms=terms,
            budget=self._transport.budget,
            observer=self._transport.observer,
            request_timeout=self._transport.exchange.request_timeout,
            awaits_call=callback_to_come and self.looks.inbox is not None,
        )
        with self._transport.lifetime.call(task_id):
            return await wait.run()

    def try_inbox(self, music_task_id: str) -> None:
        """Raise now what the inbox would raise when a wait subscribes: it may be another loop's."""
        a_task_id("music_task_id", music_task_id)
        if self.looks.inbox is not None:
            with self._transport.lifetime.call():
                self.looks.inbox.subscribe(music_task_id, _nothing)()

    async def wait_for_new(
        self, task_id: str, terms: WaitTerms, on_task_id: OnTaskId | None, *, callback_to_come: bool
    ) -> CoverDetails:
        """`wait`, after `on_task_id`; whatever is raised has the id of what was paid for."""
        try:
            if on_task_id is not None and isawaitable(noted := on_task_id(task_id)):
                await noted
            return await self.wait(task_id, terms, callback_to_come=callback_to_come)
        except BaseException as error:
            if getattr(error, "task_id", None) != task_id:
                error.add_note(f"the cover that was asked for is task {task_id}")
            raise

    async def _sight(self, task_id: str, on_sent: OnSent, ticket: Ticket) -> Sighting:
        call = wire.record_info(task_id)
        details, answer = await self._transport.once(call, ticket=ticket, on_sent=on_sent)
        return Sighting(details, answer.served_at, asyncio.get_running_loop().time())
