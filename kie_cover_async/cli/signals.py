"""What else may end the command, in the way that Ctrl-C does, and what stops it for a while.

The terminal is left as it was.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def ended_like_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP do what Ctrl-C does, and after the block what they are for.

    What somebody has told the process to ignore, as nohup does, is ignored.
    """
    came: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        came.append(number)
        # Ctrl-C is ignored by what a shell runs in the background.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    taken = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
        # Whoever sent it is to see that it was heard.
        if came:
            signal.raise_signal(came[0])


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
