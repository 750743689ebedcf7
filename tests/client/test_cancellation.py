import asyncio

import pytest
from support.cancellation import CancelledAt, cancel_at_each_await, leaked_state
from support.client_calls import VERBS

from kie_cover_async import ClientClosedError, RateLimiter
from kie_cover_async.emulator import CoverScript, Fault

pytestmark = pytest.mark.usefixtures("route")

CALLBACK = "https://example.com/covers"
# One place for all, and no time lost between submits.
NARROW = {"max_concurrent_requests": 1, "submit_rate_limiter": RateLimiter.unlimited()}
SERVING = {"start", "_handle_request", "_accept_connection2"}


def tasks_of_clients():
    """All tasks but this one and those by which the emulator serves its connections."""
    return {
        task
        for task in asyncio.all_tasks() - {asyncio.current_task()}
        if task.get_coro().__name__ not in SERVING
    }


def poll(client, emulator):
    return client.get_cover_details(emulator.add_job())


async def poll_during_pause(client, emulator):
    client.rate_limiter.pause(0.01)
    await client.get_cover_details(emulator.add_job())


async def poll_queued_for_a_slot(client, emulator):
    other = asyncio.create_task(client.get_credits())
    try:
        await asyncio.sleep(0)
        await client.get_cover_details(emulator.add_job())
    finally:
        await other


def wait_for_cover(client, emulator):
    return client.wait_for_cover(emulator.add_job("generating, success"))


def wait_with_faults(client, emulator):
    statuses = [
        "missing",
        "500",
        "429",
        Fault.reset(midway=True),
        Fault.truncated_json(),
        "success",
    ]
    task_id = emulator.add_job(CoverScript(statuses=statuses))
    return client.wait_for_cover(task_id, on_update=on_update)


async def on_update(_):
    await asyncio.sleep(0)


async def check_three(client, emulator):
    async with client.check_covers([emulator.add_job() for _ in range(3)]) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 3


async def check_and_leave_early(client, emulator):
    async with client.check_covers([emulator.add_job() for _ in range(3)]) as outcomes:
        await anext(outcomes)


async def wait_for_three(client, emulator):
    jobs = [emulator.add_job("generating, success") for _ in range(3)]
    async with client.wait_for_covers(async_ids(jobs), on_update=on_update) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 3


async def async_ids(task_ids):
    for task_id in task_ids:
        await asyncio.sleep(0)
        yield task_id


def submit(client, emulator):
    return client.generate_cover(_a_song(emulator), callback_url=CALLBACK)


def submit_and_wait(client, emulator):
    emulator.fault(Fault.rate_limited(), endpoint="submit")
    song = _a_song(emulator)
    return client.generate_and_wait(song, callback_url=CALLBACK, on_task_id=on_update)


def get_credits(client, emulator):
    emulator.fault(Fault.gateway_page(), endpoint="credit")
    return client.get_credits()


async def get_link(client, emulator):
    task_id = emulator.add_job("success")
    image = (await client.get_cover_details(task_id)).images[0]
    await client.get_download_url(image)


def _a_song(emulator):
    song = f"song-{len(emulator.requests)}-{emulator.credits}"
    emulator.script_song(song, "generating, success")
    return song


CALLS = {
    "get_cover_details": poll,
    "get_cover_details, paused": poll_during_pause,
    "get_cover_details, without a place": poll_queued_for_a_slot,
    "wait_for_cover": wait_for_cover,
    "wait_for_cover, in trouble": wait_with_faults,
    "check_covers": check_three,
    "check_covers, left early": check_and_leave_early,
    "wait_for_covers": wait_for_three,
    "generate_cover": submit,
    "generate_and_wait": submit_and_wait,
    "get_credits": get_credits,
    "get_download_url": get_link,
}


def test_every_verb_is_cancelled():
    """Every verb of the client is among the calls below."""
    assert {name.partition(",")[0] for name in CALLS} == VERBS


async def interrupted(call, moment, wait):
    """Await the call in a task of its own, which is cancelled at one of its waits."""
    interruption = CancelledAt(wait, moment, call)
    task = asyncio.create_task(interruption.run())
    [outcome] = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError) == interruption.interrupted, outcome
    return interruption


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_call_can_be_cancelled_anywhere(emulator, connect, call):
    """A call cancelled at any await leaves nothing, and the next call succeeds."""

    async def begin(moment, wait):
        async with connect(emulator, **NARROW) as client:
            interruption = await interrupted(call(client, emulator), moment, wait)
            assert not any(leaked_state(client).values()), leaked_state(client)
            assert tasks_of_clients() == set()
            emulator.clear_faults()
            async with asyncio.timeout(2):
                assert await client.get_credits() == emulator.credits
        return interruption

    await cancel_at_each_await(begin, at_least=2)


THREE_POLLS = CoverScript(statuses=["generating", "generating", "success"])


@pytest.mark.parametrize("which", [0, 1], ids=["the one that leads", "one that joins"])
async def test_cancelling_a_wait_does_not_cancel_those_that_share_its_polls(
    emulator, connect, which
):
    """One of three waits that share their polls is cancelled anywhere: the others go on.

    That one may be the wait that makes the requests for the others, or one that joined.
    """

    async def begin(moment, wait):
        async with connect(emulator, **NARROW) as client:
            task_id = emulator.add_job(THREE_POLLS)
            waits = [client.wait_for_cover(task_id) for _ in range(3)]
            waits[which] = interrupted(waits[which], moment, wait)
            outcomes = await asyncio.gather(*waits)
            interruption = outcomes.pop(which)
            assert all(details.is_success for details in outcomes)
            assert not any(leaked_state(client).values()), leaked_state(client)
        return interruption

    await cancel_at_each_await(begin, at_least=2)


@pytest.mark.parametrize("which", [0, 1], ids=["the bulk call", "the single call"])
async def test_a_call_that_serves_others_can_be_cancelled_anywhere(emulator, connect, which):
    """A single call overtakes a queued poll of a bulk call, and serves both; either may go."""

    async def begin(moment, wait):
        rate_limiter = RateLimiter(100)
        async with connect(emulator, rate_limiter=rate_limiter) as client:
            idle = leaked_state(client)
            rate_limiter.pause(0.02)
            shared = emulator.add_job("success")
            others = [emulator.add_job("success") for _ in range(3)]
            calls = [polls_of(client, [*others, shared]), client.get_cover_details(shared)]
            calls[which] = interrupted(calls[which], moment, wait)
            outcomes = await asyncio.gather(*calls)
            interruption = outcomes.pop(which)
            assert outcomes[0] == 4 if which else outcomes[0].is_success
            assert leaked_state(client) == idle
            assert emulator.poll_count(shared) == 1 or interruption.interrupted
        return interruption

    await cancel_at_each_await(begin, at_least=2)


async def polls_of(client, task_ids):
    async with client.check_covers(task_ids) as outcomes:
        return sum([outcome.ok async for outcome in outcomes])


async def test_closing_can_be_cancelled_anywhere(emulator, connect):
    """If `aclose` is cancelled at any await, the client and its calls still end."""

    async def begin(moment, wait):
        client = connect(emulator)
        await client.get_credits()
        waiting = asyncio.create_task(client.wait_for_cover(emulator.add_job()))
        await asyncio.sleep(0)
        interruption = await interrupted(client.aclose(), moment, wait)
        [outcome] = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(outcome, ClientClosedError)
        assert client._transport.http_client._session.closed
        return interruption

    await cancel_at_each_await(begin)
