"""An event loop for tests, in which waiting takes no time.

Its fixtures are in the pytest plugin, a module outside this package.
"""

import asyncio
import math
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from types import CoroutineType
from typing import Any, ClassVar, TypeVar, TypeVarTuple, Unpack

from .polling.state import WaitState

__all__ = ["InstantTimeLoop"]

# Opening a loopback connection takes three steps, each sent when the one before was read.
_ROUND_TRIPS = 3

# A wait that has polled so often, for so many seconds, and has a day left will never end.
_ENDLESS_POLLS, _ENDLESS_SECONDS, _DAY = 1000, 4 * 3600.0, 86400.0
_CHECK_INTERVAL = 3600.0

_Ready = list[tuple[selectors.SelectorKey, int]]
_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")


class JumpingClock(selectors.DefaultSelector):
    """The loop's selector, which moves the clock instead of waiting for the next timer."""

    def __init__(self, loop: "InstantTimeLoop") -> None:
        super().__init__()
        self._loop = loop
        # Whole seconds, to which fractions are added almost as exactly as to 0.
        self.started: float = float(math.floor(time.monotonic()))
        self.now: float = self.started
        self._checked = self.now
        self.patience: float = 0.0
        self.threads: int = 0
        self._probe = _Probe()

    def close(self) -> None:
        self._probe.close()
        super().close()

    def on_thread_done(self, _: asyncio.Future[Any]) -> None:
        self.threads -= 1

    def select(self, timeout: float | None = None) -> _Ready:
        """Return the events that are ready; if none is on its way, jump and return none."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)
        # One file is the loop's own, by which threads and signals wake it.
        if len(self.get_map()) > 1:
            self._probe.make_round_trips()
        ready = super().select(timeout if self.threads else min(self.patience, timeout))
        if not ready:
            self._jump()
        return ready

    def _jump(self) -> None:
        # To the timer's own time: adding up the waits would add up rounding errors.
        self.now = self._loop.next_timer()
        if self.now - self._checked >= _CHECK_INTERVAL:
            self._checked = self.now
            self._loop.check_waits()


class InstantTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer whenever there is nothing to do::

        with asyncio.Runner(loop_factory=InstantTimeLoop) as runner:
            runner.run(main())

    Sleeps, intervals and timeouts keep their lengths and their order, and take no real time. While
    there is anything to do, the clock stands still. Sockets work: the clock jumps only when
    everything that was sent within this loop has arrived. While a thread that this loop started is
    running (`asyncio.to_thread`, `run_in_executor`, looking up a host name), waiting takes real
    time.

    Only the loop's own clock jumps, not `time.time()` or `time.monotonic()`, with which the loop's
    `time()` agreed when it was made. The loop does not see other processes, or threads that other
    code started: give it some `patience`.

    A wait for a cover that never ends would poll forever and never return. When such a wait has
    polled a thousand times in at least four hours, running the loop raises `RuntimeError` with its
    task id.
    """

    _clock_type: ClassVar[type[JumpingClock]] = JumpingClock
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        self._clock = self._clock_type(self)
        super().__init__(self._clock)
        # Timers this near count as due; a clock that shows a year cannot express much less.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the loop's time, in seconds."""
        return self._clock.now

    @property
    def elapsed(self) -> float:
        """Seconds of the loop's time that have passed since it was made."""
        return self._clock.now - self._clock.started

    @property
    def patience(self) -> float:
        """Real seconds to wait for external events before each jump; 0 by default."""
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
        """Run *func* in the executor; until it is done, waiting takes real time."""
        future = super().run_in_executor(executor, func, *args)
        self._clock.threads += 1
        future.add_done_callback(self._clock.on_thread_done)
        return future

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        """Shut the executor down; meanwhile, waiting takes real time."""
        self._clock.threads += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._clock.threads -= 1

    def next_timer(self) -> float:
        """Return the loop's time at which the next timer is due."""
        return self._scheduled[0].when()

    def check_waits(self) -> None:
        """Raise `RuntimeError` for a wait that will never end."""
        now = self.time()
        for wait in _wait_states(self):
            is_endless = wait.deadline - now > _DAY and now - wait.started >= _ENDLESS_SECONDS
            if is_endless and wait.polls >= _ENDLESS_POLLS:
                error = wait.timed_out(now)
                raise RuntimeError(
                    f"a wait polls forever in instant time: {error}; let its job end (in the "
                    'emulator: add_job("generating, success")), or give the wait a timeout'
                ) from error


def _wait_states(loop: asyncio.AbstractEventLoop) -> Iterator[WaitState]:
    """Yield the state of each wait that a task of this loop awaits."""
    for task in asyncio.all_tasks(loop):
        awaited: object = task.get_coro()
        while isinstance(awaited, CoroutineType) and awaited.cr_frame is not None:
            local_values = awaited.cr_frame.f_locals.values()
            yield from (value for value in local_values if isinstance(value, WaitState))
            awaited = awaited.cr_await


class _Probe:
    """A loopback connection: when its byte has returned, all bytes sent earlier have arrived."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self._client = socket.create_connection(listening.getsockname())
            self._server, _ = listening.accept()
        for end in (self._client, self._server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def make_round_trips(self) -> None:
        for _ in range(_ROUND_TRIPS):
            self._client.send(b"?")
            self._server.recv(1)
            self._server.send(b"!")
            self._client.recv(1)

    def close(self) -> None:
        self._client.close()
        self._server.close()
