"""Waits of a client that has an inbox: what callbacks make of their polls."""

import asyncio
import logging

import pytest
from interrupted import AS_IT_WAKES, WHILE_WAITING, InterruptedAt, pending_timers
from scripted_polls import COVER, FAILED, GENERATING, ID, NOT_FOUND, RESET, ScriptedApi
from virtual_time import now

from kie_cover_async import ExponentialSchedule, RateLimiter, RetryPolicy
from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.errors import CoverFailedError, CoverTimeoutError, TaskNotFoundError
from kie_cover_async.polling import PollCoalescer, TaskWatch, Waiter, WaitOptions

pytestmark = pytest.mark.virtual_time

EVERY_FIVE = ExponentialSchedule(initial_delay=5, factor=1, max_delay=5, jitter=0)


class House:
    """An API by script, waits that share their polls of it, and an inbox that they listen to."""

    def __init__(self, *replies, rate_limiter=None, fallback_poll_interval=30.0, **options) -> None:
        self.api = ScriptedApi(*replies, rate_limiter=rate_limiter, **options)
        self.inbox = CallbackInbox(fallback_poll_interval=fallback_poll_interval)
        self.coalescer = PollCoalescer(self.api.poll, self.inbox)
        self.rate_limiter = rate_limiter or RateLimiter.unlimited()
        self.told = 0

    def wait(self, *, timeout=900.0, grace=90.0, awaits_callback=False, on_update=None) -> Waiter:
        options = WaitOptions(
            timeout=timeout,
            not_found_grace=grace,
            schedule=EVERY_FIVE,
            retry=RetryPolicy(initial_delay=1e-9),
            on_update=on_update,
        )
        return Waiter(
            TaskWatch(self.coalescer, ID),
            options,
            self.rate_limiter,
            awaits_callback=awaits_callback,
        )

    def start(self, **options) -> asyncio.Task:
        return asyncio.create_task(self.wait(**options).run())

    def call_at(self, *moments: float) -> None:
        """Lets callbacks come at these moments, no two of them in the same words."""
        for moment in moments:
            asyncio.get_running_loop().call_at(moment, self._call)

    def _call(self) -> None:
        self.told += 1
        self.inbox.receive({}, {"data": {"taskId": ID}, "msg": str(self.told)})

    def is_empty(self) -> bool:
        kept = (
            self.coalescer.watches,
            self.coalescer._in_flight,
            self.inbox._listeners,
            pending_timers(),
        )
        return not any(kept)


async def test_one_poll_confirms_a_callback():
    """A wait that expects a callback polls once, in the moment in which it comes."""
    house = House(COVER)
    house.call_at(27)
    assert await house.wait(awaits_callback=True).run() is COVER
    assert (house.api.polled_at, now()) == ([27], 27)
    assert house.is_empty()


async def test_a_failure_is_confirmed_by_a_poll_too():
    """What a callback says is not believed: the poll shows that the job has failed."""
    house = House(FAILED)
    house.call_at(20)
    with pytest.raises(CoverFailedError):
        await house.wait(awaits_callback=True).run()
    assert house.api.polled_at == [20]
    assert house.is_empty()


async def test_a_wait_for_an_older_job_polls_at_once():
    """A wait that knows nothing of the job polls first, and then rests until it is called."""
    house = House(GENERATING, COVER)
    house.call_at(17)
    assert await house.wait().run() is COVER
    assert house.api.polled_at == [0, 17]


@pytest.mark.parametrize("awaits_callback", [False, True])
async def test_a_callback_that_is_lost(awaits_callback):
    """Without a callback the polls are the fallback poll interval apart, whatever the schedule
    says.
    """
    house = House(by_time=lambda at: COVER if at > 70 else GENERATING)
    assert await house.wait(awaits_callback=awaits_callback).run() is COVER
    assert house.api.polled_at == ([30, 60, 90] if awaits_callback else [0, 30, 60, 90])


async def test_a_schedule_that_is_slower_than_the_safety_interval():
    """The fallback poll interval is the least that polls are apart, not the most."""
    house = House(by_time=lambda at: COVER if at > 9 else GENERATING, fallback_poll_interval=2)
    assert await house.wait().run() is COVER
    assert house.api.polled_at == [0, 5, 10]


async def test_the_schedule_applies_again():
    """A callback that comes too soon, or is forged, costs a poll; then the schedule applies."""
    house = House(by_time=lambda at: COVER if at > 19 else GENERATING)
    house.call_at(7)
    assert await house.wait(awaits_callback=True).run() is COVER
    assert house.api.polled_at == [7, 12, 17, 22]


async def test_an_early_callback():
    """A callback that came before the wait began is found, and looked for at once."""
    house = House(COVER)
    house.call_at(3)
    await asyncio.sleep(8)
    assert await house.wait(awaits_callback=True).run() is COVER
    assert house.api.polled_at == [8]


async def test_several_waits_share_the_confirming_poll():
    """Of all the waits for an id one polls when the callback comes, and each has the cover."""
    house = House(by_time=lambda at: COVER if at >= 40 else GENERATING, latency=0.2)
    waits = [
        house.start(awaits_callback=awaits_callback)
        for awaits_callback in (True, True, False, False)
    ]
    house.call_at(40)
    assert await asyncio.gather(*waits) == [COVER] * 4
    assert house.api.polled_at == pytest.approx([0, 30.2, 40])
    assert house.is_empty()


async def test_a_poll_in_flight_does_not_confirm():
    """A poll that left before the callback came may not see what it told of: one more follows."""
    house = House(by_time=lambda at: COVER if at >= 31 else GENERATING, latency=2)
    waits = [house.start(awaits_callback=True) for _ in range(3)]
    house.call_at(31)
    assert await asyncio.gather(*waits) == [COVER] * 3
    assert house.api.polled_at == [30, 32]
    assert house.is_empty()


async def test_a_poll_that_has_not_left_confirms():
    """A poll that is still queued for the rate limiter when the callback comes is enough."""
    house = House(by_time=lambda at: COVER if at >= 31 else GENERATING, rate_limiter=RateLimiter())
    waits = [house.start(awaits_callback=True) for _ in range(3)]
    await asyncio.sleep(29)
    house.rate_limiter.pause(5)
    house.call_at(31)
    assert await asyncio.gather(*waits) == [COVER] * 3
    assert house.api.polled_at == [34]


async def test_a_callback_during_on_update():
    """A callback that comes while `on_update` runs is looked for when it is done."""
    house = House(GENERATING, COVER)
    house.call_at(1)
    assert await house.wait(on_update=lambda _: asyncio.sleep(3)).run() is COVER
    assert house.api.polled_at == [0, 3]


@pytest.mark.parametrize("moment", [1.0, 1.3])
async def test_a_confirming_poll_that_is_cancelled(moment):
    """What a callback told of is looked for again, when nobody heard what the poll brought."""
    house = House(GENERATING, COVER, latency=0.5)
    waiting = house.start(on_update=lambda _: asyncio.sleep(20))
    house.call_at(1)
    await asyncio.sleep(moment + 0.1)
    poll = asyncio.create_task(house.coalescer.poll(ID))
    await asyncio.sleep(0.1)
    poll.cancel()
    assert await waiting is COVER
    assert (house.api.polled_at, now()) == ([0, moment + 0.1, 20.5], 41)
    assert house.is_empty()


async def test_a_poll_that_is_cancelled_confirms_nothing():
    """Where no callback has come, it makes nobody poll."""
    house = House(GENERATING, COVER, latency=0.5)
    waiting = house.start(awaits_callback=True)
    await asyncio.sleep(1)
    poll = asyncio.create_task(house.coalescer.poll(ID))
    await asyncio.sleep(0.1)
    poll.cancel()
    assert await waiting is COVER
    assert house.api.polled_at == [1, 30]


async def test_a_poll_that_is_cancelled_after_the_confirming_one():
    """What a callback told of has been seen by then, and is not looked for again."""
    house = House(GENERATING, GENERATING, COVER, latency=0.5)
    waiting = house.start(awaits_callback=True)
    house.call_at(1)
    await asyncio.sleep(3)
    poll = asyncio.create_task(house.coalescer.poll(ID))
    await asyncio.sleep(0.1)
    poll.cancel()
    assert await waiting is COVER
    assert house.api.polled_at == [1, 3, 6.5]


async def test_a_flood_of_callbacks():
    """However many callbacks come, they make a wait poll once in a second."""
    house = House(GENERATING)
    house.call_at(*[10 + i / 100 for i in range(401)])
    with pytest.raises(CoverTimeoutError):
        await house.wait(awaits_callback=True, timeout=15.5).run()
    assert house.api.polled_at == pytest.approx([10, 11, 12, 13, 14, 14.5])
    assert house.is_empty()


async def test_a_flood_with_several_waits():
    """Waits that began at different times share the polls that a flood makes them make."""
    house = House(GENERATING)
    house.call_at(*[10 + i / 100 for i in range(301)])
    waits = [house.start(awaits_callback=True, timeout=14.5 + i / 10) for i in range(3)]
    await asyncio.gather(*waits, return_exceptions=True)
    assert house.api.polled_at[:4] == pytest.approx([10, 11, 12, 13])
    assert house.is_empty()


async def test_repeated_deliveries():
    """The same callback once more wakes nobody."""
    house = House(by_time=lambda at: COVER if at >= 20 else GENERATING)
    body = {"data": {"taskId": ID}}
    for moment in (10, 10.5, 11.5):
        asyncio.get_running_loop().call_at(moment, house.inbox.receive, {}, body)
    assert await house.wait(awaits_callback=True).run() is COVER
    assert house.api.polled_at == [10, 15, 20]


async def test_a_confirming_poll_that_fails():
    """A poll that a callback made, and that fails in passing, is repeated as any other."""
    house = House(RESET, COVER)
    house.call_at(10)
    assert await house.wait(awaits_callback=True).run() is COVER
    assert house.api.polled_at == pytest.approx([10, 10])


async def test_no_record_yet():
    """Where there is no record the next poll comes after the fallback poll interval, up to the
    grace.
    """
    house = House(NOT_FOUND, NOT_FOUND, COVER)
    assert await house.wait(awaits_callback=True).run() is COVER
    assert house.api.polled_at == [30, 60, 90]
    with pytest.raises(TaskNotFoundError):
        await House(NOT_FOUND).wait(awaits_callback=True, grace=45).run()
    assert now() == 90 + 60


async def test_the_deadline_counts_from_the_beginning():
    """A wait that expects a callback has a last poll before its deadline, and keeps it."""
    house = House(GENERATING)
    with pytest.raises(CoverTimeoutError) as caught:
        await house.wait(awaits_callback=True, timeout=20).run()
    assert (house.api.polled_at, caught.value.waited, now()) == ([19], 20, 20)
    assert house.is_empty()


async def test_called_after_the_last_poll():
    """A callback between the last poll and the deadline is looked for, too."""
    house = House(GENERATING, COVER)
    house.call_at(19.5)
    assert await house.wait(awaits_callback=True, timeout=20).run() is COVER
    assert house.api.polled_at == [19, 19.5]


async def test_for_ever():
    """Without a timeout a wait goes on until the callback comes."""
    house = House(by_time=lambda at: COVER if at >= 10_007 else GENERATING)
    house.call_at(10_007)
    assert await house.wait(awaits_callback=True, timeout=None).run() is COVER
    assert now() == 10_007


async def test_one_poll_is_made_at_once():
    """A timeout of 0 is one poll now, whatever callback is to come."""
    house = House(COVER)
    assert await house.wait(awaits_callback=True, timeout=0).run() is COVER
    assert house.api.polled_at == [0]


@pytest.mark.parametrize("moment", [WHILE_WAITING, AS_IT_WAKES])
async def test_cancelled_at_every_wait(moment):
    """Wherever one of two waits is cancelled it leaves nothing, and the other has its cover."""
    interruptions = 0
    while True:
        house = House(GENERATING, GENERATING, COVER, latency=1, rate_limiter=RateLimiter(1))
        house.call_at(now() + 3, now() + 3.5, now() + 7)
        interrupted = InterruptedAt(interruptions, moment, house.wait(awaits_callback=True).run())
        outcome, cover = await asyncio.gather(
            interrupted.run(), house.wait(awaits_callback=True).run(), return_exceptions=True
        )
        assert (cover, house.coalescer.watches, house.inbox._listeners) == (COVER, {}, {})
        if not interrupted.interrupted:
            break
        assert isinstance(outcome, asyncio.CancelledError)
        interruptions += 1
        await asyncio.sleep(10)  # until all callbacks have come
    assert outcome is COVER
    assert interruptions > 3


@pytest.mark.parametrize(
    ("called", "awaits_callback", "replies", "hints"),
    [
        (False, True, [COVER], 1),
        (False, True, [GENERATING, FAILED], 1),
        (False, False, [GENERATING, COVER], 1),
        (False, False, [COVER], 0),
        (True, True, [COVER], 0),
        (True, False, [GENERATING, COVER], 0),
    ],
)
async def test_a_hint_that_callbacks_do_not_arrive(caplog, called, awaits_callback, replies, hints):
    """A job that ended unheard of is a line in the log; one that had ended before is none."""
    caplog.set_level(logging.INFO, "kie_cover_async.polling")
    house = House(*replies)
    if called:
        house.call_at(5)
    await asyncio.gather(house.start(awaits_callback=awaits_callback), return_exceptions=True)
    assert caplog.text.count(f"cover {ID} has ended, and no callback was heard") == hints
