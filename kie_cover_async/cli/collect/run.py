"""The whole of a run: what is opened, what is said, and the exit code."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from attrs import frozen

from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.cli.board import watched
from kie_cover_async.cli.callback_keys import CALLBACK_KEY_VARIABLE, callback_keys
from kie_cover_async.cli.connection import connected, rate_limiter_of
from kie_cover_async.cli.failures import reporting_failures
from kie_cover_async.cli.folder import archive_in
from kie_cover_async.cli.ids import are_at_hand, opened_in_batches
from kie_cover_async.cli.output import DONE, FAILED, OutputLost, Refused, quiet, say
from kie_cover_async.cli.serving import Address, serving
from kie_cover_async.cli.verbs import seconds_of

from .crew import Crew
from .haul import Haul
from .intake import Intake
from .lines import Lines


@frozen(kw_only=True)
class CollectSettings:
    """What the command was asked for."""

    ids: Sequence[str]
    file: str | None
    out: str
    limit: float
    retry_failed: bool
    rate: float | None
    timeout: float
    listen: str | None
    allow_image_networks: Sequence[str]
    base_url: str | None
    as_json: bool


async def saved(settings: CollectSettings) -> int:
    """Have the images of all these covers, and of those of earlier runs, on disk."""
    haul = Haul()
    try:
        with quiet():
            await _collect(settings, haul)
    except ExceptionGroup as failures:
        # Of many at work at once, the first to fail has ended the others.
        raise _of_this_run(failures.exceptions[0], haul) from None
    finally:
        _tell(haul)
    return DONE if haul.is_complete else FAILED


def _of_this_run(failure: Exception, haul: Haul) -> Exception:
    """Make the exit code 1 if the reader of the lines has gone and not every cover is on disk."""
    if isinstance(failure, OutputLost) and (haul.pending or not haul.is_complete):
        return OutputLost(FAILED)
    return failure


def _tell(haul: Haul) -> None:
    """The summary, and what to do about what is not done."""
    if haul.ends or haul.here:
        say(haul.summary())
    if haul.pending:
        are = "is" if haul.pending == 1 else "are"
        say(f"{haul.pending:,} {are} still pending: run the same command again")
    if failed := haul.ends["failed"] + haul.ends["failed before"]:
        say(f"{failed:,} failed: run it with --retry-failed to try again")


async def _collect(settings: CollectSettings, haul: Haul) -> None:
    rate_limiter, timeout = rate_limiter_of(settings.rate), seconds_of(settings.timeout)
    observer = reporting_failures(haul.hear)
    with _opened_ids(settings) as batches:
        async with (
            _heard(settings.listen) as inbox,
            connected(
                settings.base_url, observer, rate_limiter, inbox, settings.allow_image_networks
            ) as client,
            archive_in(settings.out) as archive,
        ):
            if settings.retry_failed:
                await archive.mark_pending()
            pending = await archive.pending()
            if not (pending or settings.ids or settings.file):
                say(f"nothing is pending in {settings.out}")
            with watched(haul) as write:
                lines = Lines(haul, write, settings.as_json)
                intake = Intake(archive, lines, pending, settings.limit)
                waits = client.wait_for_covers(intake.waiting(), timeout=timeout)
                async with waits as outcomes, asyncio.TaskGroup() as group:
                    noting = group.create_task(intake.note(batches))
                    if are_at_hand(settings.ids, settings.file):
                        # Whatever ends this run, the next one needs no ids.
                        await asyncio.wait([noting])
                    Crew(client, archive, lines).begin(group, intake.done, outcomes)


@contextmanager
def _opened_ids(settings: CollectSettings) -> Iterator[AsyncGenerator[list[str], None]]:
    if not (settings.ids or settings.file or Path(settings.out).is_dir()):
        raise Refused(f"no ids, and no folder {settings.out} to go on with: give some ids")
    with opened_in_batches(settings.ids, settings.file) as batches:
        yield batches


@asynccontextmanager
async def _heard(listen: str | None) -> AsyncIterator[CallbackInbox | None]:
    """What callbacks come to while this lasts, where they are to be listened to."""
    if listen is None:
        yield None
        return
    keys = callback_keys()
    inbox = CallbackInbox(keys or None)
    async with serving(inbox.receive, Address.read("--listen", listen)) as url:
        say(f"Callbacks are heard at {url}.")
        if not keys:
            say(f"Anybody may send them: {CALLBACK_KEY_VARIABLE} has no key.")
        yield inbox
