"""One rate limit over several processes: limiters that share a Redis server."""

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
from redis import Redis
from support.redis_server import needs_redis

from kie_cover_async.fleet import SharedRateLimiter, redis_client

pytestmark = needs_redis

RATE = 50
INTERVAL = 1 / RATE
ARRIVAL = "{kie-cover:kie}:arrival"


@pytest.fixture
async def limiters(redis):
    """Return limiters as different processes would make them."""
    async with AsyncExitStack() as stack:

        async def limiters(count, number=RATE, **options):
            made = [SharedRateLimiter(redis.url, number, **options) for _ in range(count)]
            return [await stack.enter_async_context(limiter) for limiter in made]

        yield limiters


async def acquire(limiter, count, times):
    for _ in range(count):
        times.append((await limiter.acquire(), limiter))


async def saturate(limiters, count):
    """Let each limiter take so many slots, all at the same time; return (time, limiter) sorted."""
    times = []
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for limiter in limiters:
            group.create_task(acquire(limiter, count, times))
    return sorted(times, key=lambda each: each[0])


def intervals(times):
    return [later[0] - earlier[0] for earlier, later in pairwise(times)]


async def test_all_processes_share_the_rate(limiters):
    """Three saturated processes send no more together than one may send alone."""
    times = await saturate(await limiters(3), 10)
    duration = times[-1][0] - times[0][0]
    assert duration >= 29 * INTERVAL - INTERVAL


async def test_saturated_processes_get_equal_shares(limiters):
    """While three processes always want slots, none falls behind the others."""
    three = await limiters(3)
    first = [limiter for _, limiter in (await saturate(three, 10))[:24]]
    assert min(first.count(limiter) for limiter in three) >= 6


async def test_names_have_limits_of_their_own(limiters):
    """Two limiters of different names do not wait for each other."""
    [one] = await limiters(1, 1, per=60.0, name="one")
    [other] = await limiters(1, 1, per=60.0, name="other")
    async with asyncio.timeout(5):
        await one.acquire()
        await other.acquire()


async def test_pause_stops_all_processes(limiters, redis, eventually):
    """During a pause of one process the others get no slots."""
    one, other = await limiters(2)
    await one.acquire()
    await other.acquire()
    paused_at = asyncio.get_running_loop().time()
    one.pause(0.3)
    with Redis.from_url(redis.url) as client:
        await eventually(lambda: client.exists("{kie-cover:kie}:pause"))
    times = await saturate([one, other], 2)
    assert times[0][0] >= paused_at + 0.3
    assert min(intervals(times)) >= 0.2 * INTERVAL


async def test_pause_reaches_a_process_that_holds_a_slot(limiters, redis, eventually):
    """A process that has leased a slot of the near future does not use it during a pause."""
    one, other = await limiters(2, 4)
    await one.acquire()
    await other.acquire()
    with Redis.from_url(redis.url) as client:
        leased = client.get(ARRIVAL)
        queued = asyncio.create_task(other.acquire())
        await eventually(lambda: client.get(ARRIVAL) != leased)
    paused_at = asyncio.get_running_loop().time()
    one.pause(1.0)
    async with asyncio.timeout(5):
        assert await queued >= paused_at + 1.0


async def test_shorter_pause_ends_no_longer_one(limiters):
    """The longest pause in force counts, whichever process began it."""
    one, other, third = await limiters(3)
    begun_at = asyncio.get_running_loop().time()
    one.pause(0.5)
    await acquire(one, 1, times := [])
    other.pause(0.01)
    await acquire(third, 1, times)
    assert times[0][0] >= begun_at + 0.5


async def test_cancelled_request_takes_no_slot(limiters):
    """A request that is cancelled while it leases a slot leaves it to the next one."""
    [limiter] = await limiters(1, 1, per=60.0)
    request = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.wait([request])
    async with asyncio.timeout(5):
        await limiter.acquire()
    assert limiter.queued == 0


async def test_outage_leaves_each_process_its_share(limiters, redis, caplog):
    """Without Redis two processes go on, together slower than the rate, and say so once."""
    two = await limiters(2)
    await saturate(two, 2)
    redis.kill()
    times = (await saturate(two, 10))[4:]
    assert sum(intervals(times)) >= len(intervals(times)) * INTERVAL * 0.9
    message = "Redis cannot be reached for the rate limit 'kie': this process goes on at its share"
    assert caplog.text.count(message) == 2


async def test_limit_is_shared_again_after_an_outage(limiters, redis, caplog):
    """When Redis is back, empty, slots come from there again, after a while without any."""
    two = await limiters(2)
    await saturate(two, 2)
    redis.kill()
    await saturate(two, 2)
    redis.start()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        while caplog.text.count("is shared again") < 2:
            await acquire(two[0], 1, [])
            await acquire(two[1], 1, [])
    back_at = loop.time()
    times = await saturate(two, 5)
    assert times[-1][0] - back_at >= 8 * INTERVAL


async def test_requests_may_wait_for_redis(stopped_redis):
    """With `sends_in_outage=False` nothing is sent until Redis is there."""
    limiter = SharedRateLimiter(stopped_redis.url, RATE, sends_in_outage=False)
    async with limiter, asyncio.timeout(20):
        request = asyncio.create_task(limiter.acquire())
        await asyncio.wait([request], timeout=0.1)
        assert limiter.queued == 1
        stopped_redis.start()
        await request


def test_next_event_loop_connects_again(stopped_redis):
    """A limiter that is kept in a module works in each of two event loops, one after the other."""
    limiter = SharedRateLimiter(stopped_redis.url, RATE)

    async def use():
        await limiter.acquire()

    stopped_redis.start()
    asyncio.run(use())
    asyncio.run(use())


async def test_closed_limiter_can_be_used_again(limiters):
    """Closing ends the connections; the next request opens new ones."""
    [limiter] = await limiters(1)
    await limiter.acquire()
    await limiter.aclose()
    async with asyncio.timeout(5):
        await limiter.acquire()


async def test_idle_connection_is_checked(limiters, redis, monkeypatch, eventually):
    """A connection that was cut would look open, so the subscription sends pings."""
    monkeypatch.setattr(redis_client, "PING_INTERVAL", 0.01)
    [limiter] = await limiters(1)
    await limiter.acquire()
    with Redis.from_url(redis.url) as client:
        before = client.info("commandstats")["cmdstat_ping"]["calls"]  # of the server's start
        await eventually(lambda: client.info("commandstats")["cmdstat_ping"]["calls"] > before)
