"""For tests of code that waits: an event loop in which waiting takes no time.

The fixtures that go with it are in the pytest plugin, which is a module beside this package.
"""

import asyncio
import math
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from types import CoroutineType
from typing import Any, TypeVar, TypeVarTuple, Unpack

from .polling import WaitState

__all__ = ["InstantTimeLoop"]

# Opening a connection over loopback takes three steps, each sent when the one before was read.
_ROUNDS = 3

# A wait that has polled so often, for so many seconds, and has a day before it, will never end.
_MOST_POLLS, _LONGEST_WAIT, _DAY = 1000, 4 * 3600.0, 86400.0
_CHECK_INTERVAL = 3600.0

_Ready = list[tuple[selectors.SelectorKey, int]]
_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")


class InstantTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer whenever there is nothing to do::

        with asyncio.Runner(loop_factory=InstantTimeLoop) as runner:
            runner.run(main())

    Sleeps, intervals and timeouts keep their lengths and their order, and nobody waits for them.
    While there is anything to do the clock stands still. Sockets work: the clock jumps only when
    all that was sent from within this loop has arrived. While a thread works that this loop
    started (`asyncio.to_thread`, `run_in_executor`, looking up a host name), waiting takes as long
    as it says.

    It is the loop's own clock that jumps, not `time.time()` or `time.monotonic()`, whose seconds
    the loop's `time()` had when it was made. Of what goes on elsewhere, in other processes or in
    threads of somebody else's making, the loop knows nothing: give it some `patience`.

    A wait for a cover that never ends would poll forever and never return. Running the loop raises
    `RuntimeError`, with the id, when such a wait has polled a thousand times in four hours or more.
    """

    def __init__(self) -> None:
        self._clock = _Clock(self._check_waits)
        super().__init__(self._clock)
        # Timers this near count as due; any less, and a clock that shows a year could not tell.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Seconds, as timers count them."""
        return self._clock.now

    @property
    def elapsed(self) -> float:
        """Seconds that seem to have passed since the loop was made."""
        return self._clock.now - self._clock.started

    @property
    def patience(self) -> float:
        """Real seconds for which news from elsewhere is awaited before each jump; 0 by default."""
        return self._clock.patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        self._clock.patience = seconds

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[Unpack[_Args]], _Result],
        *args: *_Args,
    ) -> asyncio.Future[_Result]:
        """Run it as usual; until the thread is done, waiting takes as long as it says."""
        working = super().run_in_executor(executor, func, *args)
        self._clock.threads += 1
        working.add_done_callback(self._clock.thread_is_done)
        return working

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        """Shut down as usual; the threads get the time that they really need."""
        self._clock.threads += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._clock.threads -= 1

    def _check_waits(self) -> None:
        now = self.time()
        for wait in _waits(self):
            is_endless = wait.deadline - now > _DAY and now - wait.started >= _LONGEST_WAIT
            if is_endless and wait.polls >= _MOST_POLLS:
                error = wait.timed_out(now)
                raise RuntimeError(
                    f"a wait polls forever in instant time: {error}; let its job end (in the "
                    'emulator: add_job("generating, success")), or give the wait a timeout'
                ) from error


def _waits(loop: asyncio.AbstractEventLoop) -> Iterator[WaitState]:
    """Yield the state of each wait that a task of this loop awaits."""
    for task in asyncio.all_tasks(loop):
        awaited: object = task.get_coro()
        while isinstance(awaited, CoroutineType) and awaited.cr_frame is not None:
            local = awaited.cr_frame.f_locals.values()
            yield from (value for value in local if isinstance(value, WaitState))
            awaited = awaited.cr_await


class _Clock(selectors.DefaultSelector):
    """The selector with which the loop waits for sockets or its next timer, and skips the wait."""

    def __init__(self, check: Callable[[], object]) -> None:
        super().__init__()
        self._check = check
        # Whole seconds, which add up as they would from 0.
        self.now = self.started = float(math.floor(time.monotonic()))
        self._checked = self.now
        self.patience = 0.0
        self.threads = 0
        self._probe = _Probe()

    def close(self) -> None:
        self._probe.close()
        super().close()

    def thread_is_done(self, _: asyncio.Future[Any]) -> None:
        self.threads -= 1

    def select(self, timeout: float | None = None) -> _Ready:
        """Return what is ready, or nothing and a clock `timeout` later if nothing is on its way."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)
        self._probe.go_round()
        ready = super().select(timeout if self.threads else min(self.patience, timeout))
        if not ready:
            self.now += timeout
            if self.now - self._checked >= _CHECK_INTERVAL:
                self._checked = self.now
                self._check()
        return ready


class _Probe:
    """A byte sent round over loopback: what was sent before it has arrived when it is back."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self._near = socket.create_connection(listening.getsockname())
            self._far, _ = listening.accept()
        for end in (self._near, self._far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def go_round(self) -> None:
        for _ in range(_ROUNDS):
            self._near.send(b"?")
            self._far.recv(1)
            self._far.send(b"!")
            self._near.recv(1)

    def close(self) -> None:
        self._near.close()
        self._far.close()
