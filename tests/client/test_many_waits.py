"""Next to many waits, single calls are sent within two slots, and submits immediately."""

import asyncio

import pytest

from kie_cover_async import RateLimiter
from kie_cover_async.emulator import CoverScript

pytestmark = pytest.mark.usefixtures("instant_time")

SLOT = 1 / 9  # of the default rate limiter: nine requests a second


async def one_by_one(client, task_ids, timeout):
    return await asyncio.gather(
        *[client.wait_for_cover(task_id, timeout=timeout) for task_id in task_ids],
        return_exceptions=True,
    )


async def in_bulk(client, task_ids, timeout):
    async with client.wait_for_covers(task_ids, timeout=timeout) as outcomes:
        return [outcome async for outcome in outcomes]


# How many, for how long each, and after how many seconds the calls come: when all of them have
# polled, when most of them queue for their first poll, and when most are urgent.
@pytest.mark.parametrize("case", [(600, None, 80), (1000, None, 3), (200, 15, 14)])
@pytest.mark.parametrize("waiting", [one_by_one, in_bulk])
async def test_a_single_call_leaves_within_two_slots(cover_emulator, cover_client, waiting, case):
    """Neither the credits nor a poll queue behind the polls of waits, and a submit not at all."""
    number, timeout, moment = case
    now = asyncio.get_running_loop().time
    ids = [cover_emulator.add_job(CoverScript(end="never")) for _ in range(number)]
    waits = asyncio.create_task(waiting(cover_client, ids, timeout))
    calls = {
        "credit": cover_client.get_credits,
        "generate": lambda: cover_client.generate_cover("song", callback_url="http://x"),
        "record-info": lambda: cover_client.get_cover_details(ids[-1]),
    }
    await asyncio.sleep(moment + 0.33 * SLOT)
    assert cover_client.rate_limiter.queued > 50
    for endpoint, call in calls.items():
        before, started = len(cover_emulator.requests), now()
        await call()
        slots = 0 if endpoint == "generate" else 2
        assert now() - started < slots * SLOT + 1e-6  # a sum of floats
        assert len(cover_emulator.requests) - before <= max(slots, 1)
    waits.cancel()
    await asyncio.wait([waits])


@pytest.mark.cover_client(rate_limiter=RateLimiter(2))
async def test_waits_close_to_their_deadline_poll_first(cover_emulator, cover_client):
    """A wait does not miss its cover behind polls of waits with more time."""
    ids = [cover_emulator.add_job(CoverScript(end="never")) for _ in range(300)]
    waits = asyncio.create_task(one_by_one(cover_client, ids, None))
    await asyncio.sleep(200)
    # Of 300 waits, each of which polls every 30 s, hundreds are due before it: in its turn, a
    # second poll would come more than a minute later.
    short = cover_emulator.add_job("generating, success")
    assert (await cover_client.wait_for_cover(short, timeout=20)).is_success
    assert cover_emulator.poll_count(short) == 2
    waits.cancel()
    await asyncio.wait([waits])
