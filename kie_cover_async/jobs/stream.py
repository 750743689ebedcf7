"""`make_covers`: the jobs of many songs, as one stream of their outcomes."""

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Coroutine,
    Iterable,
)
from contextlib import aclosing, nullcontext
from datetime import UTC, datetime
from typing import Any, Protocol, Self, cast

from attrs import frozen

from kie_cover_async.archive import CoverArchive
from kie_cover_async.bulk import Pool
from kie_cover_async.client import CoverClient
from kie_cover_async.errors import InvalidTaskIdError, KieCoverError
from kie_cover_async.ledger import Candidate, Ledger, Song, SongOutcome, SongState
from kie_cover_async.models import CoverDetails
from kie_cover_async.polling import OnUpdate
from kie_cover_async.retry import RetryPolicy
from kie_cover_async.validation import (
    is_one_word,
    short_repr,
    validate_callable,
    validate_number,
    validate_task_id,
)

from .job import CallbackUrl, SongJob

Songs = Iterable[str] | AsyncIterable[str]

_log = logging.getLogger(__name__)

# Seconds. A callback comes when the job has ended, and is repeated if it was not answered.
_CALLBACK_TIMEOUT = 300.0
# As many as an inbox keeps. Anyone may send callbacks, and a poll takes a tenth of a second.
_MAX_CONFIRMATIONS = 10_000


class RunStoppedError(RuntimeError):
    """The API refuses every song, or every poll; nothing was marked as failed because of it.

    `error` says why. `wanted` and `submitted` count the songs that are left in the ledger; songs of
    the input that were not read yet come on top. Run again when the cause is gone.
    """

    def __init__(self, error: KieCoverError, wanted: int, submitted: int) -> None:
        left = f"{wanted:,} songs are left to submit and {submitted:,} to wait for"
        super().__init__(f"the run has stopped, and {left}: {error}")
        self.error: KieCoverError = error
        self.wanted: int = wanted
        self.submitted: int = submitted


class CallbackSource(Protocol):
    """Receives callbacks; `kie_cover_async.callbacks.CallbackInbox` is one."""

    def subscribe_unknown(
        self, listener: Callable[[str, str | None], asyncio.Future[None] | None]
    ) -> Callable[[], object]:
        """Call the listener with the ids of callbacks that no wait expects, and their songs."""


@frozen
class ArchiveImages:
    """The images in an archive; see `ImageStore`."""

    _archive: CoverArchive

    async def save(self, client: CoverClient, details: CoverDetails) -> object:
        """Keep all images of a cover; this makes its song kept, too."""
        return await self._archive.save(client, details)

    async def locate(self, task_id: str) -> tuple[str, ...]:
        """Return the paths of a cover's images."""
        cover = await self._archive.find(task_id)
        return () if cover is None else tuple(str(image.path) for image in cover.images)


class SongQueue:
    """The songs of one run, each once: submitted ones of the ledger, and those of the input.

    Submitted songs have at most half of the places, as long as the input has more.
    """

    def __init__(
        self, job: SongJob, songs: Songs | None, places: int, inbox: CallbackSource | None
    ) -> None:
        self._job = job
        self._songs = _wanted_songs(job) if songs is None else songs
        self._inbox = inbox
        self._half = max(1, places // 2)
        self._seen: set[str] = set()
        # Read from the ledger or the input, and not yielded yet.
        self._next_up: set[str] = set()
        self._running: set[str] = set()
        self._resumed: set[str] = set()
        self._confirming: set[asyncio.Task[None]] = set()
        self._confirmed: set[str] = set()
        self._has_changed = asyncio.Event()

    async def run(self, music_task_id: str) -> SongOutcome:
        """Run the job of a song that came from this queue."""
        try:
            validate_task_id("songs", music_task_id)
            return await self._job.run(music_task_id)
        except InvalidTaskIdError as error:
            return _rejected(music_task_id, error.with_traceback(None))
        finally:
            self._running.discard(music_task_id)
            self._resumed.discard(music_task_id)
            self._has_changed.set()

    async def draw(self) -> AsyncGenerator[str, None]:
        """Yield songs; the caller takes the next one when a place is free."""
        async with aclosing(self._submitted()) as submitted, aclosing(self._wanted()) as wanted:
            coming = self._take(wanted)
            inbox = self._inbox
            unsubscribe = inbox and inbox.subscribe_unknown(self._on_callback)
            try:
                await self._confirm_stored()
                while self._job.stopped_by is None:
                    self._has_changed.clear()
                    has_more = self._job.submits.stopped_by is None and not _is_end(coming)
                    song = await self._next_submitted(submitted, has_more=has_more)
                    if song is None and has_more and coming.done():
                        song, coming = coming.result(), self._take(wanted)
                    if song is not None:
                        self._next_up.discard(song)
                        self._running.add(song)
                        yield song
                    elif has_more or self._confirming or (inbox and self._running):
                        await self._has_changed.wait()
                    else:
                        return
            finally:
                if unsubscribe:
                    unsubscribe()
                for task in (coming, *self._confirming):
                    task.cancel()
                await asyncio.wait([coming, *self._confirming])

    def _on_callback(self, task_id: str, music_task_id: str | None) -> asyncio.Future[None]:
        """Store the id as a candidate, then confirm it; the caller may wait for the first."""
        if len(self._confirming) >= _MAX_CONFIRMATIONS:
            return asyncio.ensure_future(_refuse_callback())
        api = self._job.client.api
        candidate = Candidate(task_id=task_id, music_task_id=music_task_id, api=api)
        storing = asyncio.ensure_future(self._job.ledger.add_candidate(candidate))
        self._start(self._confirm(candidate, storing))
        return storing

    def _start(self, confirmation: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(confirmation)
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)
        task.add_done_callback(lambda _: self._has_changed.set())

    async def _confirm_stored(self) -> None:
        for candidate in await self._job.ledger.candidates(self._job.client.api):
            self._start(self._confirm(candidate))

    async def _confirm(
        self, candidate: Candidate, storing: asyncio.Future[None] | None = None
    ) -> None:
        task_id = candidate.task_id
        try:
            if storing is not None:
                await asyncio.shield(storing)
            song = await self._job.confirm(task_id, candidate.music_task_id)
            await self._job.ledger.remove_candidate(candidate)
        except (KieCoverError, OSError) as error:
            _log.warning("the callback for cover %s could not be confirmed: %s", task_id, error)
            return
        # A job that runs, or will run, sees the id in the ledger.
        busy = self._running | self._next_up
        is_idle = song is not None and song.music_task_id not in busy
        if song is not None and is_idle and song.state is SongState.SUBMITTED:
            self._seen.add(song.music_task_id)
            self._confirmed.add(song.music_task_id)

    def _take(self, songs: AsyncGenerator[str, None]) -> asyncio.Task[str | None]:
        task = asyncio.create_task(_next_of(songs))
        task.add_done_callback(lambda _: self._has_changed.set())
        return task

    async def _next_submitted(
        self, submitted: AsyncGenerator[str, None], *, has_more: bool
    ) -> str | None:
        if has_more and len(self._resumed) >= self._half:
            return None
        song = self._confirmed.pop() if self._confirmed else await _next_of(submitted)
        if song is not None:
            self._resumed.add(song)
        return song

    async def _submitted(self) -> AsyncGenerator[str, None]:
        # Images of covers that are due expire first.
        for due in (True, False):
            async for song in _pages(self._job.ledger, SongState.SUBMITTED, due=due):
                if self._is_new(song.music_task_id):
                    yield song.music_task_id

    async def _wanted(self) -> AsyncGenerator[str, None]:
        async with aclosing(_as_async(self._songs)) as songs:
            async for music_task_id in songs:
                if not is_one_word(music_task_id):
                    yield music_task_id  # its outcome says why
                elif self._is_new(music_task_id):
                    await self._job.ledger.want([music_task_id])
                    yield music_task_id

    def _is_new(self, music_task_id: str) -> bool:
        is_new = music_task_id not in self._seen
        if is_new:
            self._seen.add(music_task_id)
            self._next_up.add(music_task_id)
        return is_new


class SongStream:
    """The outcomes of many songs, as they come.

    Iterate with `async for`. If the loop may be left early, hold the stream with `async with` or
    call `aclose()`: no song is claimed any more, waits are cancelled, and submits that were sent
    get their `submit_timeout`, so that their ids are stored. A dropped stream does the same.

    Nothing starts before the first outcome is requested. A `KieCoverError` about a song is data; an
    error of the disk, a bug, or the `ClientClosedError` of a client that is closed meanwhile, stops
    everything and is raised from the iteration.
    """

    def __init__(
        self, job: SongJob, songs: Songs | None, places: int, inbox: CallbackSource | None
    ) -> None:
        self._job = job
        self._is_stop_raised = False
        queue = SongQueue(job, songs, places, inbox)
        # The pool would wrap a result in a `CoverOutcome`, which is unwrapped below.
        run = cast("Callable[[str], Any]", queue.run)
        self._pool = Pool(queue.draw(), run, nullcontext, limit=places, ordered=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SongOutcome:
        try:
            outcome = await self._pool.take()
        except StopAsyncIteration:
            error = self._job.submits.stopped_by
            if error is None or self._is_stop_raised:
                raise
            self._is_stop_raised = True
            raise await self._stopped(error) from error
        return cast("SongOutcome", outcome.details)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Claim no more songs, wait for the submits that were sent, and end the stream.

        Cancelling this abandons these submits, and their songs are in doubt.
        """
        self._is_stop_raised = True
        try:
            await self._pool.aclose()
        except asyncio.CancelledError:
            await self._pool.aclose()
            raise

    def __del__(self) -> None:
        self._pool.drop()

    async def _stopped(self, error: KieCoverError) -> RunStoppedError:
        counts = await self._job.ledger.counts()
        return RunStoppedError(error, counts[SongState.WANTED], counts[SongState.SUBMITTED])


def make_covers(
    client: CoverClient,
    archive: CoverArchive,
    songs: Songs | None = None,
    *,
    callback_url: CallbackUrl = None,
    inbox: CallbackSource | None = None,
    max_running_jobs: int = 100,
    max_submits: int | None = None,
    timeout: float | None = 900.0,
    on_update: OnUpdate | None = None,
    retry: RetryPolicy = RetryPolicy(),
) -> SongStream:
    """Make the covers of songs, keep their images, and yield a `SongOutcome` for each song.

    Costs credits. Call it again after a crash at any moment, or an interruption: it continues, and
    submits no song twice. Several processes may work on the same folder.

    Songs that were submitted before are always finished, those of earlier inputs, too. Songs that
    are kept, failed or in doubt yield their outcome immediately; `archive.ledger.settle` ends a
    doubt. A song has one outcome, and another one only if a callback settles it later.

    Args:
        client: Submits and polls.
        archive: Holds the ledger and the images.
        songs: Ids of songs: any iterable or async iterable, read as the work goes on. `None` is
            all songs of the ledger that are wanted.
        callback_url: As in `CoverClient.generate_cover`; or a function that returns the URL for a
            song's id. The suno route requires one.
        inbox: Receives the callbacks. One of an unknown id is polled once, which may end a doubt:
            of the song that the record names, or else of the song at whose own URL it came. A song
            that is in doubt since less than five minutes is therefore yielded later.
        max_running_jobs: How many songs are submitted and waited for at the same time. The vendor
            allows about 100 running jobs.
        max_submits: In this run never have more new jobs than this accepted or in doubt. Songs of
            the input beyond it are noted as wanted, and their outcomes say so. Without input, no
            more songs are read then.
        timeout: Seconds of each wait, as in `CoverClient.wait_for_cover`. After that the song stays
            submitted, and the next call waits for it again.
        on_update: Called with the details after every poll of a wait, as in
            `CoverClient.wait_for_cover`.
        retry: How often connecting is tried, and the pauses between the attempts.

    Raises:
        RunStoppedError: From the iteration, after the songs that were running: no credits are left,
            the key is refused, or something else prevents every song.
    """
    if isinstance(songs, (str, bytes)) or not isinstance(
        songs, (Iterable, AsyncIterable, type(None))
    ):
        raise TypeError(f"songs must be an iterable of ids, not {short_repr(songs)}")
    validate_number("max_running_jobs", max_running_jobs, at_least=1, whole=True)
    if max_submits is not None:
        validate_number("max_submits", max_submits, at_least=0, whole=True)
    validate_callable("on_update", on_update)
    job = SongJob(
        client=client,
        ledger=archive.ledger,
        images=ArchiveImages(archive),
        callback_url=callback_url,
        timeout=timeout,
        on_update=on_update,
        max_submits=max_submits,
        callback_timeout=0.0 if inbox is None else _CALLBACK_TIMEOUT,
        retry=retry,
    )
    return SongStream(job, songs, max_running_jobs, inbox)


async def _refuse_callback() -> None:
    raise OSError("too many callbacks are waiting for their polls")


def _rejected(music_task_id: str, error: InvalidTaskIdError) -> SongOutcome:
    now = datetime.now(UTC)
    song = Song(
        music_task_id=music_task_id,
        position=0,
        state=SongState.FAILED,
        reason=str(error),
        added_at=now,
        changed_at=now,
    )
    return SongOutcome(song=song, error=error)


async def _pages(
    ledger: Ledger, state: SongState, *, due: bool = False
) -> AsyncGenerator[Song, None]:
    position = 0
    while page := await ledger.page(state, after=position, due=due):
        for song in page:
            yield song
        position = page[-1].position


async def _wanted_songs(job: SongJob) -> AsyncGenerator[str, None]:
    async for song in _pages(job.ledger, SongState.WANTED):
        if job.submits.is_over:
            return
        yield song.music_task_id


async def _as_async(songs: Songs) -> AsyncGenerator[str, None]:
    if not isinstance(songs, AsyncIterable):
        for song in songs:
            yield song
        return
    try:
        async for song in songs:
            yield song
    finally:
        if isinstance(songs, AsyncGenerator):
            await songs.aclose()


async def _next_of(songs: AsyncGenerator[str, None]) -> str | None:
    return await anext(songs, None)


def _is_end(coming: asyncio.Task[str | None]) -> bool:
    return coming.done() and coming.exception() is None and coming.result() is None
