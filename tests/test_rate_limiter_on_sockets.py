"""What of the rate limiter's promise arrives at a server on real sockets."""

import asyncio
from collections import Counter

import pytest

from kie_cover_async import CoverClient, RateLimiter
from kie_cover_async.emulator import CoverEmulator, Limits
from kie_cover_async.events import RequestFinished

# How many in how many seconds, and how many requests of each kind: the default, and a quick one.
CASES = {"nine a second": (9, 1.0, 14), "fifty in half a second": (50, 0.5, 80)}


@pytest.mark.parametrize(("number", "per", "each"), CASES.values(), ids=CASES)
async def test_a_server_receives_no_more_than_the_limit(number, per, each):
    """In any window of `per` seconds at most one request more than the number arrives.

    This holds for sliding and for fixed windows, so a server whose limit is one higher refuses
    none, and the busiest window is nearly full. On a busy machine a request may take longer than
    one interval and arrive with later ones: each such interval allows one request more.
    """
    done: list[RequestFinished] = []
    limits = Limits(polls=(number + 1, per))
    async with CoverEmulator(limits=limits) as emulator:
        rate_limiter = RateLimiter(number, per=per)
        options = {"base_url": emulator.url, "rate_limiter": rate_limiter, "observer": done.append}
        async with CoverClient("key", **options) as client:
            ids = [emulator.add_job() for _ in range(each)]
            await asyncio.gather(
                *[client.get_credits() for _ in range(each)],
                *[client.get_cover_details(task_id) for task_id in ids],
            )
    arrived = [request.received for request in emulator.requests]
    sliding = max(sum(0 <= other - start < per for other in arrived) for start in arrived)
    fixed = max(Counter(moment // per for moment in arrived).values())
    late = int(max(request.duration for request in done) / per * number)
    assert len(arrived) == 2 * each + emulator.refusals["polls"]
    assert fixed <= sliding <= number + 1 + late
    # A machine that delays requests also delays the loop, which makes no slot up.
    assert late or (fixed > 0.8 * number and emulator.refusals == {"polls": 0, "submits": 0})
