"""Cancelling at every await: what a task was waiting for when it was cancelled must not matter."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

WHILE_WAITING = "while it waits"
AS_IT_WAKES = "as it wakes"


class InterruptedAt:
    """Awaits a coroutine, and cancels the task at the wait of this number: in the middle of it, or
    in the moment in which what it waits for is there, but has not been taken yet."""

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
    """What of a call is still to be found in the client."""
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
        "in flight": len(coalescer._in_flight),
        "watching": len(coalescer.watchers),
        "connections": len(session.connector._acquired) if session else 0,
    }


async def interrupted_at_each(begin: Callable[[str, int], Any], *, at_least: int = 1) -> None:
    """Interrupt what is begun at its first wait, at its second and so on, until it has no more.

    `begin` is given the moment, and how many waits there were before; it makes an `InterruptedAt`
    of these, awaits it, checks what was left, and returns it. There have to be `at_least` so many
    waits.
    """
    for moment in (WHILE_WAITING, AS_IT_WAKES):
        wait = 0
        while (await begin(moment, wait)).interrupted:
            wait += 1
        assert wait >= at_least


def pending_timers() -> list[asyncio.TimerHandle]:
    """The timers of the running loop that nobody has cancelled."""
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]


def stall(seconds: float) -> None:
    """The loop is busy for this long: virtual time goes by, and nobody gets a turn meanwhile."""
    loop: Any = asyncio.get_running_loop()
    loop.advance(seconds)
