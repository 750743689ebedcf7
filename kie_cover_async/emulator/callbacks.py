"""Callbacks: what is sent when a job ends, when it is sent, and what goes wrong with it."""

import asyncio
import hmac
import logging
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from ipaddress import ip_address
from random import Random
from typing import Any, Literal, NamedTuple

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from attrs import define, field, frozen
from attrs.validators import optional
from yarl import URL

from . import values
from .faults import to_json
from .jobs import Instant, Job
from .values import Duration, draw

Kind = Literal["genuine", "repeated", "wrong-signature", "forged"]
Publish = Callable[[Job], list[str]]

_FORGED_ORIGIN = "https://forged.example/s"
_WRONG_KEY = "a key that no receiver has"
_MAX_CONCURRENT = 100
# Seconds. Shorter than any server's, which therefore never closes a connection that is reused.
_KEEPALIVE = 1.0

_log = logging.getLogger(__name__)


class Posting(NamedTuple):
    """A callback to send, so many seconds after its event."""

    kind: Kind
    after: float


class Course(NamedTuple):
    """The callbacks of one job: those sent after its creation, and those after its end."""

    from_creation: tuple[Posting, ...]
    from_end: tuple[Posting, ...]


@frozen(kw_only=True)
class CallbackPlan:
    """How the emulator sends callbacks, and what goes wrong with them.

    Shares are of the jobs that have a callback URL, from 0 to 1; which jobs they affect depends
    only on the seed and the song. Durations are seconds: a number, a range to draw from uniformly,
    or a callable that is given a `random.Random`.

    - `delay`: from the end of a job to its callback. With a range, some overtake others.
    - `late`, `late_by`: the share with an additional delay, and that delay.
    - `lost`: the share that is never sent.
    - `duplicated`, `duplicate_after`: the share that is sent again although the first one was
      accepted, and how long after it.
    - `wrong_signature`: the share that is signed with an unknown key, each time.
    - `forged`: the share for which an attacker posts a success with images of
      `https://forged.example`, under a correct signature. It comes before the job has ended, or up
      to a second after the genuine one, or instead of it.
    - `response_timeout`: seconds in which HTTP 200 must arrive. Any other result is a failed
      attempt.
    - `max_attempts`, `retry_interval`: the number of failed attempts after which the emulator gives
      up, and the seconds between two. The service gives up after three of 15 s each; its interval
      is not known.
    - `allow_remote`: whether to post to other machines. If it is `False`, such callbacks are logged
      and dropped.
    """

    delay: Duration = field(default=0.0, validator=values.duration)
    late: float = field(default=0.0, validator=values.share)
    late_by: Duration = field(default=(1.0, 5.0), validator=values.duration)
    lost: float = field(default=0.0, validator=values.share)
    duplicated: float = field(default=0.0, validator=values.share)
    duplicate_after: Duration = field(default=(0.0, 1.0), validator=values.duration)
    wrong_signature: float = field(default=0.0, validator=values.share)
    forged: float = field(default=0.0, validator=values.share)
    response_timeout: float = field(default=15.0, validator=values.positive_seconds)
    max_attempts: int = field(default=3, validator=values.count)
    retry_interval: float = field(default=1.0, validator=values.seconds)
    allow_remote: bool = field(default=False, validator=values.boolean)

    def course(self, rng: Random, seconds: float) -> Course:
        """Return the callbacks of a job that takes `seconds`, or 0 if only polls end it."""
        # Everything is drawn whatever the shares, so that no share affects another.
        late, lost, duplicated, wrong, forged, place, offset = (rng.random() for _ in range(7))
        durations = (self.delay, self.late_by, self.duplicate_after)
        delay, late_by, duplicate_after = (draw(duration, rng) for duration in durations)
        due = delay + (late_by if late < self.late else 0.0)
        kinds: tuple[Kind, Kind] = ("genuine", "repeated")
        if wrong < self.wrong_signature:
            kinds = ("wrong-signature", "wrong-signature")
        pair = (Posting(kinds[0], due), Posting(kinds[1], due + duplicate_after))
        genuine = () if lost < self.lost else pair[: 2 if duplicated < self.duplicated else 1]
        if forged >= self.forged:
            return Course((), genuine)
        if place < 1 / 3:
            return Course((Posting("forged", offset * seconds),), genuine)
        if place < 2 / 3:
            return Course((), (*genuine, Posting("forged", due + offset)))
        return Course((), (Posting("forged", due),))


@frozen(kw_only=True)
class SentCallback:
    """One attempt to send a callback, recorded when it was over.

    `kind` is `genuine`, `repeated` (although the genuine one may have been accepted),
    `wrong-signature` or `forged`. `attempt` counts the attempts for this callback from 1. `status`
    is the HTTP status of the answer; if there was none, `error` says why. `sent` is in
    `loop.time()`.
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


def compose(
    job: Job, kind: Kind, publish: Publish, key: str | None, wall_time: float
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers, signed at `wall_time` (Unix seconds) if there is a key."""
    body = _forged_body(job) if kind == "forged" else _genuine_body(job, publish)
    key = _WRONG_KEY if kind == "wrong-signature" else key
    signature = {} if key is None else _signature(key, job.task_id, int(wall_time))
    return body, {"Content-Type": "application/json", **signature}


def _genuine_body(job: Job, publish: Publish) -> bytes:
    job.end()
    return _body(job, publish(job) if job.outcome == "success" else None)


def _forged_body(job: Job) -> bytes:
    name = blake2b(job.task_id.encode(), digest_size=16).hexdigest()
    return _body(job, [f"{_FORGED_ORIGIN}/{name}_{n}.png" for n in range(2)])


def _body(job: Job, images: list[str] | None) -> bytes:
    return to_json((job.callback_body or _suno_body)(job, images))


def _suno_body(job: Job, images: list[str] | None) -> dict[str, Any]:
    code, msg = 200, "success"
    if images is None:
        code = job.script.error_code if isinstance(job.script.error_code, int) else 501
        msg = job.script.error_message or "Cover generation failed"
    return {"code": code, "msg": msg, "data": {"taskId": job.task_id, "images": images}}


def _signature(key: str, task_id: str, timestamp: int) -> dict[str, str]:
    """Return the two headers; only the task id and the timestamp are signed."""
    digest = b64encode(hmac.digest(key.encode(), f"{task_id}.{timestamp}".encode(), "sha256"))
    return {"X-Webhook-Timestamp": str(timestamp), "X-Webhook-Signature": digest.decode()}


@define(eq=False)
class _Pending:
    """A callback that was neither accepted nor given up."""

    job: Job
    kind: Kind
    due: float
    attempt: int = 1

    @property
    def url(self) -> str:
        return self.job.callback_url or ""


@define(eq=False)
class CallbackSender:
    """Sends the callbacks that are due while it is open; pending ones outlive closing."""

    plan: CallbackPlan = field(validator=values.instance(CallbackPlan, "callbacks"))
    key: str | None = field(repr=False, validator=optional(values.key("the callback key")))
    seed: int | str
    publish: Publish
    now: Callable[[], Instant]
    keep_sent: bool
    sent: list[SentCallback] = field(factory=list, init=False)
    _timers: dict[_Pending, asyncio.TimerHandle | None] = field(factory=dict, init=False)
    _ended_by_poll: dict[str, tuple[Posting, ...]] = field(factory=dict, init=False)
    _refused_hosts: set[str] = field(factory=set, init=False)
    # While it is open:
    _session: ClientSession | None = field(default=None, init=False)
    _slots: asyncio.Semaphore = field(init=False)
    _tasks: set[asyncio.Task[None]] = field(factory=set, init=False)

    def on_job_added(self, job: Job) -> None:
        """Plan the callbacks of a new job; the end of most jobs is already known."""
        if job.callback_url is None or not self._may_reach(job.callback_url):
            return
        rng = Random(f"{self.seed}/callback/{job.music_task_id}")
        course = self.plan.course(rng, 0.0 if job.ends_by_poll else job.seconds)
        self._expect(job, course.from_creation, job.created.loop)
        if job.ends_by_poll:
            self._ended_by_poll[job.task_id] = course.from_end
        elif job.outcome != "never":
            self._expect(job, course.from_end, job.created.loop + job.seconds)

    def on_end_polled(self, job: Job) -> None:
        """Plan the callbacks of a job whose end only its polls decide."""
        self._expect(job, self._ended_by_poll.pop(job.task_id, ()), self.now().loop)

    def open(self) -> None:
        # Attempts wait for a slot before the receiver's time starts.
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT)
        self._session = ClientSession(
            connector=TCPConnector(limit=_MAX_CONCURRENT, keepalive_timeout=_KEEPALIVE),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=self.plan.response_timeout),
        )
        for callback in list(self._timers):
            self._schedule(callback)

    async def close(self) -> None:
        """Cancel running attempts, which do not count and are repeated after the next `open`."""
        session, self._session = self._session, None
        for timer in filter(None, self._timers.values()):
            timer.cancel()
        if session is not None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await session.close()

    def _may_reach(self, url: str) -> bool:
        if self.plan.allow_remote or is_loopback(url):
            return True
        host = _host_of(url)
        if host not in self._refused_hosts:
            self._refused_hosts.add(host)
            _log.info("callbacks to %r are dropped: the emulator posts to loopback only", host)
        return False

    def _expect(self, job: Job, postings: Iterable[Posting], event: float) -> None:
        for kind, after in postings:
            self._schedule(_Pending(job, kind, event + after))

    def _schedule(self, callback: _Pending) -> None:
        self._timers[callback] = None
        if self._session is not None:
            start, loop = self._start_attempt, asyncio.get_running_loop()
            self._timers[callback] = loop.call_at(callback.due, start, callback, self._session)

    def _start_attempt(self, callback: _Pending, session: ClientSession) -> None:
        task = asyncio.get_running_loop().create_task(self._attempt(callback, session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, callback: _Pending, session: ClientSession) -> None:
        async with self._slots:
            now = self.now()
            job, kind, url = callback.job, callback.kind, callback.url
            body, headers = compose(job, kind, self.publish, self.key, now.wall)
            status, error = await self._post(session, url, body, headers)
        del self._timers[callback]
        if self.keep_sent:
            sent = SentCallback(
                task_id=job.task_id,
                kind=kind,
                attempt=callback.attempt,
                url=url,
                headers=headers,
                body=body,
                sent=now.loop,
                status=status,
                error=error,
            )
            self.sent.append(sent)
        if status != 200:
            self._retry(callback, error or f"HTTP {status}")

    def _retry(self, callback: _Pending, reason: str) -> None:
        if callback.attempt < self.plan.max_attempts:
            callback.attempt += 1
            callback.due = self.now().loop + self.plan.retry_interval
            self._schedule(callback)
        else:
            _log.info(
                "gave up the callback for %s: attempts at %s failed %d times, the last by %s",
                callback.job.task_id,
                _host_of(callback.url),
                callback.attempt,
                reason,
            )

    async def _post(
        self, session: ClientSession, url: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int | None, str | None]:
        """Return the HTTP status, or else the reason why there is none."""
        try:
            # A redirect could lead to another machine.
            async with session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                return answer.status, None
        except TimeoutError:
            return None, f"no answer within {self.plan.response_timeout:g} s"
        except (ClientError, OSError, ValueError) as error:
            return None, f"{type(error).__name__}: {error}"


@lru_cache(maxsize=1024)
def is_loopback(url: str) -> bool:
    """Return whether a request to this URL stays on this machine."""
    host = _host_of(url)
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(url: str) -> str:
    try:
        return URL(url).host or ""
    except ValueError:
        return ""
