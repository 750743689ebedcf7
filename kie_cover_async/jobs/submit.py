"""One attempt to submit a song: the claim comes last, and the answer decides what becomes of it."""

import asyncio
import json
import logging
import time
from contextlib import suppress

from attrs import Factory, define

from kie_cover_async.client import CoverClient
from kie_cover_async.errors import (
    ApiError,
    ClientClosedError,
    ConnectionSetupError,
    CoverAlreadyExistsError,
    KieCoverError,
)
from kie_cover_async.ledger import Claim, Ledger, SettlementError, Song, SongState
from kie_cover_async.retry import RetryPolicy
from kie_cover_async.transport.limits import SLOT_EXPIRES_AT

_log = logging.getLogger(__name__)

_ONE_ATTEMPT = RetryPolicy(max_attempts=1)
# Seconds. The process may have been frozen since, and the claim given to another one.
_MAX_CLAIM_AGE = 30.0
_MIN_PAUSE, _MAX_PAUSE = 1.0, 30.0
_REFUSES_EVERY_SONG = frozenset({400, 401, 402, 403, 404, 433, 455, 505})
_REFUSES_THIS_SONG = frozenset({413, 422, 451})
_MAX_EQUAL_REFUSALS = 3
# How often in a row a song queues again because its slot has become old.
_MAX_OLD_SLOTS = 3


class _NotSentError(Exception):
    """The song must not be submitted now; nothing was sent."""


@define(eq=False, kw_only=True)
class SubmitState:
    """What the submits of one run share.

    `stopped_by` is the refusal after which no song is submitted any more. `can_claim` is cleared
    while an id is not stored yet. At most `max_submits` new jobs are accepted or in doubt.
    """

    client: CoverClient
    ledger: Ledger
    max_submits: int | None = None
    stopped_by: KieCoverError | None = None
    can_claim: asyncio.Event = Factory(asyncio.Event)
    _attempts: "set[SubmitAttempt]" = Factory(set)
    _unstored: "set[SubmitAttempt]" = Factory(set)
    _new_jobs: int = 0
    _has_ended: asyncio.Event = Factory(asyncio.Event)
    _has_accepted: bool = False
    _refusal: tuple[int, str] | None = None
    _refused: list[str] = Factory(list)

    def __attrs_post_init__(self) -> None:
        self.can_claim.set()

    @property
    def is_over(self) -> bool:
        """Whether no song is submitted any more, because of a refusal or of `max_submits`."""
        is_limited = self.max_submits is not None and self._new_jobs >= self.max_submits
        return is_limited or self.stopped_by is not None

    def stop(self, error: KieCoverError) -> None:
        """Submit no more songs because of this refusal."""
        # Its traceback would keep the objects of its frames alive.
        self.stopped_by = self.stopped_by or error.with_traceback(None)
        for attempt in self._attempts:
            attempt.stop()

    async def submit(self, music_task_id: str, callback_url: str | None) -> KieCoverError | None:
        """Submit a song once; return the error if there was one.

        If this is cancelled before the claim, nothing is sent. Once the request may have been sent,
        its end is waited for; a second cancellation abandons it, and the song is in doubt.
        """
        old_slots = 0
        while True:
            attempt = SubmitAttempt(self, music_task_id, callback_url)
            attempt.may_use_old_slot = old_slots == _MAX_OLD_SLOTS
            error = await self._run(attempt)
            if not attempt.has_old_slot:
                return error
            old_slots += 1

    async def _run(self, attempt: "SubmitAttempt") -> KieCoverError | None:
        await self.can_claim.wait()
        await self._wait_for_place()
        if self.is_over:
            return self.stopped_by
        attempt.task = task = asyncio.create_task(attempt.run())
        self._attempts.add(attempt)
        try:
            # Unlike the task's result, this does not raise if the task is stopped.
            await asyncio.wait([task])
        except asyncio.CancelledError:
            attempt.stop()
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError:
                    task.cancel()
            if not task.cancelled():
                task.result()
            raise
        finally:
            self._attempts.discard(attempt)
            self._new_jobs += attempt.may_have_job
            self._has_ended.set()
        return None if task.cancelled() else task.result()

    async def _wait_for_place(self) -> None:
        """Wait while the attempts that run may have all the jobs that `max_submits` leaves."""
        limit = self.max_submits
        while limit is not None and self._new_jobs < limit <= self._new_jobs + len(self._attempts):
            self._has_ended.clear()
            await self._has_ended.wait()

    async def record_id(self, attempt: "SubmitAttempt", task_id: str) -> Song | None:
        """Store the id of a song before anything else, and repeat that until it is stored."""
        self._has_accepted = True
        api, pause = self.client.api, _MIN_PAUSE
        try:
            while True:
                try:
                    return await self.ledger.record_id(attempt.music_task_id, task_id, api)
                except Exception:
                    line = {"song": attempt.music_task_id, "taskId": task_id, "route": api.route}
                    _log.exception("an id could not be stored: %s", json.dumps(line))
                    if attempt.is_stopped:
                        raise
                self._unstored.add(attempt)
                self.can_claim.clear()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE)
        finally:
            self._unstored.discard(attempt)
            if not self._unstored:
                self.can_claim.set()

    def refuse(self, music_task_id: str, error: KieCoverError) -> SongState:
        """Return the state of a song that was refused; stop if others would be refused, too.

        If nothing was accepted, equal refusals of several songs mean a wrong URL or model.
        """
        refusal = (error.code, error.msg) if isinstance(error, ApiError) else (0, "")
        if refusal[0] in _REFUSES_EVERY_SONG or isinstance(error, ConnectionSetupError):
            self.stop(error)
        if refusal[0] not in _REFUSES_THIS_SONG:
            return SongState.WANTED
        if self._has_accepted:
            return SongState.FAILED
        if self._refusal != refusal:
            self._refusal, self._refused = refusal, []
        self._refused.append(music_task_id)
        if len(self._refused) < _MAX_EQUAL_REFUSALS:
            return SongState.FAILED
        self.stop(error)
        return SongState.WANTED

    async def take_back_refusals(self) -> None:
        """Make the songs wanted again whose equal refusals have stopped the run."""
        if len(self._refused) >= _MAX_EQUAL_REFUSALS:
            for music_task_id in self._refused:
                # It is wanted already, or another process has settled it.
                with suppress(SettlementError):
                    await self.ledger.settle(music_task_id, submit_again=True)


class SubmitAttempt:
    """One attempt to submit a song; `run` needs a task of its own, which `stop` may cancel."""

    task: asyncio.Task[KieCoverError | None]

    def __init__(self, state: SubmitState, music_task_id: str, callback_url: str | None) -> None:
        self.music_task_id: str = music_task_id
        self.is_stopped: bool = False
        # Whether there may be a new job: it was accepted, or is in doubt.
        self.may_have_job: bool = False
        self.may_use_old_slot: bool = False
        self.has_old_slot: bool = False
        self._state = state
        self._callback_url = callback_url
        self._claiming: asyncio.Task[Claim | None] | None = None

    def stop(self) -> None:
        """Send nothing, unless that has begun: then the answer is still waited for."""
        self.is_stopped = True
        if self._claiming is None:
            self.task.cancel()

    async def run(self) -> KieCoverError | None:
        """Submit, and note what came of it; return the error if there was one.

        `None` also means that nothing was sent, for example because another process has the claim.
        """
        try:
            task_id = await self._state.client.generate_cover(
                self.music_task_id,
                callback_url=self._callback_url,
                retry=_ONE_ATTEMPT,
                on_sending=self._claim,
            )
            await self._record_id(task_id)
        except _NotSentError:
            await self._release(SongState.WANTED)
        except KieCoverError as error:
            return await self._on_error(error.with_traceback(None))
        except BaseException as error:
            # A second cancellation, or a bug.
            reason = f"{type(error).__name__} during the submit"
            await asyncio.shield(self._release(self._state_if_unknown, reason))
            raise
        return None

    async def _claim(self) -> None:
        """Claim the song, just before the first byte of the request."""
        if not self._state.can_claim.is_set():
            raise _NotSentError
        self._check_slot()
        loop = asyncio.get_running_loop()
        begun_at, begun_at_wall = loop.time(), time.time()
        claim = self._state.ledger.claim(self.music_task_id, self._state.client.api)
        self._claiming = asyncio.ensure_future(claim)
        is_claimed = await asyncio.shield(self._claiming) is not None
        # A suspended machine stops only the first of these clocks.
        age = max(loop.time() - begun_at, time.time() - begun_at_wall)
        if not is_claimed or self.is_stopped or age > _MAX_CLAIM_AGE:
            raise _NotSentError
        self._check_slot()
        self.may_have_job = True

    def _check_slot(self) -> None:
        """Send nothing if connecting or the claim took too long for the rate limit."""
        is_old = asyncio.get_running_loop().time() > SLOT_EXPIRES_AT.get()
        if is_old and not self.may_use_old_slot:
            self.has_old_slot = True
            raise _NotSentError

    async def _record_id(self, task_id: str) -> None:
        song = await self._state.record_id(self, task_id)
        if song is not None and song.state is SongState.SUBMITTING:
            reason = f"the song has a cover already, {task_id}, which has failed"
            await self._release(SongState.FAILED, reason)

    @property
    def _state_if_unknown(self) -> SongState:
        return SongState.IN_DOUBT if self.may_have_job else SongState.WANTED

    async def _on_error(self, error: KieCoverError) -> KieCoverError | None:
        if isinstance(error, CoverAlreadyExistsError) and error.existing_task_id is not None:
            self.may_have_job = False
            await self._record_id(error.existing_task_id)
            return None
        is_unknown = error.maybe_accepted or isinstance(error, CoverAlreadyExistsError)
        refuse = self._state.refuse
        state = self._state_if_unknown if is_unknown else refuse(self.music_task_id, error)
        self.may_have_job = state is SongState.IN_DOUBT
        await self._release(state, str(error))
        await self._state.take_back_refusals()
        if isinstance(error, ClientClosedError):
            raise error
        return error

    async def _release(self, state: SongState, reason: str | None = None) -> None:
        """End the claim, if there is one."""
        if self._claiming is not None and (claim := await self._claiming) is not None:
            await self._state.ledger.release(claim, state, reason)
