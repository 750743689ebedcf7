"""Slots at equal intervals for all processes, kept in Redis by its own clock.

The algorithm is that of `LocalSlots`, GCRA in its virtual scheduling form (ITU-T I.371), as a Lua
script. Each request leases one slot, in one round trip.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NoReturn

from . import redis_client
from .redis_client import TIMEOUT, connect

if TYPE_CHECKING:
    from redis.asyncio import Redis

_log = logging.getLogger(__name__)

# Seconds without a request after which a process no longer counts.
_PROCESS_PERIOD = 10.0
# A slot is lost if it is not used within this share of an interval: then no window sees more than
# one request above the rate. The share doubles with each lost slot, up to so many times, so that a
# busy event loop is slowed down and not stopped.
_MAX_LATENESS, _MAX_LOST = 0.9, 6
# Seconds between two attempts to reach Redis during an outage. After it, slots begin so many
# seconds later: until then others may not have noticed that Redis is back.
_PROBE_INTERVAL, _RETURN_DELAY = (0.5, 1.2), 2.0
# In an outage the clocks of the processes drift apart, so they leave a tenth of the rate unused.
_OUTAGE_FACTOR = 1.1

# Keys: the theoretical arrival time of the next request, the end of the pause, the processes. Times
# are microseconds of the server's clock, written by `%.0f` because Lua's own format has 14 digits.
# Arguments: interval, seconds to begin after now, name of the process, its period.
# Returns microseconds until the slot, and until the pause ends, and the number of processes.
_LEASE = """
local function whole(number) return string.format('%.0f', number) end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, period = tonumber(ARGV[1]), tonumber(ARGV[4])
local arrival = tonumber(redis.call('GET', KEYS[1]) or '0')
local paused = tonumber(redis.call('GET', KEYS[2]) or '0')
local slot = math.max(now + tonumber(ARGV[2]), arrival, paused)
local kept = math.ceil((slot + interval - now) / 1000) + 1000
redis.call('SET', KEYS[1], whole(slot + interval), 'PX', whole(kept))
redis.call('ZADD', KEYS[3], whole(now), ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', whole(now - period))
redis.call('PEXPIRE', KEYS[3], whole(period / 1000))
return {whole(slot - now), whole(math.max(0, paused - now)), redis.call('ZCARD', KEYS[3])}
"""
# Keys: the end of the pause. Arguments: its length, and the channel.
_PAUSE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local length = tonumber(ARGV[1])
if now + length > tonumber(redis.call('GET', KEYS[1]) or '0') then
    local kept = string.format('%.0f', math.ceil(length / 1000) + 1)
    redis.call('SET', KEYS[1], string.format('%.0f', now + length), 'PX', kept)
end
redis.call('PUBLISH', ARGV[2], ARGV[1])
"""


class RedisSlots:
    """A `SlotSource` of slots that all processes share; they belong to one event loop.

    Args:
        url: The Redis server.
        name: Sources of the same name share their slots.
        interval: Seconds between two slots.
        on_change: Called when the time of the next slot becomes known or changes.
        on_pause: Called with the seconds for which another process has paused all.
        sends_in_outage: Whether there are slots while Redis cannot be reached.
    """

    def __init__(
        self,
        url: str,
        name: str,
        interval: float,
        *,
        on_change: Callable[[], object],
        on_pause: Callable[[float], object],
        sends_in_outage: bool,
    ) -> None:
        self._url = url
        self._name = name
        # One hash slot, so that a cluster can run the scripts.
        key = f"{{kie-cover:{name}}}"
        self._keys = [f"{key}:arrival", f"{key}:pause", f"{key}:processes"]
        self._channel = f"{key}:pauses"
        self._interval = interval
        self._on_change = on_change
        self._on_pause = on_pause
        self._sends_in_outage = sends_in_outage
        self._process = token_hex(8)
        self._redis: Redis | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_leasing = False
        self._is_down = False
        self._processes = 1
        self._slot: float | None = None
        self._lost = 0
        self._last = -inf

    def opens_at(self) -> float:
        """Return when the leased slot opens; lease one if there is none."""
        now = asyncio.get_running_loop().time()
        if self._slot is not None and now - self._slot > self._max_lateness:
            self._slot = None
            self._lost = min(self._lost + 1, _MAX_LOST)
        if self._slot is not None:
            return self._slot
        if not self._is_leasing:
            self._is_leasing = True
            self._start(self._lease)
        if self._is_down and self._sends_in_outage:
            return self._last + self._interval * self._processes * _OUTAGE_FACTOR
        return inf

    def take(self, now: float) -> bool:
        """Use the leased slot, or one of the outage; return `False` if neither is open."""
        if now < self.opens_at():
            return False
        self._slot, self._last, self._lost = None, now, 0
        return True

    def pause(self, seconds: float) -> None:
        """Pause the other processes."""
        self._start(self._publish_pause, seconds)

    async def aclose(self) -> None:
        """End all tasks, and close the connections; the next request opens them again."""
        # Repeated, because `asyncio.wait_for` of Python 3.11, as redis-py uses it, can lose one.
        while tasks := [*self._tasks]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=TIMEOUT)
        self._redis, self._slot, self._is_down = None, None, False

    @property
    def _max_lateness(self) -> float:
        return self._interval * _MAX_LATENESS * 2.0**self._lost

    def _start(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: float) -> None:
        if self._redis is None:
            self._redis = connect(self._url)
            self._create_task(self._listen(self._redis))
        self._create_task(work(self._redis, *arguments))

    def _create_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _lease(self, redis: "Redis") -> None:
        """Lease the next slot, however long Redis is away."""
        try:
            slot = await self._try_lease(redis)
            if slot is None:
                slot = await self._lease_after_outage(redis)
        finally:
            self._is_leasing = False
        self._slot = slot
        self._on_change()

    async def _lease_after_outage(self, redis: "Redis") -> float:
        goes_on = "this process goes on at its share of the rate"
        effect = goes_on if self._sends_in_outage else "requests wait for it"
        _log.warning("Redis cannot be reached for the rate limit %r: %s", self._name, effect)
        self._is_down, slot = True, None
        self._on_change()
        while slot is None:
            await asyncio.sleep(random.uniform(*_PROBE_INTERVAL))
            slot = await self._try_lease(redis, begin_after=_RETURN_DELAY)
        self._is_down = False
        _log.warning("Redis is back: the rate limit %r is shared again", self._name)
        return slot

    async def _try_lease(self, redis: "Redis", begin_after: float = 0.0) -> float | None:
        """Return the time of a slot, or `None` if Redis did not answer."""
        values = (
            round(self._interval * 1e6),
            round(begin_after * 1e6),
            self._process,
            round(_PROCESS_PERIOD * 1e6),
        )
        reply = await self._ask(redis.register_script(_LEASE)(self._keys, values))
        if reply is None:
            return None
        # Counted from the arrival of the reply, so a slot may be late and is never early.
        now = asyncio.get_running_loop().time()
        until_slot, until_end, processes = reply
        self._processes = int(processes)
        if pause := int(until_end):
            self._on_pause(pause / 1e6)
        return now + int(until_slot) / 1e6

    async def _publish_pause(self, redis: "Redis", seconds: float) -> None:
        # The script as text: the first call by its hash would take three round trips.
        values = (self._keys[1], str(round(seconds * 1e6)), self._channel)
        await self._ask(redis.eval(_PAUSE, 1, *values))

    async def _listen(self, redis: "Redis") -> None:
        """Receive the pauses of other processes until this is closed, and then close Redis."""
        from redis.exceptions import RedisError  # noqa: PLC0415 - an extra

        try:
            while True:
                try:
                    await self._receive_pauses(redis)
                except (RedisError, OSError) as error:
                    _log.debug("pauses of other processes are not received: %s", error)
                await asyncio.sleep(random.uniform(*_PROBE_INTERVAL))
        finally:
            await redis.aclose()

    async def _receive_pauses(self, redis: "Redis") -> NoReturn:
        async with redis.pubsub() as pubsub:
            await pubsub.subscribe(self._channel)
            while True:
                # Each call sends a ping if it is time: a connection that was cut looks open.
                message = await pubsub.get_message(timeout=redis_client.PING_INTERVAL)
                if message is not None and message["type"] == "message":
                    self._on_pause(int(message["data"]) / 1e6)

    async def _ask(self, command: Awaitable[Any]) -> Any:
        """Return the reply; `None` if Redis cannot be reached, refuses, or takes too long."""
        from redis.exceptions import RedisError  # noqa: PLC0415 - an extra

        try:
            async with asyncio.timeout(2 * TIMEOUT):
                return await command
        except (RedisError, OSError) as error:
            _log.debug("Redis did not run a script: %s", error)
            return None
