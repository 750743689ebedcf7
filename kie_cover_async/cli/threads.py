"""Threads that do not keep the command from ending."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

# Seconds before a line says which host's address is waited for.
_SILENCE = 1.0


async def in_daemon_threads(work: Awaitable[T], say: Callable[[str], object]) -> T:
    """Await *work*; the calls that its event loop runs in threads cannot delay the process's end.

    asyncio and the interpreter wait for the threads of a usual executor, and a call such as
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
            asyncio.get_running_loop().call_later(_SILENCE, name)
        return future

    def shutdown(self, *_: Any, **__: Any) -> None:
        """Wait for nothing."""

    def _name(self, lookup: Future[Any], host: str) -> None:
        if not lookup.done() and host not in self._named:
            self._named.add(host)
            self._say(f"waiting for the name server to find the address of {host}")


def _run(future: Future[T], call: Callable[[], T]) -> None:
    try:
        value = call()
    except BaseException as error:  # noqa: BLE001 - the caller receives whatever it is
        future.set_exception(error)
    else:
        future.set_result(value)
