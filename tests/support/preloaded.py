"""The command, loaded once: `python preloaded.py SOCKET` makes a process of it for each request.

Such a process differs from one that was started anew only in that it need not load anything, which
takes longer than all that most of them do. A request has the files that are to be stdin, stdout and
stderr, and one more that is closed when the process ends; its answer is the process's id. A request
that is such an id is answered by how the process ended.
"""

import gc
import json
import os
import socket
import sys
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import Any, TextIO, cast

from _kie_cover_async_command import main
from kie_cover_async.cli.app import app

# A socket takes a message three times as long.
LONGEST = 1 << 16


def standard(number: int, mode: str, **options: Any) -> TextIO:
    return cast("TextIO", open(number, mode, closefd=False, **options))


def become(files: list[int], arguments: list[str], environment: dict[str, str]) -> None:
    """Take on what else a process is given when it is started."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    sys.stdin, sys.stdout = standard(0, "r"), standard(1, "w")
    sys.stderr = standard(2, "w", buffering=1, errors="backslashreplace")


def serve(requests: socket.socket) -> bool:
    """Answer requests until there are no more; true in each process that is to be the command."""
    while True:
        request, files, _, _ = socket.recv_fds(requests, LONGEST, 4)
        if not request:
            return False
        asked = json.loads(request)
        if isinstance(asked, int):
            _, status = os.waitpid(asked, 0)
            requests.send(b"%d" % os.waitstatus_to_exitcode(status))
            continue
        process = os.fork()
        if not process:
            become(files[:3], **asked)
            return True
        for file in files:
            os.close(file)
        requests.send(b"%d" % process)


# What it loads only as it runs, it has loaded then; and no collection looks at it again.
with suppress(SystemExit), redirect_stdout(StringIO()):
    app(["--version"])
gc.freeze()
with socket.socket(fileno=int(sys.argv[1])) as requests:
    is_command = serve(requests)
if is_command:
    main()
