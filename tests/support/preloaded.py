"""The command, imported once: `python preloaded.py SOCKET` forks a process for each request.

Such a process differs from a new one only in that it need not import anything, which takes longer
than most commands. A request has the files for stdin, stdout and stderr, and one more that is
closed when the process ends; its answer is the process's id. A request that is a process id is
answered by the exit code of that process.
"""

import asyncio
import gc
import json
import os
import selectors
import socket
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from typing import Any, TextIO, cast

from _kie_cover_async_command import main
from kie_cover_async.cli.app import app

# A socket accepts a message three times as long.
LONGEST = 1 << 16


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is so many times as fast as the real one."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        super().__init__(FastSelector(factor))

    def time(self) -> float:
        return super().time() * self._factor


class FastSelector(selectors.DefaultSelector):
    """Waits for a fraction of each timeout."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout and timeout / self._factor)


def speed_up(factor: float) -> None:
    """Let all seconds of the command be shorter by this factor."""
    asyncio.events.new_event_loop = lambda: FastLoop(factor)


def standard(number: int, mode: str, **options: Any) -> TextIO:
    encoding = os.environ.get("PYTHONIOENCODING")
    return cast("TextIO", open(number, mode, closefd=False, encoding=encoding, **options))


def become(
    files: list[int], arguments: list[str], environment: dict[str, str], before: str
) -> None:
    """Take over what else a new process is given, and execute the code `before` the command."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    sys.stdin, sys.stdout = standard(0, "r"), standard(1, "w")
    sys.stderr = standard(2, "w", buffering=1, errors="backslashreplace")
    exec(before, {"speed_up": speed_up})  # noqa: S102 - a test's own code


def serve(requests: socket.socket) -> bool:
    """Answer requests until there are no more; return whether this process is a fork."""
    while True:
        request, files, _, _ = socket.recv_fds(requests, LONGEST, 4)
        if not request:
            return False
        document = json.loads(request)
        if isinstance(document, int):
            _, status = os.waitpid(document, 0)
            requests.send(b"%d" % os.waitstatus_to_exitcode(status))
            continue
        process = os.fork()
        if not process:
            become(files[:3], **document)
            return True
        for file in files:
            os.close(file)
        requests.send(b"%d" % process)


# This imports what the command imports only when it runs; the garbage collector ignores it all.
for arguments in (["--version"], ["--no-such-option"]):
    with suppress(SystemExit), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        app(arguments)
gc.freeze()
with socket.socket(fileno=int(sys.argv[1])) as requests:
    is_command = serve(requests)
if is_command:
    main()
