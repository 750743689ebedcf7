"""Keeps the callbacks that are due, sends them, and sends again what was not accepted."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from random import Random

from attrs import define, field, frozen
from attrs.validators import optional

from kie_cover_async.emulator import accepted
from kie_cover_async.emulator.callbacks.message import Message, written
from kie_cover_async.emulator.callbacks.plan import CallbackPlan, Kind, Posting
from kie_cover_async.emulator.callbacks.post import Outbox, host_of, is_loopback
from kie_cover_async.emulator.jobs import Job, Moment

_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class SentCallback:
    """One try at a callback, noted when it was over.

    `kind` is `genuine`, `repeated` (although the genuine one may have been accepted),
    `wrong-signature` or `forged`. `attempt` counts the tries at this one from 1. `status` is the
    HTTP status that was answered; where nothing was, `error` says why. `sent` is in `loop.time()`.
    """

    task_id: str
    kind: Kind
    attempt: int
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes
    sent: float
    status: int | None
    error: str | None


@define(eq=False)
class _Callback:
    """One that has been neither accepted nor given up."""

    job: Job
    url: str
    kind: Kind
    due: float
    attempt: int = 1


@define(kw_only=True, eq=False)
class CallbackSender:
    """Callbacks that are due are sent while it is open; those still to be sent outlive closing."""

    plan: CallbackPlan = field(validator=accepted.a(CallbackPlan, "callbacks"))
    key: str | None = field(repr=False, validator=optional(accepted.key("the callback key")))
    seed: int | str
    images_of: Callable[[Job], list[str]]
    now: Callable[[], Moment]
    keep_sent: bool
    sent: list[SentCallback] = field(factory=list)
    _timers: dict[_Callback, asyncio.TimerHandle | None] = field(factory=dict, init=False)
    _ended_by_poll: dict[str, tuple[Posting, ...]] = field(factory=dict, init=False)
    _refused_hosts: set[str] = field(factory=set, init=False)
    _outbox: Outbox | None = field(default=None, init=False)

    def job_added(self, job: Job) -> None:
        """Takes in a new job; most know already when they will end."""
        if job.callback_url is None or not self._may_reach(job.callback_url):
            return
        dice = Random(f"{self.seed}/callback/{job.music_task_id}")
        course = self.plan.course(dice, 0.0 if job.ends_by_poll else job.seconds)
        self._expect(job, course.from_creation, job.created.loop)
        if job.ends_by_poll:
            self._ended_by_poll[job.task_id] = course.from_end
        elif job.outcome != "never":
            self._expect(job, course.from_end, job.created.loop + job.seconds)

    def job_seen_ended(self, job: Job) -> None:
        """A poll found the job ended, which is news where only its polls know the end."""
        self._expect(job, self._ended_by_poll.pop(job.task_id, ()), self.now().loop)

    def open(self) -> None:
        self._outbox = Outbox(self.plan.response_timeout)
        for callback in list(self._timers):
            self._schedule(callback)

    async def close(self) -> None:
        """A try that is cut off counts for nothing, and is made again after the next `open`."""
        outbox, self._outbox = self._outbox, None
        for timer in filter(None, self._timers.values()):
            timer.cancel()
        if outbox is not None:
            await outbox.close()

    def _may_reach(self, url: str) -> bool:
        if self.plan.allow_remote or is_loopback(url):
            return True
        host = host_of(url)
        if host not in self._refused_hosts:
            self._refused_hosts.add(host)
            _log.info("callbacks to %r are dropped: the emulator posts to loopback only", host)
        return False

    def _expect(self, job: Job, postings: Iterable[Posting], event: float) -> None:
        for kind, after in postings:
            self._schedule(_Callback(job, job.callback_url or "", kind, event + after))

    def _schedule(self, callback: _Callback) -> None:
        self._timers[callback] = None
        if self._outbox is not None:
            loop = asyncio.get_running_loop()
            self._timers[callback] = loop.call_at(callback.due, self._begin, callback, self._outbox)

    def _begin(self, callback: _Callback, outbox: Outbox) -> None:
        outbox.start(self._try(callback, outbox))

    async def _try(self, callback: _Callback, outbox: Outbox) -> None:
        async with outbox.places:
            now = self.now()
            message = written(callback.job, callback.kind, self.images_of, self.key, now.wall)
            status, error = await outbox.post(callback.url, message)
        del self._timers[callback]
        self._note(callback, message, now.loop, status, error)
        if status == 200:
            return
        if callback.attempt < self.plan.max_attempts:
            callback.attempt += 1
            callback.due = self.now().loop + self.plan.retry_interval
            self._schedule(callback)
        else:
            self._give_up(callback, error or f"HTTP {status}")

    def _give_up(self, callback: _Callback, why: str) -> None:
        _log.info(
            "no callback for %s any more: tries at %s failed %d times, at last by %s",
            callback.job.task_id,
            host_of(callback.url),
            callback.attempt,
            why,
        )

    def _note(
        self,
        callback: _Callback,
        message: Message,
        sent: float,
        status: int | None,
        error: str | None,
    ) -> None:
        if not self.keep_sent:
            return
        seen = SentCallback(
            task_id=callback.job.task_id,
            kind=callback.kind,
            attempt=callback.attempt,
            url=callback.url,
            headers=message.headers,
            body=message.body,
            sent=sent,
            status=status,
            error=error,
        )
        self.sent.append(seen)
