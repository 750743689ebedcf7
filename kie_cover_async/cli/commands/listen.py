"""`listen`: receive callbacks, poll what they claim, and write a line for each."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from typing import Annotated, Any, NoReturn

from rich.console import RenderableType
from rich.spinner import Spinner
from rich.text import Text

from kie_cover_async import CoverClient, CoverOutcome, InvalidResponseError, SignatureError
from kie_cover_async.callbacks import CallbackInbox, CoverCallback
from kie_cover_async.callbacks.inbox import RecentCallbacks
from kie_cover_async.cli import options, output, progress, records
from kie_cover_async.cli.callback_server import (
    DEFAULT_PATH,
    Address,
    callback_keys,
    callback_server,
    is_callback_host,
    is_callback_path,
)
from kie_cover_async.cli.client import open_client
from kie_cover_async.settings import API_KEY_VARIABLE
from kie_cover_async.validation import short_repr

# A flood of unsigned callbacks fills this, and not the machine's memory.
_MAX_QUEUED = 10_000

WriteLine = Callable[[str | Text], None]


@options.command(
    """Receive callbacks until Ctrl-C, and write a line for each.

    Signatures are verified if KIE_CALLBACK_KEY has a key, or several separated by commas. With
    KIE_API_KEY each callback is followed by a poll, and the line has its result; without, the line
    has what the callback claims, which anyone may have sent. Repetitions get no line.
    """,
    example="listen --port 8080 --path /kie/callback",
)
async def listen(
    *,
    host: Annotated[
        str, options.option("HOST", "The address to accept connections at.")
    ] = "127.0.0.1",
    port: options.Port = 8080,
    path: Annotated[str, options.option("PATH", "The path of the callback URL.")] = DEFAULT_PATH,
    route: options.Route = None,
    base_url: options.BaseUrl = None,
    as_json: options.Json = False,
) -> NoReturn:
    if not is_callback_host(host):
        raise output.UsageError(f"--host must be a host such as 127.0.0.1, not {short_repr(host)}")
    if not is_callback_path(path):
        raise output.UsageError(
            f"--path must be a path such as {DEFAULT_PATH}, not {short_repr(path)}"
        )
    keys, address = callback_keys(), Address(host, port, path)
    queue = CallbackQueue(CallbackInbox(keys or None))
    server = callback_server(queue.receive, address, is_signed=bool(keys), until=" until Ctrl-C")
    has_key = os.environ.get(API_KEY_VARIABLE)
    async with open_client(base_url, route=route) if has_key else nullcontext() as client, server:
        if client is None:
            output.say(f"What they claim is not confirmed: {API_KEY_VARIABLE} has no key.")
        try:
            with progress.drawn(queue) as write_line:
                if client is None:
                    await _write_claims(queue, write_line, as_json=as_json)
                else:
                    await _write_polls(client, queue, write_line, as_json=as_json)
        finally:
            output.say(queue.summary())


async def _write_claims(
    queue: "CallbackQueue", write_line: WriteLine, *, as_json: bool
) -> NoReturn:
    while True:
        callback = await queue.next()
        write_line(json.dumps(_claim(callback)) if as_json else _claim_text(callback))


async def _write_polls(
    client: CoverClient, queue: "CallbackQueue", write_line: WriteLine, *, as_json: bool
) -> NoReturn:
    async with client.check_covers(queue.task_ids()) as outcomes:
        while True:
            outcome = await anext(outcomes)
            # Two different callbacks for one task may both have been queued.
            if not queue.is_confirmed(outcome.task_id):
                line = {**records.outcome_fields(outcome), "confirmed": queue.confirm(outcome)}
                write_line(json.dumps(line) if as_json else records.outcome_text(outcome))


def _claim(callback: CoverCallback) -> dict[str, object]:
    """Return the callback as JSON, with a name for the images that no result has."""
    return {
        "taskId": callback.task_id,
        "code": callback.code,
        "msg": callback.msg,
        "claimedImages": callback.images,
        "confirmed": False,
    }


def _claim_text(callback: CoverCallback) -> Text:
    images = "" if callback.images is None else f", claims {' '.join(callback.images)}"
    claim = f"says {callback.code} {callback.msg}{images}"
    return Text(f"{output.one_line(callback.task_id)}  {output.one_line(claim)}")


class CallbackQueue:
    """Receives callbacks through an inbox, queues the new ones, and shows how many there were."""

    def __init__(
        self, inbox: CallbackInbox, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._inbox = inbox
        self._received, self._confirmed = RecentCallbacks(), RecentCallbacks()
        self._clock = clock
        self._queue: asyncio.Queue[CoverCallback] = asyncio.Queue(_MAX_QUEUED)
        self._spinner = Spinner("dots", style="cyan")

    def receive(self, headers: Any, body: bytes) -> CoverCallback:
        """Receive a callback like `CallbackInbox.receive`, and count it."""
        try:
            callback = self._inbox.receive(headers, body)
        except SignatureError as error:
            self.counts[f"signature {error.reason}"] += 1
            raise
        except InvalidResponseError:
            self.counts["unreadable"] += 1
            raise
        self._enqueue(callback)
        return callback

    def _enqueue(self, callback: CoverCallback) -> None:
        is_repeated = self._received.is_duplicate(callback.task_id, hash(callback), self._clock())
        if is_repeated or self.is_confirmed(callback.task_id):
            self.counts["repeated"] += 1
        elif self._queue.full():
            self.counts["dropped, too many"] += 1
        else:
            self.counts["received"] += 1
            self._queue.put_nowait(callback)

    async def next(self) -> CoverCallback:
        """Wait for the next new callback."""
        return await self._queue.get()

    async def task_ids(self) -> AsyncIterator[str]:
        """Yield the task id of each new callback."""
        while True:
            yield (await self.next()).task_id

    def confirm(self, outcome: CoverOutcome) -> bool:
        """Count the result of a poll; return whether the job has ended, as its callback claims."""
        has_ended = outcome.ok and outcome.result().is_terminal
        self.counts["confirmed" if has_ended else "not confirmed"] += 1
        if has_ended:
            self._confirmed.add(outcome.task_id, self._clock())
        return has_ended

    def is_confirmed(self, task_id: str) -> bool:
        """Return whether a poll has shown the end of the job."""
        return self._confirmed.contains(task_id, self._clock())

    def summary(self) -> str:
        """Return all counts in one line."""
        counts = [f"{count:,} {what}" for what, count in [*self.counts.items()]]
        return "callbacks: " + (", ".join(counts) or "none")

    def __rich__(self) -> RenderableType:
        self._spinner.update(text=Text(self.summary()))
        return self._spinner
