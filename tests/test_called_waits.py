"""Waits of a client that has an inbox: what callbacks make of their polls."""

import asyncio
import logging

import pytest
from support.cancellation import AS_IT_WAKES, WHILE_WAITING, CancelledAt, pending_timers
from support.scripted_polls import (
    COVER,
    FAILED,
    GENERATING,
    ID,
    NOT_FOUND,
    RESET,
    ScriptedTransport,
    coalescer_of,
)
from support.virtual_time import now

from kie_cover_async import ExponentialSchedule, RateLimiter, RetryPolicy
from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.errors import CoverFailedError, CoverTimeoutError, TaskNotFoundError
from kie_cover_async.polling import WaitOptions
from kie_cover_async.polling.task_watch import TaskWatch
from kie_cover_async.polling.waiter import Waiter

pytestmark = pytest.mark.virtual_time

EVERY_FIVE = ExponentialSchedule(initial_delay=5, factor=1, max_delay=5, jitter=0)


class WaitHarness:
    """A scripted API, waits that share their polls of it, and an inbox that they listen to."""

    def __init__(self, *replies, rate_limiter=None, fallback_poll_interval=30.0, **options) -> None:
        self.api = ScriptedTransport(*replies, rate_limiter=rate_limiter, **options)
        self.inbox = CallbackInbox(fallback_poll_interval=fallback_poll_interval)
        self.coalescer = coalescer_of(self.api)
        self.rate_limiter = self.api.rate_limiter
        self.callbacks_sent = 0

    def wait(self, *, timeout=900.0, grace=90.0, expects_callback=False, on_update=None) -> Waiter:
        options = WaitOptions(
            timeout=timeout,
            not_found_grace=grace,
            schedule=EVERY_FIVE,
            retry=RetryPolicy(initial_delay=1e-9),
            on_update=on_update,
        )
        watch = TaskWatch(self.coalescer, self.inbox, ID)
        return Waiter(self.api, watch, options, expects_callback=expects_callback)

    def start(self, **options) -> asyncio.Task:
        return asyncio.create_task(self.wait(**options).run())

    def call_at(self, *moments: float) -> None:
        """Lets callbacks come at these moments, no two of them in the same words."""
        for moment in moments:
            asyncio.get_running_loop().call_at(moment, self._call)

    def _call(self) -> None:
        self.callbacks_sent += 1
        self.inbox.receive({}, {"data": {"taskId": ID}, "msg": str(self.callbacks_sent)})

    def is_empty(self) -> bool:
        kept = (
            self.coalescer.watchers,
            self.coalescer._open_polls,
            self.inbox._listeners,
            pending_timers(),
        )
        return not any(kept)


async def test_one_poll_confirms_a_callback():
    """A wait that expects a callback polls once, when the callback arrives."""
    harness = WaitHarness(COVER)
    harness.call_at(27)
    assert await harness.wait(expects_callback=True).run() is COVER
    assert (harness.api.polled_at, now()) == ([27], 27)
    assert harness.is_empty()


async def test_a_failure_is_confirmed_by_a_poll():
    """A callback's content is not trusted: the poll shows that the job has failed."""
    harness = WaitHarness(FAILED)
    harness.call_at(20)
    with pytest.raises(CoverFailedError):
        await harness.wait(expects_callback=True).run()
    assert harness.api.polled_at == [20]
    assert harness.is_empty()


async def test_a_wait_for_an_older_job_polls_immediately():
    """A wait for an existing job polls first, and then waits for the callback."""
    harness = WaitHarness(GENERATING, COVER)
    harness.call_at(17)
    assert await harness.wait().run() is COVER
    assert harness.api.polled_at == [0, 17]


@pytest.mark.parametrize("expects_callback", [False, True])
async def test_a_lost_callback_is_replaced_by_fallback_polls(expects_callback):
    """Without a callback the polls are the fallback poll interval apart, whatever the schedule
    says.
    """
    harness = WaitHarness(by_time=lambda at: COVER if at > 70 else GENERATING)
    assert await harness.wait(expects_callback=expects_callback).run() is COVER
    assert harness.api.polled_at == ([30, 60, 90] if expects_callback else [0, 30, 60, 90])


async def test_a_slower_schedule_overrides_the_fallback_interval():
    """The fallback poll interval is a minimum between polls, not a maximum."""
    harness = WaitHarness(
        by_time=lambda at: COVER if at > 9 else GENERATING, fallback_poll_interval=2
    )
    assert await harness.wait().run() is COVER
    assert harness.api.polled_at == [0, 5, 10]


async def test_the_schedule_applies_after_a_premature_callback():
    """A premature or forged callback costs one poll; then the schedule applies."""
    harness = WaitHarness(by_time=lambda at: COVER if at > 19 else GENERATING)
    harness.call_at(7)
    assert await harness.wait(expects_callback=True).run() is COVER
    assert harness.api.polled_at == [7, 12, 17, 22]


async def test_an_early_callback_causes_an_immediate_poll():
    """A wait polls immediately if the callback came before it began."""
    harness = WaitHarness(COVER)
    harness.call_at(3)
    await asyncio.sleep(8)
    assert await harness.wait(expects_callback=True).run() is COVER
    assert harness.api.polled_at == [8]


async def test_several_waits_share_the_confirming_poll():
    """One poll after the callback gives all waits for the id their cover."""
    harness = WaitHarness(by_time=lambda at: COVER if at >= 40 else GENERATING, latency=0.2)
    waits = [
        harness.start(expects_callback=expects_callback)
        for expects_callback in (True, True, False, False)
    ]
    harness.call_at(40)
    assert await asyncio.gather(*waits) == [COVER] * 4
    assert harness.api.polled_at == pytest.approx([0, 30.2, 40])
    assert harness.is_empty()


async def test_a_poll_in_flight_does_not_confirm():
    """A poll that was sent before the callback may be outdated: one more follows."""
    harness = WaitHarness(by_time=lambda at: COVER if at >= 31 else GENERATING, latency=2)
    waits = [harness.start(expects_callback=True) for _ in range(3)]
    harness.call_at(31)
    assert await asyncio.gather(*waits) == [COVER] * 3
    assert harness.api.polled_at == [30, 32]
    assert harness.is_empty()


async def test_a_queued_poll_confirms():
    """A poll that is still queued when the callback comes confirms it."""
    harness = WaitHarness(
        by_time=lambda at: COVER if at >= 31 else GENERATING, rate_limiter=RateLimiter()
    )
    waits = [harness.start(expects_callback=True) for _ in range(3)]
    await asyncio.sleep(29)
    harness.rate_limiter.pause(5)
    harness.call_at(31)
    assert await asyncio.gather(*waits) == [COVER] * 3
    assert harness.api.polled_at == [34]


async def test_a_callback_during_on_update_causes_a_poll_afterwards():
    """A callback that comes while `on_update` runs causes a poll after it."""
    harness = WaitHarness(GENERATING, COVER)
    harness.call_at(1)
    assert await harness.wait(on_update=lambda _: asyncio.sleep(3)).run() is COVER
    assert harness.api.polled_at == [0, 3]


@pytest.mark.parametrize("moment", [1.0, 1.3])
async def test_a_cancelled_confirming_poll_is_replaced(moment):
    """If the poll after a callback is cancelled, another one follows."""
    harness = WaitHarness(GENERATING, COVER, latency=0.5)
    waiting = harness.start(on_update=lambda _: asyncio.sleep(20))
    harness.call_at(1)
    await asyncio.sleep(moment + 0.1)
    poll = asyncio.create_task(harness.coalescer.poll(ID))
    await asyncio.sleep(0.1)
    poll.cancel()
    assert await waiting is COVER
    assert (harness.api.polled_at, now()) == ([0, moment + 0.1, 20.5], 41)
    assert harness.is_empty()


async def test_a_cancelled_poll_causes_no_other():
    """Without a callback, a cancelled poll causes no other poll."""
    harness = WaitHarness(GENERATING, COVER, latency=0.5)
    waiting = harness.start(expects_callback=True)
    await asyncio.sleep(1)
    poll = asyncio.create_task(harness.coalescer.poll(ID))
    await asyncio.sleep(0.1)
    poll.cancel()
    assert await waiting is COVER
    assert harness.api.polled_at == [1, 30]


async def test_no_poll_follows_once_the_callback_is_confirmed():
    """If the callback's poll has ended, a cancelled poll needs no replacement."""
    harness = WaitHarness(GENERATING, GENERATING, COVER, latency=0.5)
    waiting = harness.start(expects_callback=True)
    harness.call_at(1)
    await asyncio.sleep(3)
    poll = asyncio.create_task(harness.coalescer.poll(ID))
    await asyncio.sleep(0.1)
    poll.cancel()
    assert await waiting is COVER
    assert harness.api.polled_at == [1, 3, 6.5]


async def test_a_flood_of_callbacks_causes_one_poll_a_second():
    """Any number of callbacks causes at most one poll a second."""
    harness = WaitHarness(GENERATING)
    harness.call_at(*[10 + i / 100 for i in range(401)])
    with pytest.raises(CoverTimeoutError):
        await harness.wait(expects_callback=True, timeout=15.5).run()
    assert harness.api.polled_at == pytest.approx([10, 11, 12, 13, 14, 14.5])
    assert harness.is_empty()


async def test_waits_share_the_polls_of_a_flood():
    """Waits that began at different times share the polls that a flood causes."""
    harness = WaitHarness(GENERATING)
    harness.call_at(*[10 + i / 100 for i in range(301)])
    waits = [harness.start(expects_callback=True, timeout=14.5 + i / 10) for i in range(3)]
    await asyncio.gather(*waits, return_exceptions=True)
    assert harness.api.polled_at[:4] == pytest.approx([10, 11, 12, 13])
    assert harness.is_empty()


async def test_a_repeated_delivery_wakes_no_wait():
    """A callback that is delivered again wakes no wait."""
    harness = WaitHarness(by_time=lambda at: COVER if at >= 20 else GENERATING)
    body = {"data": {"taskId": ID}}
    for moment in (10, 10.5, 11.5):
        asyncio.get_running_loop().call_at(moment, harness.inbox.receive, {}, body)
    assert await harness.wait(expects_callback=True).run() is COVER
    assert harness.api.polled_at == [10, 15, 20]


async def test_a_failed_confirming_poll_is_repeated():
    """After a transient error, the confirming poll is repeated like any other."""
    harness = WaitHarness(RESET, COVER)
    harness.call_at(10)
    assert await harness.wait(expects_callback=True).run() is COVER
    assert harness.api.polled_at == pytest.approx([10, 10])


async def test_a_missing_record_is_polled_at_the_fallback_interval():
    """A missing record is polled at the fallback interval until the grace ends."""
    harness = WaitHarness(NOT_FOUND, NOT_FOUND, COVER)
    assert await harness.wait(expects_callback=True).run() is COVER
    assert harness.api.polled_at == [30, 60, 90]
    with pytest.raises(TaskNotFoundError):
        await WaitHarness(NOT_FOUND).wait(expects_callback=True, grace=45).run()
    assert now() == 90 + 60


async def test_the_deadline_counts_from_the_beginning():
    """A wait that expects a callback polls once before its deadline, and keeps it."""
    harness = WaitHarness(GENERATING)
    with pytest.raises(CoverTimeoutError) as caught:
        await harness.wait(expects_callback=True, timeout=20).run()
    assert (harness.api.polled_at, caught.value.waited, now()) == ([19], 20, 20)
    assert harness.is_empty()


async def test_a_callback_after_the_last_poll_causes_one_more():
    """A callback between the last poll and the deadline causes a poll, too."""
    harness = WaitHarness(GENERATING, COVER)
    harness.call_at(19.5)
    assert await harness.wait(expects_callback=True, timeout=20).run() is COVER
    assert harness.api.polled_at == [19, 19.5]


async def test_without_a_timeout_a_wait_lasts_until_the_callback():
    """Without a timeout, a wait continues until the callback arrives."""
    harness = WaitHarness(by_time=lambda at: COVER if at >= 10_007 else GENERATING)
    harness.call_at(10_007)
    assert await harness.wait(expects_callback=True, timeout=None).run() is COVER
    assert now() == 10_007


async def test_a_timeout_of_zero_polls_immediately():
    """With a timeout of 0, one poll is sent immediately, callback or not."""
    harness = WaitHarness(COVER)
    assert await harness.wait(expects_callback=True, timeout=0).run() is COVER
    assert harness.api.polled_at == [0]


@pytest.mark.parametrize("moment", [WHILE_WAITING, AS_IT_WAKES])
async def test_a_wait_can_be_cancelled_at_each_await(moment):
    """A wait cancelled at any await leaves nothing; the other one gets its cover."""
    interruptions = 0
    while True:
        harness = WaitHarness(GENERATING, GENERATING, COVER, latency=1, rate_limiter=RateLimiter(1))
        harness.call_at(now() + 3, now() + 3.5, now() + 7)
        interrupted = CancelledAt(interruptions, moment, harness.wait(expects_callback=True).run())
        outcome, cover = await asyncio.gather(
            interrupted.run(), harness.wait(expects_callback=True).run(), return_exceptions=True
        )
        assert (cover, harness.coalescer.watchers, harness.inbox._listeners) == (COVER, {}, {})
        if not interrupted.interrupted:
            break
        assert isinstance(outcome, asyncio.CancelledError)
        interruptions += 1
        await asyncio.sleep(10)  # until all callbacks have come
    assert outcome is COVER
    assert interruptions > 3


@pytest.mark.parametrize(
    ("called", "expects_callback", "replies", "hints"),
    [
        (False, True, [COVER], 1),
        (False, True, [GENERATING, FAILED], 1),
        (False, False, [GENERATING, COVER], 1),
        (False, False, [COVER], 0),
        (True, True, [COVER], 0),
        (True, False, [GENERATING, COVER], 0),
    ],
)
async def test_missing_callbacks_are_hinted_at_in_the_log(
    caplog, called, expects_callback, replies, hints
):
    """A job that ended without a callback is logged, unless it had ended before the wait."""
    caplog.set_level(logging.INFO, "kie_cover_async.polling")
    harness = WaitHarness(*replies)
    if called:
        harness.call_at(5)
    await asyncio.gather(harness.start(expects_callback=expects_callback), return_exceptions=True)
    assert caplog.text.count(f"cover {ID} has ended without a callback") == hints
