"""The process: signals that end or suspend it, and threads that must not delay its end."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Thread
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

_TERMINATION = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
# Seconds before a line says that an address is still being looked up.
_LOOKUP_NOTICE_AFTER = 1.0


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP as Ctrl-C in the block, then let the signal end the process.

    A signal that the process was started to ignore, as by nohup, stays ignored.
    """
    received: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        received.append(number)
        # A shell starts background processes with Ctrl-C ignored.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    handled = [number for number in _TERMINATION if signal.getsignal(number) is signal.SIG_DFL]
    for number in handled:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        # The parent process must see which signal ended this one.
        if received:
            signal.raise_signal(received[0])


@contextmanager
def suspended_by_ctrl_z(
    before: Callable[[], object], after: Callable[[], object]
) -> Iterator[None]:
    """Call *before* when Ctrl-Z is about to stop the process, and *after* when it continues.

    Both run in the event loop, and never while it is in the middle of a line.
    """
    number = getattr(signal, "SIGTSTP", None)
    if number is None or signal.getsignal(number) is not signal.SIG_DFL:
        yield
        return
    loop = asyncio.get_running_loop()

    def stop() -> None:
        before()
        loop.remove_signal_handler(number)
        # This returns when the process continues.
        signal.raise_signal(number)
        loop.add_signal_handler(number, stop)
        after()

    loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        loop.remove_signal_handler(number)


async def in_daemon_threads(work: Awaitable[T], say: Callable[[str], object]) -> T:
    """Await *work*; calls that its event loop runs in threads cannot delay the end of the process.

    asyncio and the interpreter wait for the threads of a default executor, and a call such as
    `getaddrinfo` can take half a minute and cannot be interrupted. *say* is called with a line
    about a host whose address takes more than a second to find.
    """
    asyncio.get_running_loop().set_default_executor(_DaemonThreads(say))
    return await work


class _DaemonThreads(ThreadPoolExecutor):
    """Runs each call in a daemon thread of its own.

    It is a `ThreadPoolExecutor` because asyncio accepts nothing else.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__()
        self._say = say
        self._named: set[str] = set()

    def submit(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run the call in a thread that starts immediately."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        run = partial(_run, future, partial(call, *args, **kwargs))
        Thread(target=run, daemon=True).start()
        if call is socket.getaddrinfo:
            name = partial(self._name, future, str(args[0]))
            asyncio.get_running_loop().call_later(_LOOKUP_NOTICE_AFTER, name)
        return future

    def shutdown(self, *_: Any, **__: Any) -> None:
        """Return without waiting for the threads."""

    def _name(self, lookup: Future[Any], host: str) -> None:
        if not lookup.done() and host not in self._named:
            self._named.add(host)
            self._say(f"waiting for the name server to find the address of {host}")


def _run(future: Future[T], call: Callable[[], T]) -> None:
    try:
        value = call()
    except BaseException as error:  # noqa: BLE001 - the caller receives any exception
        future.set_exception(error)
    else:
        future.set_result(value)
