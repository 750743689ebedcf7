"""Several workers behind one callback URL: the one that is called tells the others."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from kie_cover_async.callbacks import CallbackInbox


class Bus(Protocol):
    """What your workers have in common: Redis, NATS, PostgreSQL's NOTIFY."""

    async def publish(self, task_id: str) -> None: ...

    def messages(self) -> AsyncIterator[str]: ...


async def called_back(
    inbox: CallbackInbox, bus: Bus, headers: Mapping[str, str], body: bytes
) -> None:
    callback = inbox.receive(headers, body)  # verified here, once
    await bus.publish(callback.task_id)


async def hear_of_others(inbox: CallbackInbox, bus: Bus) -> None:
    """To be run as a task, for the life of the worker."""
    async for task_id in bus.messages():
        inbox.notify(task_id)
