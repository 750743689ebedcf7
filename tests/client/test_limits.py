"""The limits that a client keeps: places and slots, of polls and of submits, and their pauses."""

import asyncio
from itertools import pairwise
from math import inf

import pytest

from kie_cover_async import AdaptiveSchedule, CoverClient, ExponentialSchedule, RateLimiter
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault, Limits
from kie_cover_async.events import RequestFinished, RequestsPaused
from kie_cover_async.rate_limiter import SlotSource
from kie_cover_async.testing import InstantTimeLoop

CALLBACK = "http://192.0.2.1/covers"
NO_REFUSALS = {"polls": 0, "submits": 0}
# Seconds: a loop's time is too large a number to be exact.
ROUNDING = 1e-6
OBSERVED: list[object] = []

vendor_limits = pytest.mark.cover_emulator(limits=Limits(), generation_time=(30.0, 70.0))


def now():
    return asyncio.get_running_loop().time()


def submit(client, number=0):
    return client.generate_cover(f"song-{number}", callback_url=CALLBACK)


def times(emulator, *endpoints):
    return [seen.received for seen in emulator.requests if seen.endpoint in endpoints]


async def in_turn(calls):
    """Await them one after the other; return how many seconds each took."""
    taken = []
    for call in calls:
        started = now()
        await call
        taken.append(now() - started)
    return taken


async def begun(*calls):
    """Tasks of them, when all that can be sent has been sent and answered."""
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(1e-3)
    return tasks


async def end(tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@vendor_limits
async def test_a_hundred_concurrent_checks_are_not_refused(
    instant_time, cover_emulator, cover_client
):
    """The vendor's window of ten polls a second refuses none of them."""
    ids = [cover_emulator.add_job() for _ in range(100)]
    async with cover_client.check_covers(ids) as outcomes:
        assert [outcome.error async for outcome in outcomes] == [None] * 100
    assert cover_emulator.refusals == NO_REFUSALS
    assert instant_time.elapsed == pytest.approx(99 / 9, abs=0.1)


@vendor_limits
async def test_a_hundred_concurrent_waits_are_not_refused(
    instant_time, cover_emulator, cover_client
):
    """Until all covers are finished, no poll is refused."""
    ids = [cover_emulator.add_job() for _ in range(100)]
    details = await asyncio.gather(*[cover_client.wait_for_cover(task_id) for task_id in ids])
    assert all(cover.is_success for cover in details)
    assert cover_emulator.refusals == NO_REFUSALS
    assert instant_time.elapsed < 100


@vendor_limits
async def test_a_hundred_concurrent_submits_are_not_refused(
    instant_time, cover_emulator, cover_client
):
    """The vendor's window of twenty submits in ten seconds refuses none of them."""
    await asyncio.gather(*[submit(cover_client, number) for number in range(100)])
    assert len(times(cover_emulator, "generate")) == 100
    assert cover_emulator.refusals == NO_REFUSALS
    assert instant_time.elapsed == pytest.approx(99 * 10 / 19, abs=0.1)


@vendor_limits
async def test_a_hundred_songs_from_the_submit_to_the_cover(
    instant_time, cover_emulator, cover_client
):
    """Submits and polls together are refused neither."""
    details = await asyncio.gather(
        *[
            cover_client.generate_and_wait(f"song-{number}", callback_url=CALLBACK)
            for number in range(100)
        ]
    )
    assert all(cover.is_success for cover in details)
    assert cover_emulator.refusals == NO_REFUSALS
    assert instant_time.elapsed < 150


@pytest.mark.cover_emulator(limits=Limits())
@pytest.mark.cover_client(rate_limiter=RateLimiter(20), submit_rate_limiter=RateLimiter(40, per=10))
async def test_a_client_above_the_limit_is_refused(instant_time, cover_emulator, cover_client):
    """This shows that the emulator enforces the limit; after a pause all succeed.

    Polls and submits are refused each by a window of their own.
    """
    ids = [cover_emulator.add_job() for _ in range(40)]
    await asyncio.gather(
        *[cover_client.get_cover_details(task_id) for task_id in ids],
        *[submit(cover_client, number) for number in range(40)],
    )
    assert cover_emulator.refusals["polls"] > 0
    assert cover_emulator.refusals["submits"] > 0
    assert len(cover_emulator.requests) == 80 + sum(cover_emulator.refusals.values())


@pytest.fixture
def paused():
    OBSERVED.clear()
    return lambda: [event for event in OBSERVED if isinstance(event, RequestsPaused)]


observed = pytest.mark.cover_client(observer=OBSERVED.append)


@observed
async def test_a_refused_submit_pauses_submits_only(
    instant_time, cover_emulator, cover_client, paused
):
    """Other submits wait until the pause ends; polls, credits and download links do not."""
    task_id = cover_emulator.add_job("success")
    images = (await cover_client.get_cover_details(task_id)).images
    cover_emulator.fault(Fault.rate_limited(retry_after=60.0), endpoint="generate")
    start = now()
    submits = await begun(submit(cover_client, 1), submit(cover_client, 2))
    calls = [
        cover_client.get_cover_details(task_id),
        cover_client.get_credits(),
        cover_client.get_download_url(images[0]),
    ]
    assert all(seconds < 1 for seconds in await in_turn(calls))
    await asyncio.gather(*submits)
    [event] = paused()
    assert event.kind == "submits"
    assert event.error.code == 429
    assert 60 <= event.seconds <= 61
    refused, *later = [moment - start for moment in times(cover_emulator, "generate")]
    assert refused == pytest.approx(0, abs=0.1)
    assert [moment >= event.seconds - ROUNDING for moment in later] == [True, True]


POLLS = {
    "record-info": lambda client, task_id, _: client.get_cover_details(task_id),
    "credit": lambda client, *_: client.get_credits(),
    "download-url": lambda client, _, image: client.get_download_url(image),
}


@observed
@pytest.mark.parametrize("endpoint", POLLS)
async def test_a_refused_poll_pauses_polls_only(
    instant_time, cover_emulator, cover_client, paused, endpoint
):
    """Whatever the poll was: a status check, credits or a link. Submits go on."""
    task_id = cover_emulator.add_job("success")
    [image, *_] = (await cover_client.get_cover_details(task_id)).images
    await asyncio.sleep(10)
    cover_emulator.fault(Fault.rate_limited(retry_after=60.0), endpoint=endpoint)
    start, before = now(), len(cover_emulator.requests)
    refused = await begun(POLLS[endpoint](cover_client, task_id, image))
    others = await begun(*[call(cover_client, task_id, image) for call in POLLS.values()])
    assert all(s < 1 for s in await in_turn([submit(cover_client, n) for n in range(2)]))
    await asyncio.gather(*refused, *others)
    [event] = paused()
    assert event.kind == "polls"
    assert event.error.code == 429
    seen = cover_emulator.requests[before:]
    polls = [request.received - start for request in seen if request.endpoint != "generate"]
    assert polls[0] == pytest.approx(0, abs=0.1)
    assert min(polls[1:]) >= event.seconds - ROUNDING
    assert event.seconds >= 60
    # A status check joins the one of the same id that is repeated.
    assert len(polls) == (4 if endpoint == "record-info" else 5)


async def test_a_submit_does_not_queue_behind_polls(instant_time, cover_emulator, cover_client):
    """Two hundred checks, which take over twenty seconds, delay no submit."""
    ids = [cover_emulator.add_job() for _ in range(200)]
    checks = await begun(*[cover_client.get_cover_details(task_id) for task_id in ids])
    assert cover_client.rate_limiter.queued == 100
    assert await in_turn([submit(cover_client)]) == pytest.approx([0], abs=0.01)
    await end(checks)


async def test_a_poll_does_not_queue_behind_submits(instant_time, cover_emulator, cover_client):
    """A hundred submits, which take most of a minute, delay no poll."""
    task_id = cover_emulator.add_job()
    submits = await begun(*[submit(cover_client, number) for number in range(100)])
    calls = [cover_client.get_credits(), cover_client.get_cover_details(task_id)]
    assert await in_turn(calls) == pytest.approx([0, 1 / 9], abs=0.01)
    assert cover_client.rate_limiter.queued == 0
    await end(submits)


@pytest.mark.parametrize(("stalled", "free"), [("record-info", "generate"), ("generate", "credit")])
@pytest.mark.cover_client(max_concurrent_requests=1, max_concurrent_submits=1)
async def test_each_kind_has_its_own_request_slots(
    instant_time, cover_emulator, cover_client, stalled, free
):
    """A request without an answer delays no request of the other kind."""
    cover_emulator.fault(Fault.stall(), endpoint=stalled)
    task_id = cover_emulator.add_job()
    calls = {
        "record-info": lambda: cover_client.get_cover_details(task_id),
        "generate": lambda: submit(cover_client),
        "credit": cover_client.get_credits,
    }
    stalling = await begun(calls[stalled]())
    assert await in_turn([calls[free]()]) == pytest.approx([0], abs=0.01)
    assert not stalling[0].done()
    await end(stalling)


@pytest.mark.cover_client(
    max_concurrent_submits=3, submit_rate_limiter=RateLimiter.unlimited(), submit_timeout=50.0
)
async def test_concurrent_submits_do_not_exceed_the_limit(
    instant_time, cover_emulator, cover_client
):
    """The fourth one is sent when one of three has its answer."""
    cover_emulator.fault(Fault.slow(20.0), rate=1.0, endpoint="generate")
    start = now()
    await asyncio.gather(*[submit(cover_client, number) for number in range(7)])
    sent = [moment - start for moment in times(cover_emulator, "generate")]
    assert sent == pytest.approx([0, 0, 0, 20, 20, 20, 40], abs=0.01)


@pytest.mark.cover_client(rate_limiter=RateLimiter(2), observer=OBSERVED.append)
async def test_concurrency_is_acquired_before_the_rate_slot(
    instant_time, cover_emulator, cover_client, paused
):
    """The time from a slot to its request does not grow with the queue."""
    cover_emulator.fault(Fault.slow(5.0), rate=1.0)
    async with cover_client.check_covers(
        [cover_emulator.add_job() for _ in range(150)]
    ) as outcomes:
        assert [outcome.error async for outcome in outcomes] == [None] * 150
    finished = [event for event in OBSERVED if isinstance(event, RequestFinished)]
    assert paused() == []
    assert max(event.queue_time for event in finished) > 40
    assert max(event.duration for event in finished) < 6
    sent = times(cover_emulator, "record-info")
    assert min(later - earlier for earlier, later in pairwise(sent)) > 0.49


class CountedSlots:
    """Slots that are known one at a time, some seconds after they are asked for."""

    def __init__(self, arm):
        self.taken: list[float] = []
        self._arm = arm
        self._opens_at = inf
        self._is_asked = False

    def opens_at(self):
        if self._opens_at == inf and not self._is_asked:
            self._is_asked = True
            asyncio.get_running_loop().call_later(2.0, self._come)
        return self._opens_at

    def take(self, now):
        if is_open := self.opens_at() <= now:
            self.taken.append(now)
            self._opens_at, self._is_asked = inf, False
        return is_open

    def pause(self, seconds):
        """There are no other users to tell."""

    def _come(self):
        self._opens_at = now()
        self._arm()


class OtherLimiter(RateLimiter):
    """A rate limiter whose slots come from elsewhere."""

    def _make_slots(self) -> SlotSource:
        self.slots = CountedSlots(self._arm)
        return self.slots


async def test_another_source_of_slots_is_never_bypassed(instant_time, cover_emulator):
    """Each request of a client, alone or one of many, takes a slot of its kind there."""
    polls, submits = OtherLimiter(), OtherLimiter()
    async with CoverClient(rate_limiter=polls, submit_rate_limiter=submits) as client:
        await submit(client, 1)
        assert (len(polls.slots.taken), len(submits.slots.taken)) == (0, 1)
        await client.get_credits()
        assert (len(polls.slots.taken), len(submits.slots.taken)) == (1, 1)
        ids = [cover_emulator.add_job(CoverScript(seconds=30)) for _ in range(20)]
        await asyncio.gather(
            *[client.wait_for_cover(task_id) for task_id in ids],
            *[client.get_cover_details(task_id) for task_id in ids[:5]],
            *[submit(client, number) for number in range(2, 7)],
        )
    for endpoints, slots in [
        (("generate",), submits.slots),
        (("credit", "record-info"), polls.slots),
    ]:
        sent = times(cover_emulator, *endpoints)
        assert slots.taken == pytest.approx(sent, abs=1e-3)
        assert min(later - earlier for earlier, later in pairwise(sent)) >= 2.0 - 1e-3


LIMITERS = {"rate_limiter": RateLimiter(2), "submit_rate_limiter": RateLimiter(2)}


@pytest.mark.parametrize("schedule", [ExponentialSchedule(), AdaptiveSchedule()])
def test_module_level_limiters_serve_several_event_loops(schedule):
    """Limiters and a schedule in a module serve one `asyncio.run` after another."""

    async def covers():
        settings = {**LIMITERS, "schedule": schedule}
        async with CoverEmulator(generation_time=20) as emulator:
            async with CoverClient("a-key", base_url=emulator.url, **settings) as client:
                waits = [
                    client.generate_and_wait(f"song-{number}", callback_url=CALLBACK)
                    for number in range(3)
                ]
                await asyncio.gather(*waits)
                # Paused, and with requests in the queue, when the loop ends.
                client.rate_limiter.pause(1000)
                await end(await begun(client.get_credits(), client.get_credits()))
            return [
                moment - emulator.requests[0].received for moment in times(emulator, "generate")
            ]

    for _ in range(3):
        with asyncio.Runner(loop_factory=InstantTimeLoop) as runner:
            assert runner.run(covers()) == pytest.approx([0, 0.5, 1], abs=0.01)


def test_a_limiter_in_use_by_another_loop_is_named():
    """The error names the limiter; no request is sent, and no request slot is lost."""
    limiter = RateLimiter(20)

    async def use() -> None:
        assert limiter.try_acquire() is not None

    async def calls() -> int:
        async with CoverEmulator() as emulator:
            settings = {"rate_limiter": limiter, "max_concurrent_requests": 1}
            async with CoverClient("a-key", base_url=emulator.url, **settings) as client:
                for _ in range(2):
                    with pytest.raises(RuntimeError, match="in use on another event loop"):
                        await client.get_credits()
                await submit(client)
            return len(emulator.requests)

    elsewhere = asyncio.new_event_loop()
    try:
        elsewhere.run_until_complete(use())
        assert asyncio.run(calls()) == 1
    finally:
        elsewhere.close()
