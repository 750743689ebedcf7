"""Several workers behind one callback URL: the one that receives a callback notifies the others."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from kie_cover_async.callbacks import CallbackInbox


class Bus(Protocol):
    """A publish-subscribe channel of your workers: Redis, NATS, PostgreSQL's NOTIFY."""

    async def publish(self, task_id: str) -> None: ...

    def messages(self) -> AsyncIterator[str]: ...


async def receive_callback(
    inbox: CallbackInbox, bus: Bus, headers: Mapping[str, str], body: bytes
) -> None:
    callback = inbox.receive(headers, body)  # verified here, once
    await bus.publish(callback.task_id)


async def receive_notifications(inbox: CallbackInbox, bus: Bus) -> None:
    """Run this as a task for as long as the worker lives."""
    async for task_id in bus.messages():
        inbox.notify(task_id)
