"""The job of one song: it runs any number of times, anywhere, and submits the song once."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol, cast

from attrs import define, field

from kie_cover_async.archive.formats import EMPTY
from kie_cover_async.client import CoverClient
from kie_cover_async.errors import (
    AuthenticationError,
    ClientClosedError,
    ConnectionSetupError,
    CoverFailedError,
    DownloadError,
    ForbiddenError,
    KieCoverError,
    OtherApiError,
    RateLimitedError,
    TaskNotFoundError,
)
from kie_cover_async.ledger import Ledger, Song, SongOutcome, SongState, Trouble
from kie_cover_async.models import CoverDetails
from kie_cover_async.polling import OnUpdate
from kie_cover_async.retry import RetryPolicy

from .submit import SubmitState

CallbackUrl = str | Callable[[str], str] | None

# Every other song would end in the same way.
_FATAL = (AuthenticationError, ConnectionSetupError, ForbiddenError)
_NOT_FOUND = 404
_GONE = {403, 404, 410}
_FIRST_DELAY, _MAX_DELAY = timedelta(minutes=15), timedelta(hours=6)
_MISSING_FOR = timedelta(hours=24)
_MAX_DOUBLINGS = 5
# Images are gone if that was so as often, over so long.
_MAX_GONE, _GONE_FOR = 3, timedelta(hours=1)
# Seconds between two views of a song that another process submits.
_FOLLOW_INTERVAL, _MAX_FOLLOW_INTERVAL = 0.05, 2.0


class ImageStore(Protocol):
    """Keeps the images of covers."""

    async def save(self, client: CoverClient, details: CoverDetails) -> object:
        """Keep all images of a cover, or raise the first error."""

    async def locate(self, task_id: str) -> tuple[str, ...]:
        """Return where the images of a cover are that were kept."""


@define(eq=False, kw_only=True)
class SongJob:
    """Runs songs: each is submitted at most once, waited for, and kept.

    A song can be run again after a crash at any moment, and by several processes at the same time.

    Args:
        client: Submits and polls.
        ledger: Decides who may submit.
        images: Keeps the images.
        callback_url: As in `CoverClient.generate_cover`; or a function that returns the URL for a
            song's id.
        timeout: Seconds of one wait for a cover.
        on_update: Called with the details after every poll of a wait, as in
            `CoverClient.wait_for_cover`.
        max_submits: Never have more new jobs than this accepted or in doubt.
        callback_timeout: Seconds for which a song in doubt is followed, since a callback may name
            its id; the owner of the job passes callbacks to `confirm`.
        retry: How often connecting is tried, and the pauses between the attempts.
    """

    client: CoverClient
    ledger: Ledger
    images: ImageStore
    callback_url: CallbackUrl = None
    timeout: float | None = 900.0
    on_update: OnUpdate | None = None
    max_submits: int | None = None
    callback_timeout: float = 0.0
    retry: RetryPolicy = RetryPolicy()
    stopped_by: KieCoverError | None = field(default=None, init=False)
    submits: SubmitState = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.submits = SubmitState(
            client=self.client, ledger=self.ledger, max_submits=self.max_submits
        )

    async def run(self, music_task_id: str) -> SongOutcome:
        """Take a song of the ledger as far as possible, and return what came of it.

        A song that another live process is submitting or waiting for is followed in the ledger,
        without requests.

        Raises:
            ClientClosedError: The client was closed.
        """
        error: KieCoverError | None = None
        waited_for: set[str | None] = set()
        delay = _FOLLOW_INTERVAL
        while True:
            song = await self.find(music_task_id)
            is_followed = self._is_followed(song)
            if song.state is SongState.WANTED and not (error or self.submits.is_over):
                error = await self._submit(music_task_id)
            elif song.task_id not in waited_for and self._can_finish(song):
                is_followed = not await self._start_wait(song)
                if not is_followed:
                    waited_for.add(song.task_id)
                    error = await self._finish(song, str(song.task_id))
            elif not is_followed:
                return await self._outcome(song, error)
            if is_followed:
                await asyncio.sleep(delay)
                delay = min(2 * delay, _MAX_FOLLOW_INTERVAL)

    async def find(self, music_task_id: str) -> Song:
        """Return a song that is in the ledger."""
        song = await self.ledger.find(music_task_id)
        if song is None:
            raise LookupError(f"song {music_task_id} is not in the ledger")
        return song

    async def confirm(self, task_id: str, music_task_id: str | None = None) -> Song | None:
        """Poll an id that a callback has named, and store it for its song.

        That is the song that the record names. If it names none, it is `music_task_id`, the song
        at whose own URL the callback came. Return the song, or `None` if it is unknown.
        """
        details = await self.client.get_cover_details(task_id)
        song = details.parent_task_id or music_task_id
        if song is None:
            return None
        is_confirmed = not details.state.is_failure
        return await self.ledger.record_id(
            song, task_id, self.client.api, is_confirmed=is_confirmed
        )

    def stop(self, error: KieCoverError) -> None:
        """Submit no more songs, and begin no more waits, because of this error."""
        self.stopped_by = self.stopped_by or error
        self.submits.stop(error)

    def _is_followed(self, song: Song) -> bool:
        """Return whether another process, or a callback, may change the song soon."""
        is_in_doubt = song.state is SongState.IN_DOUBT and self.stopped_by is None
        age = (datetime.now(UTC) - song.changed_at).total_seconds()
        is_expected = is_in_doubt and age < self.callback_timeout
        return song.state is SongState.SUBMITTING or is_expected

    def _can_finish(self, song: Song) -> bool:
        is_ours = song.api in (None, self.client.api)
        return song.state is SongState.SUBMITTED and is_ours and self.stopped_by is None

    async def _outcome(self, song: Song, error: KieCoverError | None) -> SongOutcome:
        if song.state is SongState.KEPT:
            error = None
        elif error is None and song.state is SongState.WANTED:
            error = self.submits.stopped_by
        elif error is None and song.state is SongState.SUBMITTED:
            error = self.stopped_by
            if song.api is not None and song.api != self.client.api:
                route, origin = song.api.route, song.api.origin
                error = OtherApiError(task_id=song.task_id, route=route, origin=origin)
        found = () if song.task_id is None else await self.images.locate(song.task_id)
        return SongOutcome(song=song, images=found, error=error)

    async def _submit(self, music_task_id: str) -> KieCoverError | None:
        """Submit until the song is not wanted any more, or return the error that prevents it."""
        url, failures = self.callback_url, 0
        url = url(music_task_id) if callable(url) else url
        while (error := await self.submits.submit(music_task_id, url)) is not None:
            if self.submits.stopped_by is not None or error.maybe_accepted:
                return error
            if isinstance(error, RateLimitedError):
                # The client pauses all submits.
                continue
            failures += 1
            delay = self.retry.next_pause(error, failures)
            if delay is None:
                return error
            await asyncio.sleep(delay)
        return None

    async def _finish(self, song: Song, task_id: str) -> KieCoverError | None:
        """Wait for the cover of a submitted song, and keep its images; return an error of it."""
        try:
            return await self._try_to_keep(song, task_id)
        except BaseException:
            await self._end_wait(song)
            raise

    async def _try_to_keep(self, song: Song, task_id: str) -> KieCoverError | None:
        try:
            await self._keep(song, task_id)
        except ClientClosedError:
            raise
        except KieCoverError as error:
            await self._on_error(song, task_id, error)
            return error.with_traceback(None)
        return None

    async def _keep(self, song: Song, task_id: str) -> None:
        details = song.details
        if details is None or details.task_id != task_id or not details.is_success:
            details = await self.client.wait_for_cover(
                task_id, timeout=self.timeout, on_update=self.on_update
            )
        if not await self._is_parent_wrong(song, details):
            await self.images.save(self.client, details)
            await self.ledger.keep(task_id)

    async def _start_wait(self, song: Song) -> bool:
        """Note in the ledger that this process waits; return `False` if another one does."""
        try:
            return await self.ledger.start_wait(song.music_task_id, str(song.task_id))
        except BaseException:
            await self._end_wait(song)
            raise

    async def _end_wait(self, song: Song) -> None:
        # The archive may be closed, which ends the wait as well.
        with suppress(OSError, RuntimeError):
            await asyncio.shield(self.ledger.end_wait(song.music_task_id))

    async def _is_parent_wrong(self, song: Song, details: CoverDetails) -> bool:
        """Put a song in doubt whose id belongs to another song; return whether it does."""
        parent, task_id = details.parent_task_id, details.task_id
        if parent in (None, song.music_task_id):
            return False
        reason = f"cover {task_id} belongs to another song, {parent}"
        await self.ledger.mark_in_doubt(song.music_task_id, task_id, reason, is_wrong=True)
        return True

    async def _on_error(self, song: Song, task_id: str, error: KieCoverError) -> None:
        """Note why there is no cover yet, or that there will be none."""
        if isinstance(error, _FATAL):
            self.stop(error)
            await self.ledger.end_wait(song.music_task_id)
        elif isinstance(error, CoverFailedError):
            if not await self._is_parent_wrong(song, error.details):
                await self.ledger.mark_failed(task_id, error)
        else:
            await self._postpone(song, task_id, error)

    async def _postpone(self, song: Song, task_id: str, error: KieCoverError) -> None:
        """Wait again later, unless the same trouble has lasted too long."""
        trouble, now = _trouble_of(error), datetime.now(UTC)
        is_same = song.trouble is trouble and song.trouble_since is not None
        count = song.trouble_count if is_same else 0
        lasted = now - song.trouble_since if is_same and song.trouble_since else timedelta(0)
        if trouble is Trouble.MISSING and lasted >= _MISSING_FOR:
            reason = f"there was no record of cover {task_id} for 24 hours"
            await self.ledger.mark_in_doubt(song.music_task_id, task_id, reason)
        elif trouble is Trouble.GONE and count + 1 >= _MAX_GONE and lasted >= _GONE_FOR:
            reason = f"images expired: {cast('DownloadError', error).reason}"
            await self.ledger.mark_failed(task_id, DownloadError(task_id=task_id, reason=reason))
        else:
            delay = _GONE_FOR / (_MAX_GONE - 1)
            if trouble is not Trouble.GONE:
                delay = min(_FIRST_DELAY * 2 ** min(count, _MAX_DOUBLINGS), _MAX_DELAY)
            seconds = delay.total_seconds()
            await self.ledger.postpone(song.music_task_id, task_id, seconds, trouble)


def _trouble_of(error: KieCoverError) -> Trouble:
    # A 404 of the API may mean that the base URL is wrong.
    if isinstance(error, TaskNotFoundError) and error.code != _NOT_FOUND:
        return Trouble.MISSING
    is_gone = isinstance(error, DownloadError) and (
        error.http_status in _GONE or error.reason == EMPTY
    )
    return Trouble.GONE if is_gone else Trouble.UNFINISHED
