"""Cancel a task at each of its awaits: wherever that happens, nothing may be left behind."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

WHILE_WAITING = "while it waits"
AS_IT_WAKES = "as it wakes"


class CancelledAt:
    """Await a coroutine, and cancel the task at the await with this number.

    The task is cancelled while it waits, or after the awaited future is done and before the task
    is woken.
    """

    def __init__(self, wait: int, moment: str, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._wait, self._moment, self._coroutine = wait, moment, coroutine
        self.waits = 0

    @property
    def interrupted(self) -> bool:
        return self.waits > self._wait

    async def run(self) -> Any:
        return await self

    def __await__(self) -> Generator[Any, None, Any]:
        step: Callable[[], Any] = partial(self._coroutine.send, None)
        while True:
            try:
                awaited = step()
            except StopIteration as end:
                return end.value
            if self.waits == self._wait:
                self._interrupt(asyncio.current_task(), awaited)
            self.waits += 1
            try:
                yield awaited
                step = partial(self._coroutine.send, None)
            except BaseException as error:  # noqa: BLE001 - whatever is thrown in is passed on
                step = partial(self._coroutine.throw, error)

    def _interrupt(self, task: Any, awaited: Any) -> None:
        if self._moment == WHILE_WAITING or awaited is None:
            task.cancel()
        else:
            # Ahead of the task's own wakeup, which is added after this one.
            awaited.add_done_callback(lambda _: task.cancel())


def taken(places: Any) -> int:
    return places.limit - places._free


def leaked_state(client: Any) -> dict[str, int]:
    """Return what a call has left in the client, by name; zeros if it has left nothing."""
    transport, coalescer = client._transport, client._poller._coalescer
    session = transport.http_client._session
    return {
        "places": taken(transport.polls.places),
        "places of submits": taken(transport.submits.places),
        "queued": client.rate_limiter.queued,
        "queued submits": transport.submits.limiter.queued,
        "timer of the rate limiter": int(client.rate_limiter._timer is not None),
        "timer of the submits": int(transport.submits.limiter._timer is not None),
        "running": len(transport.open_calls._scopes),
        "in flight": len(coalescer._open_polls),
        "watching": len(coalescer.watchers),
        "connections": len(session.connector._acquired) if session else 0,
    }


async def cancel_at_each_await(begin: Callable[[str, int], Any], *, at_least: int = 1) -> None:
    """Cancel a call at its first await, at its second, and so on, until it has no more.

    `begin` is called with the moment and the number of the await. It makes an `CancelledAt` of
    them, awaits it, checks what was left, and returns it. Fewer than `at_least` awaits are an
    error.
    """
    for moment in (WHILE_WAITING, AS_IT_WAKES):
        wait = 0
        while (await begin(moment, wait)).interrupted:
            wait += 1
        assert wait >= at_least


def pending_timers() -> list[asyncio.TimerHandle]:
    """Return the timers of the running loop that were not cancelled."""
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]


def stall(seconds: float) -> None:
    """Block the loop for so many virtual seconds, in which no task runs."""
    loop: Any = asyncio.get_running_loop()
    loop.advance(seconds)
