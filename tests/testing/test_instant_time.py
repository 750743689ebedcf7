import asyncio
import random
import threading
import time
from contextlib import AsyncExitStack

import pytest

from kie_cover_async import CoverClient, CoverTimeoutError, ExponentialSchedule, RateLimiter
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault
from kie_cover_async.testing import InstantTimeLoop


async def test_an_hour_takes_no_time(instant_time):
    """A sleep ends at its time, and takes no real time."""
    started = time.perf_counter()
    await asyncio.sleep(3600)
    assert instant_time.elapsed == 3600
    assert time.perf_counter() - started < 5


async def test_timers_fire_after_two_years(instant_time):
    """Timers fire although the clock is too large to express nanoseconds."""
    await asyncio.sleep(2 * 365 * 86400)
    await asyncio.sleep(0.25)
    assert instant_time.elapsed == pytest.approx(2 * 365 * 86400 + 0.25)


async def test_timers_fire_in_their_order(instant_time):
    """Ready callbacks run before the clock jumps, so that no timer is skipped."""
    seen = []

    async def note(delay):
        await asyncio.sleep(delay)
        seen.append(instant_time.elapsed)

    await asyncio.gather(*map(note, (3, 1, 2)))
    assert seen == [1, 2, 3]


async def test_the_clock_is_the_machines_until_it_jumps(instant_time):
    """The loop's time starts at the machine's monotonic time."""
    assert instant_time.time() == pytest.approx(time.monotonic(), abs=10)
    await asyncio.sleep(1000)
    assert instant_time.time() == pytest.approx(time.monotonic() + 1000, abs=10)


@pytest.fixture
async def stack():
    """What is entered here is left when the test ends, the last first."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def connect(stack):
    """Connects to a server of this very loop that serves each connection with the function."""

    async def connect(serve):
        server = await stack.enter_async_context(await asyncio.start_server(serve, "127.0.0.1"))
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        stack.push_async_callback(writer.wait_closed)
        stack.callback(writer.close)
        return reader, writer

    return connect


async def test_sent_data_arrives_before_the_clock_jumps(instant_time, connect):
    """Many megabytes go over a socket within a tiny timeout."""

    async def echo(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async with asyncio.timeout(0.001):
        reader, writer = await connect(echo)
        for _ in range(100):
            writer.write(b"x" * 100_000)
            assert len(await reader.readexactly(100_000)) == 100_000
    assert instant_time.elapsed == 0


async def test_a_timeout_fires_if_nothing_arrives(instant_time, connect):
    """Without an answer, the timeout fires at its time."""

    async def keep_silent(reader, writer):
        await reader.read()
        writer.close()

    reader, _ = await connect(keep_silent)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30):
            await reader.read()
    assert instant_time.elapsed == 30


async def test_the_clock_waits_for_a_thread(instant_time):
    """While a thread of the loop is running, the clock does not jump."""
    async with asyncio.timeout(60):
        assert await asyncio.to_thread(threading.Event().wait, 0.05) is False
    assert instant_time.elapsed == 0


async def test_waiting_during_a_thread_takes_real_time(instant_time):
    """A timer during a thread fires no earlier than by the real clock."""
    event = threading.Event()
    started = time.perf_counter()
    thread = asyncio.create_task(asyncio.to_thread(event.wait, 30))
    await asyncio.sleep(0.05)
    taken = time.perf_counter() - started
    event.set()
    assert await thread
    assert taken >= 0.049
    assert instant_time.elapsed == pytest.approx(0.05)


async def test_waiting_after_a_thread_takes_no_time(instant_time):
    """A finished thread does not slow down later waits."""
    started = time.perf_counter()
    await asyncio.to_thread(time.sleep, 0.01)
    await asyncio.sleep(60)
    assert time.perf_counter() - started < 30


def test_closing_the_loop_waits_for_its_threads():
    """A running thread gets the real time that it needs when the loop is closed."""
    done = []

    def work():
        time.sleep(0.1)
        done.append(True)

    async def main():
        asyncio.get_running_loop().run_in_executor(None, work)

    with asyncio.Runner(loop_factory=InstantTimeLoop) as runner:
        runner.run(main())
    assert done == [True]


async def told_by_a_thread(seconds):
    """What a thread of the test's own making tells the loop after a while."""
    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def tell():
        time.sleep(seconds)
        loop.call_soon_threadsafe(lambda: told.done() or told.set_result("news"))

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        async with asyncio.timeout(60):
            return await told
    finally:
        thread.join()


async def test_external_events_come_too_late(instant_time):
    """The loop does not see external events."""
    assert instant_time.patience == 0
    with pytest.raises(TimeoutError):
        await told_by_a_thread(0.1)


async def test_patience_waits_for_external_events(instant_time):
    """With patience the loop waits for an external event, and no longer."""
    instant_time.patience = 30
    started = time.perf_counter()
    assert await told_by_a_thread(0.05) == "news"
    assert time.perf_counter() - started < 15
    assert instant_time.elapsed == 0


async def test_patience_is_bounded(instant_time):
    """A timer fires when patience ends, or at its real time."""
    instant_time.patience = 0.02
    started = time.perf_counter()
    await asyncio.sleep(3600)
    instant_time.patience = 3600
    await asyncio.sleep(0.02)
    assert 0.038 <= time.perf_counter() - started < 15


async def test_without_a_timer_the_loop_waits(instant_time):
    """A loop that only a thread can wake waits for it."""
    told = asyncio.Event()
    timer = threading.Timer(0.05, instant_time.call_soon_threadsafe, [told.set])
    timer.start()
    await told.wait()
    timer.join()
    assert instant_time.elapsed == 0


@pytest.mark.cover_emulator(generation_time=47)
@pytest.mark.cover_client(schedule=ExponentialSchedule(jitter=0))
async def test_a_wait_keeps_its_schedule(cover_emulator, cover_client, instant_time):
    """A cover that takes 47 seconds is polled by the schedule, in no real time."""
    task_id = cover_emulator.add_job()
    details = await cover_client.wait_for_cover(task_id)
    assert details.generation_time.total_seconds() == pytest.approx(47, abs=0.002)
    # At 0, 2, 5 and 9.5 s, then every 6 s.
    assert cover_emulator.poll_count(task_id) == 11
    assert instant_time.elapsed == pytest.approx(51.5, abs=0.002)


async def test_a_wait_keeps_its_deadline(cover_emulator, cover_client, instant_time):
    """A wait times out to the millisecond."""
    task_id = cover_emulator.add_job(CoverScript(end="never"))
    with pytest.raises(CoverTimeoutError) as caught:
        await cover_client.wait_for_cover(task_id)
    assert caught.value.waited == 900
    assert instant_time.elapsed == 900


def test_an_endless_wait_raises():
    """An endless wait for a job that never ends fails with the cover's id."""

    async def hang():
        async with (
            CoverEmulator() as emulator,
            CoverClient("a-key", base_url=emulator.url) as client,
        ):
            emulator.add_job(CoverScript(end="never"), task_id="endless")
            outcomes = client.wait_for_covers(["endless"], timeout=None)
            return [outcome async for outcome in outcomes]

    with asyncio.Runner(loop_factory=InstantTimeLoop) as runner:
        with pytest.raises(RuntimeError, match="a wait polls forever in instant time") as caught:
            runner.run(hang())
        assert runner.get_loop().elapsed < 6 * 3600
    assert "last seen GENERATING; task endless; let its job end" in str(caught.value)
    assert "or give the wait a timeout" in str(caught.value)


async def test_retry_after_is_kept(cover_emulator, cover_client, instant_time):
    """A Retry-After is kept, and takes no real time."""
    cover_emulator.fault(Fault.rate_limited(retry_after=100))
    await cover_client.get_credits()
    assert 100 <= instant_time.elapsed < 101


async def test_a_request_that_stalls_times_out(cover_emulator, cover_client, instant_time):
    """A stall takes the request's timeout, by the loop's clock."""
    cover_emulator.fault(Fault.stall())
    await cover_client.get_credits()
    assert 10 <= instant_time.elapsed < 11


async def test_the_emulators_wall_clock_follows_the_loop(
    cover_emulator, cover_client, instant_time
):
    """After a sleep of a day, a job is a day old by the server's times."""

    class Ages(list):
        def delay(self, age, pressure):
            self.append(age)
            return 5

    ages = Ages()
    task_id = cover_emulator.add_job("generating, generating, success")
    await asyncio.sleep(86400)
    await cover_client.wait_for_cover(task_id, schedule=ages)
    # The server's Date has whole seconds.
    assert ages == pytest.approx([86400, 86405], abs=1)


async def eventful_story():
    """When each request of five covers arrived that met with much."""
    begun = asyncio.get_running_loop().time()
    async with CoverEmulator(generation_time=(20, 200)) as emulator:
        emulator.fault(Fault.rate_limited(retry_after=7))
        emulator.fault(Fault.stall(), after=4, endpoint="record-info")
        emulator.fault(Fault.reset(), count=2, after=3, endpoint="record-info")
        emulator.fault(Fault.slow(11), after=6, endpoint="record-info")
        async with CoverClient(
            "a-key", base_url=emulator.url, rate_limiter=RateLimiter(50)
        ) as client:
            songs = [
                client.generate_and_wait(f"song-{n}", callback_url="http://x/") for n in range(5)
            ]
            assert all(cover.images for cover in await asyncio.gather(*songs))
        return [(seen.endpoint, round(seen.received - begun, 3)) for seen in emulator.requests]


async def test_runs_are_reproducible(instant_time):
    """With stalls, resets and refusals, every request comes at the same time in every run."""
    stories = []
    for _ in range(5):
        random.seed(7)
        stories.append(await eventful_story())
    assert len(stories[0]) > 30
    assert stories[1:] == 4 * stories[:1]
