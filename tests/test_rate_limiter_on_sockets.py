import asyncio

from kie_cover_async import CoverClient, RateLimiter
from kie_cover_async.emulator import CoverEmulator
from kie_cover_async.events import RequestFinished

NUMBER, PER = 50, 0.5


async def test_what_arrives_at_a_server():
    """In no half second do more than fifty requests and a tenth arrive, and hardly fewer do.

    On a busy machine one may be long on its way, and arrive with those that left after it.
    """
    done: list[RequestFinished] = []
    async with CoverEmulator() as emulator:
        rate_limiter = RateLimiter(NUMBER, per=PER)
        options = {"base_url": emulator.url, "rate_limiter": rate_limiter, "observer": done.append}
        async with CoverClient("key", **options) as client:
            ids = [emulator.add_job() for _ in range(80)]
            await asyncio.gather(
                *[client.get_credits() for _ in range(80)],
                *[client.get_cover_details(task_id) for task_id in ids],
            )
    arrived = [request.received for request in emulator.requests]
    most = max(sum(0 <= other - start < PER for other in arrived) for start in arrived)
    late = int(max(request.duration for request in done) / PER * NUMBER)
    assert len(arrived) == 160
    assert 0.8 * NUMBER < most <= NUMBER + NUMBER // 10 + late
