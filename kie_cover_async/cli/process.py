"""The process: signals that end or suspend it, and threads that must not delay its end."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Thread, current_thread, main_thread
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

_TERMINATION = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
# Seconds before a line says that an address is still being looked up.
_LOOKUP_NOTICE_AFTER = 1.0
# Bytes, one for each signal; the rest is read later.
_MAX_SIGNALS = 4096


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
    wakeup = signal.set_wakeup_fd(-1)

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
        # asyncio has replaced that of `woken_by_signals`, and removed its own.
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)


@contextmanager
def woken_by_signals() -> Iterator[None]:
    """Let each signal wake the event loop, so that its handler runs immediately.

    A signal that comes just before the loop sleeps, or in another thread, does not end the sleep;
    its handler would run at the loop's next event. asyncio prevents that for the signals of
    `loop.add_signal_handler` only, and Ctrl-C is not one of them.
    """
    if current_thread() is not main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)
        try:
            loop.add_reader(reading, reading.recv, _MAX_SIGNALS)
        except NotImplementedError:  # on Windows, where the loop always does this itself
            yield
            return
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(reading)


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
