"""`collect`: wait for covers and save their images, and continue after an interruption."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from math import inf
from typing import Annotated, Any, Literal

import typer
from attrs import define, frozen
from rich.filesize import decimal
from rich.text import Text

from kie_cover_async import (
    AuthenticationError,
    ConnectionSetupError,
    CoverClient,
    CoverDetails,
    CoverOutcome,
    ForbiddenError,
    InvalidTaskIdError,
    KieCoverError,
    OtherApiError,
    validation,
)
from kie_cover_async.archive import ArchivedCover, CoverArchive, is_final
from kie_cover_async.cli import options, output, progress, records
from kie_cover_async.cli.callback_server import Address, callback_inbox
from kie_cover_async.cli.client import (
    image_networks,
    open_archive,
    open_client,
    rate_limiter_for,
    require_ids_or_folder,
    timeout_seconds,
)
from kie_cover_async.cli.ids import Batches, NoIdsError, are_available, open_ids
from kie_cover_async.ledger import Api

# Covers that are saved at the same time; the archive limits downloads.
_WORKERS = 16

# Every other cover would end in the same way.
_FATAL = (AuthenticationError, ConnectionSetupError, ForbiddenError)

# "rejected" is an invalid id, "failed before" a cover that an earlier run gave up.
End = Literal["saved", "failed", "not done", "rejected", "failed before"]
# The archive's state of a cover that was not saved; it does not contain invalid ids.
_STATES: dict[End, str] = {"failed": "failed", "not done": "pending"}


@options.command(
    """Wait for covers and save their images, and continue after an interruption.

    The ids are saved in the folder first, so that after Ctrl-C or a crash the same command, or one
    without ids, continues: saved images are not fetched again, pending covers are waited for. An
    id that is given and whose files are missing is collected again.

    Writes a line for each cover. Exits with 1 if one failed or is not done. With --listen it polls
    when a callback says that a cover is done; keys in KIE_CALLBACK_KEY verify signatures.
    """,
    example="collect --file ids.txt --out covers",
)
async def collect(
    task_ids: Annotated[
        list[str] | None,
        options.id_argument("ID", "More covers; - reads them from stdin. None: what is pending."),
    ] = None,
    *,
    file: options.File = None,
    out: options.Out = "covers",
    limit: Annotated[
        int | None, options.option("NUMBER", "At most so many covers in one run.", min=1)
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed covers again.")
    ] = False,
    rate: options.Rate = None,
    timeout: Annotated[
        float, options.option("SECONDS", "Time for each cover; inf for no limit.")
    ] = 900.0,
    listen: options.Listen = None,
    allow_image_network: options.AllowImageNetwork = None,
    route: options.Route = None,
    base_url: options.BaseUrl = None,
    as_json: options.Json = False,
) -> int:
    rate_limiter, seconds = rate_limiter_for(rate), timeout_seconds(timeout)
    require_ids_or_folder(task_ids, file, out)
    networks = image_networks(allow_image_network)
    address = None if listen is None else Address.parse("--listen", listen)
    view = CollectView()
    observers = [view.on_event, progress.FailureLog().on_event]
    with output.warnings_only(), _summarizing(view), open_ids(task_ids or (), file) as batches:
        async with (
            callback_inbox(address) as inbox,
            open_client(
                base_url,
                route=route,
                observer=observers,
                rate_limiter=rate_limiter,
                inbox=inbox,
                allow_image_networks=networks,
            ) as client,
            open_archive(out) as archive,
        ):
            if retry_failed:
                await archive.mark_pending()
            pending = await archive.pending()
            if not (pending or task_ids or file):
                output.say(f"nothing is pending in {out}")
            with progress.drawn(view) as write_line:
                results = ResultWriter(view, write_line, as_json)
                most = inf if limit is None else limit
                queue = CoverQueue(archive, results, pending, most, client.api)
                waits = client.wait_for_covers(queue.waiting(), timeout=seconds)
                async with waits as outcomes, asyncio.TaskGroup() as group:
                    adding = group.create_task(queue.add(batches))
                    if are_available(task_ids or (), file):
                        # Then a later run needs no ids, whatever ends this one.
                        await asyncio.wait([adding])
                    Workers(client, archive, results).start(group, queue.done, outcomes)
    return output.DONE if view.is_complete else output.FAILED


class CollectView(progress.CoversView):
    """The progress of a run: what became of its covers, and how much was saved.

    `pending` counts the covers of the archive that are still to be saved, by this run or another
    one; `saved_before` those that were given, had been saved before and still have their files.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(lambda rate: f"{decimal(int(rate))}/s", clock=clock)
        self.ends: Counter[End] = Counter()
        self.pending: int = 0
        self.saved_before: int = 0
        self.images: int = 0
        self.bytes: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether every cover that was tried is saved."""
        return self.ends.total() == self.ends["saved"]

    def row(self) -> tuple[str, float]:
        """Return the headline, and the number of bytes."""
        return f"[bold]{self.ends['saved']:,} saved[/]: {self._images()}", self.bytes

    def count_saved(self, cover: ArchivedCover) -> None:
        """Count a cover whose images are on disk."""
        self.ends["saved"] += 1
        self.pending -= 1
        self.images += len(cover.images)
        self.bytes += sum(image.size for image in cover.images)

    def count_unsaved(self, end: End) -> None:
        """Count a cover without images."""
        self.ends[end] += 1
        self.pending -= end == "failed"

    def counts(self) -> dict[str, int]:
        """Return the numbers of covers that this run has not saved."""
        return {"pending": self.pending, **self._others()}

    def summary(self) -> str:
        """Return the line for the end."""
        saved = output.counted(self.ends["saved"], "cover")
        others = [f"{count:,} {what}" for what, count in self._others().items()]
        return "; ".join([f"{saved} saved in {self.seconds:.1f} s: {self._images()}", *others])

    def _images(self) -> str:
        return f"{output.counted(self.images, 'image')}, {decimal(self.bytes)}"

    def _others(self) -> dict[str, int]:
        others: dict[str, int] = {end: self.ends[end] for end in [*self.ends] if end != "saved"}
        return others | ({"saved before": self.saved_before} if self.saved_before else {})


@contextmanager
def _summarizing(view: CollectView) -> Iterator[None]:
    """Say in the end what was done, and what to do about the rest."""
    try:
        yield
    except ExceptionGroup as failures:
        # The first worker that fails ends the others.
        raise _exit_reason(failures.exceptions[0], view) from None
    finally:
        if view.ends or view.saved_before:
            output.say(view.summary())
        if view.pending:
            are = "is" if view.pending == 1 else "are"
            output.say(f"{view.pending:,} {are} still pending: run the same command again")
        if failed := view.ends["failed"] + view.ends["failed before"]:
            output.say(f"{failed:,} failed: run it with --retry-failed to try again")


def _exit_reason(failure: Exception, view: CollectView) -> Exception:
    """Make the exit code 1 if the reader of the lines has gone and not every cover is on disk."""
    if isinstance(failure, output.OutputLost) and (view.pending or not view.is_complete):
        return output.OutputLost(output.FAILED)
    return failure


@define
class ResultWriter:
    """Counts what became of each cover, and writes its line."""

    view: CollectView
    write_line: Callable[[str | Text], None]
    as_json: bool

    def saved(self, cover: ArchivedCover) -> None:
        """Record that all images of the cover are on disk."""
        self.view.count_saved(cover)
        files = [
            {
                "path": str(image.path),
                "sha256": image.sha256,
                "size": image.size,
                "type": image.media_type,
                "width": image.width,
                "height": image.height,
            }
            for image in cover.images
        ]
        paths = " ".join(str(image.path) for image in cover.images)
        self._write(cover.task_id, "saved", paths, {"state": "saved", "files": files})

    def unsaved(self, task_id: str, end: End, error: KieCoverError) -> None:
        """Record that this run could not save the cover."""
        fields = {"state": _STATES.get(end), **records.error_fields(error)}
        self.view.count_unsaved(end)
        self._write(task_id, end, f"{type(error).__name__}: {error}", fields)

    def failed_before(self, cover: ArchivedCover) -> None:
        """Record that a cover was given which an earlier run gave up."""
        name, _, message = str(cover.error).partition(": ")
        self.view.count_unsaved("failed before")
        fields = {"state": "failed", "error": name, "message": message}
        self._write(cover.task_id, "failed before", cover.error, fields)

    def _write(self, task_id: str, end: End, rest: object, fields: dict[str, Any]) -> None:
        if self.as_json:
            # The error of an invalid id does not contain it.
            self.write_line(json.dumps({"taskId": None} | fields | {"taskId": str(task_id)}))
        else:
            self.write_line(records.cover_text(task_id, end, rest))


class CoverQueue:
    """The covers to collect: pending ones, then those of new ids, up to a limit.

    A cover whose id another route or origin issued is reported, and stays as it is.

    `done` has those that are known to be done and need no poll; `waiting` yields the others' ids.
    """

    def __init__(
        self,
        archive: CoverArchive,
        results: ResultWriter,
        pending: Sequence[ArchivedCover],
        limit: float,
        api: Api,
    ) -> None:
        self._archive, self._results, self._api = archive, results, api
        self._left = limit
        self._seen = {cover.task_id for cover in pending}
        self._waiting: asyncio.Queue[str | None] = asyncio.Queue()
        results.view.pending += len(pending)
        self.done: Iterator[CoverDetails] = iter([*self._sort(pending)])

    async def waiting(self) -> AsyncIterator[str]:
        """Yield ids until `add` is finished."""
        while (task_id := await self._waiting.get()) is not None:
            yield task_id

    async def add(self, batches: Batches) -> None:
        """Add all ids to the archive, and to the queue those that must be collected.

        Raises `UsageError` if they cannot be read, or if there are none and nothing is pending.
        """
        try:
            async with aclosing(batches):
                async for batch in batches:
                    await self._add([each for each in batch if self._is_valid(each)])
        except NoIdsError as error:
            if not self._seen:
                raise output.UsageError(f"{error}, and nothing is pending") from None
            output.say(f"kie-cover: {error}")
        self._waiting.put_nowait(None)

    def _sort(self, pending: Sequence[ArchivedCover]) -> Iterator[CoverDetails]:
        for cover in pending:
            if self._is_of_other_api(cover):
                continue
            if cover.details is None or not cover.details.is_success:
                self._wait_for(cover.task_id)
            elif self._is_within_limit():
                yield cover.details

    def _is_of_other_api(self, cover: ArchivedCover) -> bool:
        api = cover.api or self._api
        if api == self._api:
            return False
        error = OtherApiError(task_id=cover.task_id, route=api.route, origin=api.origin)
        self._results.unsaved(cover.task_id, "not done", error)
        return True

    def _wait_for(self, task_id: str) -> None:
        if self._is_within_limit():
            self._waiting.put_nowait(task_id)

    def _is_within_limit(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def _is_valid(self, task_id: str) -> bool:
        try:
            validation.validate_task_id("task_id", task_id)
        except InvalidTaskIdError as error:
            self._results.unsaved(task_id, "rejected", error)
            return False
        return True

    async def _add(self, task_ids: list[str]) -> None:
        self._enqueue(await self._archive.add(task_ids, api=self._api))
        for task_id in task_ids:
            if task_id not in self._seen and (known := await self._archive.find(task_id)):
                self._seen.add(task_id)
                await self._add_known(known)

    def _enqueue(self, task_ids: list[str]) -> None:
        self._seen.update(task_ids)
        self._results.view.pending += len(task_ids)
        for task_id in task_ids:
            self._wait_for(task_id)

    async def _add_known(self, cover: ArchivedCover) -> None:
        """Add a cover that the archive had when this run began, but not as pending."""
        if cover.state == "failed":
            self._results.failed_before(cover)
        elif cover.state == "saved" and await asyncio.to_thread(_has_files, cover):
            self._results.view.saved_before += 1
        elif not self._is_of_other_api(cover):
            # Its files are gone, or another process works in this folder.
            await self._archive.mark_pending([cover.task_id])
            self._enqueue([cover.task_id])


def _has_files(cover: ArchivedCover) -> bool:
    """Return whether all its image files exist; their content is not read."""
    wanted = cover.details.images if cover.details is not None else ()
    is_known = 0 < len(wanted) <= len(cover.images)
    return is_known and all(image.path.exists() for image in cover.images)


@frozen
class Workers:
    """Save what is done, and record what can never be saved; the rest stays pending."""

    client: CoverClient
    archive: CoverArchive
    results: ResultWriter

    def start(
        self,
        group: asyncio.TaskGroup,
        done: Iterator[CoverDetails],
        outcomes: AsyncIterator[CoverOutcome],
    ) -> None:
        """Start the workers on both at the same time.

        The group fails if the API rejects the key, if no connection can be set up with these
        settings, or if the disk fails.
        """
        for _ in range(_WORKERS):
            group.create_task(self._save_all(done))
            group.create_task(self._follow(outcomes))

    async def _save_all(self, done: Iterator[CoverDetails]) -> None:
        for details in done:
            await self._save(details)

    async def _follow(self, outcomes: AsyncIterator[CoverOutcome]) -> None:
        async for outcome in outcomes:
            if outcome.error is None:
                await self._save(outcome.result())
            else:
                await self._give_up(outcome.task_id, outcome.error)

    async def _save(self, details: CoverDetails) -> None:
        try:
            cover = await self.archive.save(self.client, details)
        except KieCoverError as error:
            await self._give_up(details.task_id, error, details)
        else:
            self.results.saved(cover)

    async def _give_up(
        self, task_id: str, error: KieCoverError, details: CoverDetails | None = None
    ) -> None:
        if isinstance(error, _FATAL):
            raise error
        if not is_final(error, details):
            self.results.unsaved(task_id, "not done", error)
            return
        await self.archive.mark_failed(task_id, error)
        self.results.unsaved(task_id, "failed", error)
