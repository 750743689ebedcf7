"""How a client reads one cover: by a single look, or by looks until it is terminal."""

import asyncio
from collections.abc import Hashable

from . import wire
from .arguments import a_task_id
from .errors import KieCoverError
from .inbox import Inbox
from .looks import Ear, OnSent, SharedLooks, Sighting
from .models import CoverDetails
from .transport import Transport
from .turns import Ticket
from .waiting import Wait, WaitTerms


class Reader:
    """Looks over one transport, shared by all who read the same id at the same time.

    `flow` is whose turn the requests take, as in `RequestBudget.acquire`.
    """

    def __init__(self, transport: Transport, inbox: Inbox | None = None) -> None:
        self._transport = transport
        self.looks: SharedLooks = SharedLooks(self._sight, inbox)

    async def details(self, task_id: str, flow: Hashable = None) -> CoverDetails:
        """What one look brings, repeated as the retry policy lets it."""
        a_task_id("task_id", task_id)

        async def attempt() -> CoverDetails:
            heard = await self.looks.look(task_id, flow=flow)
            if isinstance(heard, KieCoverError):
                raise heard
            return heard.details

        with self._transport.lifetime.call(task_id):
            return await self._transport.repeated(attempt)

    async def wait(
        self,
        task_id: str,
        terms: WaitTerms,
        flow: Hashable = None,
        *,
        callback_to_come: bool = False,
    ) -> CoverDetails:
        """The details of the finished cover; where a `callback_to_come`, looked for after it."""
        wait = Wait(
            ear=Ear(self.looks, a_task_id("task_id", task_id), flow),
            terms=terms,
            budget=self._transport.budget,
            observer=self._transport.observer,
            awaits_call=callback_to_come and self.looks.inbox is not None,
        )
        with self._transport.lifetime.call(task_id):
            return await wait.run()

    async def _sight(self, task_id: str, on_sent: OnSent, ticket: Ticket) -> Sighting:
        call = wire.record_info(task_id)
        details, answer = await self._transport.once(call, ticket=ticket, on_sent=on_sent)
        return Sighting(details, answer.served_at, asyncio.get_running_loop().time())
