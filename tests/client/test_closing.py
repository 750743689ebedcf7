import asyncio
from contextlib import suppress

import pytest

from kie_cover_async import ClientClosedError, CoverClient, ExponentialSchedule, RateLimiter
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault

CALLBACK = "https://example.com/covers"

VERBS = {
    "get_cover_details": lambda client: client.get_cover_details("id"),
    "wait_for_cover": lambda client: client.wait_for_cover("id"),
    "generate_cover": lambda client: client.generate_cover("song", callback_url=CALLBACK),
    "generate_and_wait": lambda client: client.generate_and_wait("song", callback_url=CALLBACK),
    "get_credits": lambda client: client.get_credits(),
    "get_download_url": lambda client: client.get_download_url("https://example.com/a.png"),
}

every_verb = pytest.mark.parametrize("call", VERBS.values(), ids=VERBS)


async def endings(*tasks):
    """Return the errors that ended the tasks, within two seconds."""
    async with asyncio.timeout(2):
        errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [ClientClosedError] * len(tasks)
    return errors


@every_verb
async def test_a_closed_client_raises(emulator, client, call):
    """After closing, every method raises, and nothing is sent."""
    await client.get_credits()
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await call(client)
    assert len(emulator.requests) == 1
    assert repr(client) == f"<CoverClient {emulator.url} closed>"


async def test_leaving_the_block_closes(emulator, connect, eventually):
    """`async with` returns the client, and closes it and its connections."""
    client = connect(emulator)
    async with client as same:
        assert same is client
        await client.get_credits()
        assert emulator.open_connections == 1
    with pytest.raises(ClientClosedError):
        await client.get_credits()
    await eventually(lambda: emulator.open_connections == 0)


async def test_closing_again_does_nothing(client):
    """A client can be closed any number of times, one after the other or concurrently."""
    await client.get_credits()
    await asyncio.gather(*[client.aclose() for _ in range(3)])
    await client.aclose()


async def test_an_unused_client_can_be_closed(emulator):
    """Closing an unused client opens no session."""
    client = CoverClient("a-key", base_url=emulator.url)
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await client.get_credits()


def test_a_client_can_be_made_without_a_loop():
    """A client can be made before its event loop, and closed in it."""
    client = CoverClient("a-key", base_url="http://127.0.0.1:9")
    asyncio.run(client.aclose())
    asyncio.run(client.aclose())


@every_verb
async def test_closing_ends_a_request_in_flight(emulator, client, call, eventually):
    """A call without an answer ends at closing, which waits until it has ended."""
    emulator.fault(Fault.stall(), rate=1.0)
    running = asyncio.create_task(call(client))
    await eventually(lambda: emulator.requests)
    await client.aclose()
    assert running.done()
    [error] = await endings(running)
    assert error.maybe_accepted == (emulator.requests[0].endpoint == "generate")
    await eventually(lambda: emulator.open_connections == 0)


@every_verb
async def test_closing_ends_a_call_that_waits_for_its_slot(emulator, connect, call, eventually):
    """A call that its rate limiter delays ends, and was certainly not sent.
    taken.
    """
    limiter = RateLimiter.unlimited()
    client = connect(emulator, rate_limiter=limiter, submit_rate_limiter=limiter)
    limiter.pause(60)
    running = asyncio.create_task(call(client))
    await eventually(lambda: limiter.queued)
    await client.aclose()
    [error] = await endings(running)
    assert not error.maybe_accepted
    assert emulator.requests == []
    assert limiter.queued == 0


async def test_closing_ends_a_call_that_waits_for_its_turn(emulator, connect, eventually):
    """A call that waits for a free request slot ends like one in flight."""
    client = connect(emulator, max_concurrent_requests=1)
    emulator.fault(Fault.stall(), rate=1.0)
    running = [asyncio.create_task(client.get_credits()) for _ in range(3)]
    await eventually(lambda: emulator.requests)
    await client.aclose()
    await endings(*running)
    assert len(emulator.requests) == 1


async def test_closing_ends_submits_in_flight_and_those_that_queue(emulator, connect, eventually):
    """A submit that was sent may have been accepted, one that queued was not; both end."""
    client = connect(emulator, max_concurrent_submits=2)
    emulator.fault(Fault.stall(), rate=1.0)
    running = [
        asyncio.create_task(client.generate_cover(f"song-{number}", callback_url=CALLBACK))
        for number in range(5)
    ]
    await eventually(lambda: len(emulator.requests) == 2)
    await client.aclose()
    errors = await endings(*running)
    assert [error.maybe_accepted for error in errors] == [True] * 2 + [False] * 3
    await eventually(lambda: emulator.open_connections == 0)
    assert len(emulator.requests) == 2


async def test_closing_ends_a_pause_between_attempts(emulator, connect, eventually):
    """A call that pauses before its next attempt ends."""
    limiter = RateLimiter.unlimited()
    client = connect(emulator, submit_rate_limiter=limiter)
    emulator.fault(Fault.rate_limited(in_body=False, retry_after=100), rate=1.0)
    running = asyncio.create_task(client.generate_cover("song", callback_url=CALLBACK))
    await eventually(lambda: limiter.queued)
    await client.aclose()
    [error] = await endings(running)
    assert not error.maybe_accepted


async def test_closing_ends_many_waits_with_their_ids(emulator, client, eventually):
    """Every running wait ends, and each error has its id."""
    ids = [emulator.add_job(CoverScript(end="never")) for _ in range(20)]
    waits = [asyncio.create_task(client.wait_for_cover(task_id)) for task_id in ids]
    await eventually(lambda: all(map(emulator.poll_count, ids)))
    await client.aclose()
    assert [error.task_id for error in await endings(*waits)] == ids


@pytest.mark.parametrize("external", [False, True], ids=["owned", "external"])
async def test_on_update_may_close_the_client(
    emulator, connect, make_session, eventually, external
):
    """Its own wait and all others end, with an own or an external session."""
    client = connect(emulator, session=make_session() if external else None)
    ids = [emulator.add_job(CoverScript(end="never")) for _ in range(3)]
    after = []

    async def close(_):
        await client.aclose()
        after.append("returned")

    others = [asyncio.create_task(client.wait_for_cover(task_id)) for task_id in ids[1:]]
    await eventually(lambda: all(map(emulator.poll_count, ids[1:])))
    own = asyncio.create_task(client.wait_for_cover(ids[0], on_update=close))
    assert [error.task_id for error in await endings(own, *others)] == ids
    assert after == ["returned"]


async def test_closing_ends_a_wait_whose_on_update_ignores_cancellation(
    emulator, client, eventually
):
    """A wait whose `on_update` ignores the cancellation sends no request and ends."""
    task_id = emulator.add_job(CoverScript(end="never"))

    async def swallow(_):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    schedule = ExponentialSchedule(initial_delay=0.1, max_delay=0.1)
    waiting = asyncio.create_task(
        client.wait_for_cover(task_id, on_update=swallow, schedule=schedule)
    )
    await eventually(lambda: emulator.poll_count(task_id))
    await asyncio.sleep(0)
    await client.aclose()
    [error] = await endings(waiting)
    assert (error.task_id, emulator.poll_count(task_id)) == (task_id, 1)


async def test_closing_in_the_last_on_update_does_not_lose_the_cover(emulator, client):
    """An `on_update` that closes the client at the finished cover does not lose it."""

    async def close(_):
        await client.aclose()

    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    assert (await client.wait_for_cover(task_id, on_update=close)).is_success


async def test_two_on_updates_may_close_the_client(emulator, client, eventually):
    """Both waits end, and nothing is left."""
    ids = [emulator.add_job(CoverScript(end="never")) for _ in range(2)]
    both = asyncio.Barrier(2)

    async def close(_):
        async with both:
            await client.aclose()

    waits = [asyncio.create_task(client.wait_for_cover(each, on_update=close)) for each in ids]
    await endings(*waits)
    await eventually(lambda: emulator.open_connections == 0)


async def test_on_update_may_await_a_task_that_closes(emulator, client, eventually):
    """An `on_update` that awaits such a task is ended, and the session is closed."""

    async def close(_):
        await asyncio.gather(client.aclose())

    task_id = emulator.add_job(CoverScript(end="never"))
    await endings(asyncio.create_task(client.wait_for_cover(task_id, on_update=close)))
    await eventually(lambda: emulator.open_connections == 0)


async def test_every_closing_waits_for_a_slow_call(emulator, client):
    """Every `aclose` waits for an `on_update` that does not end immediately."""
    called, leave = asyncio.Event(), asyncio.Event()

    async def linger(_):
        try:
            called.set()
            await asyncio.sleep(60)
        finally:
            await leave.wait()

    task_id = emulator.add_job(CoverScript(end="never"))
    wait = asyncio.create_task(client.wait_for_cover(task_id, on_update=linger))
    await called.wait()
    closing = [asyncio.create_task(client.aclose())]
    await asyncio.sleep(0.02)
    closing.append(asyncio.create_task(client.aclose()))
    await asyncio.sleep(0.02)
    assert not any(task.done() for task in [wait, *closing])
    leave.set()
    await asyncio.gather(*closing)
    assert wait.done()
    await endings(wait)


async def test_cancelled_closing_closes_the_session(emulator, client, eventually):
    """An `aclose` that is cancelled while a call does not end still closes the session."""
    called, leave = asyncio.Event(), asyncio.Event()

    async def stay(_):
        called.set()
        while not leave.is_set():
            with suppress(asyncio.CancelledError):
                await leave.wait()

    task_id = emulator.add_job(CoverScript(end="never"))
    wait = asyncio.create_task(client.wait_for_cover(task_id, on_update=stay))
    await called.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.aclose()
    await eventually(lambda: emulator.open_connections == 0)
    leave.set()
    await endings(wait)


async def test_a_cancellation_during_closing_stays_a_cancellation(emulator, client, eventually):
    """Closing does not replace a cancellation from outside by its own error."""
    task_id = emulator.add_job(CoverScript(end="never"))
    wait = asyncio.create_task(client.wait_for_cover(task_id))
    await eventually(lambda: emulator.poll_count(task_id))
    wait.cancel()
    await client.aclose()
    with pytest.raises(asyncio.CancelledError):
        await wait


async def test_a_call_within_on_update_ends_at_closing(emulator, client, eventually):
    """A nested call on the same client ends, and so does its wait."""
    outer, inner = [emulator.add_job(CoverScript(end="never")) for _ in range(2)]

    async def wait(_):
        await client.wait_for_cover(inner)

    waiting = asyncio.create_task(client.wait_for_cover(outer, on_update=wait))
    await eventually(lambda: emulator.poll_count(inner))
    await client.aclose()
    [error] = await endings(waiting)
    assert error.task_id == outer


@every_verb
def test_another_event_loop_is_rejected(call):
    """A client that was used in one loop raises in another and sends nothing."""
    with asyncio.Runner() as first, asyncio.Runner() as second:
        emulator = CoverEmulator()
        first.run(emulator.start())
        client = CoverClient("a-key", base_url=emulator.url, rate_limiter=RateLimiter.unlimited())
        first.run(client.get_credits())
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run(call(client))
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run(client.aclose())
        first.run(client.get_credits())
        first.run(client.aclose())
        second.run(client.aclose())
        first.run(emulator.aclose())
        assert len(emulator.requests) == 2


def test_a_module_level_rate_limiter_serves_several_event_loops():
    """A rate limiter in a module serves one `asyncio.run` after another."""
    rate_limiter = RateLimiter(1000)
    asyncio.run(credits_with(rate_limiter))
    asyncio.run(credits_with(rate_limiter))


@pytest.mark.parametrize(
    ("name", "verb"), [("rate_limiter", "get_credits"), ("submit_rate_limiter", "generate_cover")]
)
def test_a_rate_limiter_is_rejected_on_two_open_event_loops(name, verb):
    """While its loop is open, a call in another one raises and sends nothing."""
    limiter = RateLimiter(1000)

    async def use(emulator):
        async with CoverClient("a-key", base_url=emulator.url, **{name: limiter}) as client:
            await VERBS[verb](client)

    with asyncio.Runner() as first, asyncio.Runner() as second:
        emulator = CoverEmulator()
        first.run(emulator.start())
        first.run(use(emulator))
        with pytest.raises(RuntimeError, match="is in use on another event loop"):
            second.run(use(emulator))
        first.run(emulator.aclose())
        assert len(emulator.requests) == 1


async def credits_with(rate_limiter):
    async with (
        CoverEmulator() as emulator,
        CoverClient("a-key", base_url=emulator.url, rate_limiter=rate_limiter) as client,
    ):
        await client.get_credits()
