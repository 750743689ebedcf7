"""`CallbackBus`: a callback that reaches one process wakes the waits of all, over a Redis stream.

Each process reads the stream for itself, from the last entry that it has seen, so a connection that
is cut loses nothing: pub/sub and consumer groups would.
"""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeGuard

from attrs import define, field, frozen

from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.validation import is_one_word, short_repr

from .redis_client import TIMEOUT, check_name, check_url, connect

if TYPE_CHECKING:
    from redis.asyncio import Redis

_log = logging.getLogger(__name__)

# Entries that the stream keeps, about, and callbacks that wait until they can be added to it.
_MAX_ENTRIES = _MAX_PENDING = 10_000
# Seconds. A process begins with the callbacks of that time, and older ones are not added.
_RETENTION = 300.0
# Seconds, and callbacks: the last ones are added again if a store has lost them, because others may
# not have read them.
_REPEATED, _MAX_REPEATED = 5.0, 1000
# Seconds for which a read waits for the next entry, and a cut connection may look open.
_READ_WAIT = 2.0
# Entries of one read, so that many do not block the event loop.
_READ_COUNT = 500
# Seconds between two attempts to reach Redis during an outage.
_PROBE_INTERVAL = (0.5, 1.2)
# Characters. aiohttp accepts no longer URL, and so no song of more.
_MAX_ID_LENGTH = 8190


class CallbackBus:
    """Passes each callback that reaches this process on to the inboxes of all, and theirs to it::

        inbox = CallbackInbox(keys="the account's webhookHmacKey")
        async with CallbackBus("redis://localhost", inbox), CoverClient(inbox=inbox) as client:
            …

    Only ids are passed on, and the songs at whose own URLs callbacks came. A callback is verified
    by the inbox that receives it. When it starts, a bus gives its inbox the callbacks of the last
    five minutes. While Redis cannot be reached, the inbox works as without a bus; callbacks that
    came meanwhile are passed on afterwards, those of five minutes and ten thousand at most. A
    callback may be passed on twice, which costs a poll. Redis needs no persistence: what it loses
    is added again.

    Args:
        url: As in redis-py: `redis://[:password@]host:port/db`, `rediss://` for TLS, or `unix://`.
        inbox: The inbox of this process; enter the bus in its event loop.
        name: Buses of the same name are connected.

    Raises:
        ImportError: redis-py is not installed.
    """

    def __init__(self, url: str, inbox: CallbackInbox, *, name: str = "kie") -> None:
        if not isinstance(inbox, CallbackInbox):
            raise TypeError(f"inbox must be a CallbackInbox, not {short_repr(inbox)}")
        self._name = check_name(name)
        self._url = check_url(url)
        self._inbox = inbox
        self._open: AsyncExitStack | None = None

    def __repr__(self) -> str:
        # The URL may have a password.
        return f"CallbackBus(…, {self._inbox!r}, name={self._name!r})"

    async def __aenter__(self) -> Self:
        if self._open is not None:
            raise RuntimeError("this CallbackBus is open already")
        loop = asyncio.get_running_loop()
        # Made here, since a process that is forked later must have another name.
        stream = _Stream(f"{{kie-cover:{self._name}}}:callbacks", token_hex(8))
        outage = _Outage(self._name)
        async with AsyncExitStack() as stack:
            connections = connect(self._url), connect(self._url, _READ_WAIT + TIMEOUT)
            for redis in connections:
                stack.push_async_callback(redis.aclose)
            publisher = _Publisher(connections[0], stream, outage)
            stack.push_async_callback(publisher.aclose)
            stack.callback(self._inbox.subscribe_received(publisher.publish))
            reader = _Reader(
                connections[1], stream, outage, self._inbox.notify, on_lost=publisher.repeat
            )
            stack.push_async_callback(_end, loop.create_task(reader.run()))
            self._open = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Pass on what came last, for a second at most, and close the connections."""
        if self._open is not None:
            stack, self._open = self._open, None
            await stack.aclose()


@frozen
class _Stream:
    """The key of the stream, and the name by which a process recognizes its own entries."""

    key: str
    source: str


@define(eq=False)
class _Outage:
    """Counts the failures of reading and of publishing in a row, and logs begin and end."""

    name: str
    not_passed_on: int = 0
    _failures: Counter[str] = field(factory=Counter, init=False)
    _is_down: bool = field(default=False, init=False)

    async def on_failure(self, action: str, error: Exception) -> None:
        """Return when the next attempt is due.

        The first one is due immediately: the connection may have been cut because it was idle.
        """
        _log.debug("Redis failed at %s callbacks: %s", action, error)
        self._failures[action] += 1
        if self._failures[action] == 1:
            return
        if not self._is_down:
            self._is_down = True
            message = "Redis fails for the callback bus %r: callbacks stay in their processes: %s"
            _log.warning(message, self.name, error)
        await asyncio.sleep(random.uniform(*_PROBE_INTERVAL))

    def on_success(self, action: str) -> None:
        """End the outage if nothing else fails."""
        del self._failures[action]
        if self._is_down and not self._failures:
            message = "Redis is back: the callback bus %r passes callbacks on again; %d were not"
            _log.warning(message, self.name, self.not_passed_on)
            self._is_down, self.not_passed_on = False, 0


@frozen(eq=False)
class _Callback:
    received_at: float
    fields: dict[Any, Any]


class _Publisher:
    """Adds callbacks to the stream in their order, by a task that runs while there are any."""

    def __init__(self, redis: "Redis", stream: _Stream, outage: _Outage) -> None:
        self._redis = redis
        self._stream = stream
        self._outage = outage
        self._pending: deque[_Callback] = deque()
        self._added: deque[_Callback] = deque(maxlen=_MAX_REPEATED)
        self._task: asyncio.Task[None] | None = None

    def publish(self, task_id: str, music_task_id: str | None) -> None:
        """Add a callback as soon as Redis can be reached."""
        loop = asyncio.get_running_loop()
        fields = {"source": self._stream.source, "task_id": task_id}
        if music_task_id is not None:
            fields["music_task_id"] = music_task_id
        if len(self._pending) >= _MAX_PENDING:
            self._drop()
        self._pending.append(_Callback(loop.time(), fields))
        self._start()

    def repeat(self) -> None:
        """Add the last callbacks again, since the store has lost them."""
        begin = asyncio.get_running_loop().time() - _RETENTION
        recent = [each for each in self._added if each.received_at > begin]
        self._added.clear()
        self._pending.extendleft(reversed(recent))
        self._start()

    async def aclose(self) -> None:
        """Add what is pending, for a second at most."""
        if self._task is not None:
            try:
                await asyncio.wait([self._task], timeout=2 * TIMEOUT)
            finally:
                await _end(self._task)
        if self._pending:
            message = "the callback bus %r was closed: %d callbacks were not passed on"
            _log.warning(message, self._outage.name, len(self._pending))

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        from redis.exceptions import RedisError  # noqa: PLC0415 - an extra

        loop = asyncio.get_running_loop()
        while self._pending:
            callback = self._pending[0]
            if loop.time() - callback.received_at > _RETENTION:
                self._drop()
                continue
            try:
                await self._redis.xadd(self._stream.key, callback.fields, maxlen=_MAX_ENTRIES)
            except (RedisError, OSError) as error:
                await self._outage.on_failure("publishing", error)
                continue
            self._outage.on_success("publishing")
            self._note_added(callback)
            # It may have been dropped meanwhile.
            if self._pending[0] is callback:
                self._pending.popleft()

    def _note_added(self, callback: _Callback) -> None:
        self._added.append(callback)
        while callback.received_at - self._added[0].received_at > _REPEATED:
            self._added.popleft()

    def _drop(self) -> None:
        self._pending.popleft()
        self._outage.not_passed_on += 1


class _Reader:
    """Reads the callbacks of other processes, and resumes after the last one that it has seen."""

    def __init__(
        self,
        redis: "Redis",
        stream: _Stream,
        outage: _Outage,
        notify: Callable[[str, str | None], object],
        on_lost: Callable[[], object],
    ) -> None:
        self._redis = redis
        self._stream = stream
        self._outage = outage
        self._notify = notify
        self._on_lost = on_lost
        self._position = self._last = ""

    async def run(self) -> NoReturn:
        """Read until this is cancelled."""
        from redis.exceptions import RedisError  # noqa: PLC0415 - an extra

        while True:
            try:
                await self._check_position()
                while await self._read():
                    pass
            except (RedisError, OSError) as error:
                await self._outage.on_failure("reading", error)

    async def _check_position(self) -> None:
        """Begin with the last minutes, unless the stream still has the last entry that was seen.

        If it has not, the store has lost what others may not have read, and its clock may be
        another one. An entry may be read twice, but none is left out.
        """
        key, last = self._stream.key, self._last
        if last and await self._redis.xrange(key, last, last):
            return
        seconds, _ = await self._redis.time()
        self._position = f"{int((seconds - _RETENTION) * 1000)}-0"
        if last:
            self._last = ""
            self._on_lost()

    async def _read(self) -> bool:
        """Notify the inbox of the next entries; return `False` if none came for a while."""
        streams: dict[Any, Any] = {self._stream.key: self._position}
        reply = await self._redis.xread(streams, _READ_COUNT, round(_READ_WAIT * 1000))
        self._outage.on_success("reading")
        for entry, fields in _entries(reply):
            self._position = self._last = entry
            if fields.get("source") != self._stream.source:
                self._pass_on(entry, fields)
        return bool(reply)

    def _pass_on(self, entry: str, fields: dict[str, str]) -> None:
        task_id, music_task_id = fields.get("task_id"), fields.get("music_task_id")
        if _is_id(task_id) and (music_task_id is None or _is_id(music_task_id)):
            # What a listener raises is reported by the loop, and does not end this task.
            asyncio.get_running_loop().call_soon(self._notify, task_id, music_task_id)
        else:
            _log.debug("entry %s of %s is not a callback", entry, self._stream.key)


def _entries(reply: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the entries of a read, as either version of the protocol returns them."""
    if isinstance(reply, dict):
        reply = [(key, entries) for key, [entries] in reply.items()]
    for _, entries in reply:
        yield from entries


def _is_id(value: object) -> TypeGuard[str]:
    return is_one_word(value) and len(value) <= _MAX_ID_LENGTH


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and raise its error if it failed."""
    # Repeated, because `asyncio.wait_for` of Python 3.11, as redis-py uses it, can lose one.
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=TIMEOUT)
    if not task.cancelled():
        task.result()
