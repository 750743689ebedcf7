import asyncio
import logging
from datetime import timedelta

import pytest
from support.cancellation import AS_IT_WAKES, WHILE_WAITING, CancelledAt, pending_timers, stall
from support.scripted_polls import (
    BARE,
    COVER,
    FAILED,
    GENERATING,
    ID,
    NEVER,
    NOT_FOUND,
    PENDING,
    RESET,
    UNAUTHORISED,
    UNHEARD_OF,
    UNREADABLE,
    FakeTransport,
    ScriptedTransport,
    coalescer_of,
    record,
    refused,
)
from support.virtual_time import now

from kie_cover_async import CoverDetails, ExponentialSchedule, RateLimiter, RetryPolicy
from kie_cover_async.errors import (
    AuthenticationError,
    CoverFailedError,
    CoverTimeoutError,
    InvalidResponseError,
    RateLimitedError,
    TaskNotFoundError,
    TransportError,
)
from kie_cover_async.events import CoverPolled, StateChanged
from kie_cover_async.polling import WaitOptions
from kie_cover_async.polling.task_watch import TaskWatch
from kie_cover_async.polling.waiter import Waiter

pytestmark = pytest.mark.virtual_time

STEADY = ExponentialSchedule(initial_delay=2, factor=1.5, max_delay=15, jitter=0)


class FixedInterval:
    """Polls again after as many seconds, whatever the age, and notes what it was asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ages: list[float] = []
        self.pressures: list[float] = []

    def delay(self, age: float, pressure: float) -> float:
        self.ages.append(age)
        self.pressures.append(pressure)
        return self.seconds


class LearningInterval(FixedInterval):
    """Notes the records from which it is to learn."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.learned: list[object] = []

    def learn(self, details: object) -> None:
        self.learned.append(details)


class CountedRetries(RetryPolicy):
    """Pauses for as many seconds as there were failures."""

    def pause(self, failures: int) -> float:
        return float(failures)


class Updates:
    """An `on_update` that notes what it is given, and takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.seen: list[object] = []

    async def __call__(self, details: object) -> None:
        self.seen.append(details)
        await asyncio.sleep(self.seconds)


class WaitHarness:
    """A scripted API, and the waits that share their polls of it."""

    def __init__(self, *replies, rate_limiter=None, **options) -> None:
        self.api = ScriptedTransport(*replies, rate_limiter=rate_limiter, **options)
        self.coalescer = coalescer_of(self.api)
        self.rate_limiter = self.api.rate_limiter

    def wait(self, *, timeout=900.0, schedule=None, grace=90.0, on_update=None) -> Waiter:
        options = WaitOptions(
            timeout=timeout,
            not_found_grace=grace,
            schedule=schedule or FixedInterval(5),
            retry=CountedRetries(),
            on_update=on_update,
        )
        watch = TaskWatch(self.coalescer, None, ID)
        return Waiter(self.api, watch, options, expects_callback=False)

    def is_empty(self) -> bool:
        polls = self.coalescer._open_polls
        return not (
            self.coalescer.watchers or polls or self.rate_limiter.queued or pending_timers()
        )


async def timed_out(wait: Waiter) -> CoverTimeoutError:
    [error] = await asyncio.gather(wait.run(), return_exceptions=True)
    assert isinstance(error, CoverTimeoutError)
    return error


async def test_the_first_poll_is_made_immediately():
    """A finished cover is returned without a pause."""
    harness = WaitHarness(COVER)
    assert await harness.wait().run() is COVER
    assert (harness.api.polled_at, now()) == ([0], 0)
    assert harness.is_empty()


async def test_a_wait_polls_until_the_cover_is_finished():
    """A wait polls when the schedule says, and returns the cover."""
    harness = WaitHarness(NOT_FOUND, PENDING, GENERATING, COVER)
    assert await harness.wait().run() is COVER
    assert harness.api.polled_at == [0, 5, 10, 15]
    assert harness.is_empty()


async def test_a_failed_job_ends_the_wait_at_the_next_poll():
    """The poll that shows the failure ends the wait."""
    harness = WaitHarness(GENERATING, FAILED)
    with pytest.raises(CoverFailedError) as caught:
        await harness.wait().run()
    assert (caught.value.details, now()) == (FAILED, 5)
    assert harness.is_empty()


async def test_a_new_job_is_polled_less_and_less_often():
    """The exponential schedule's intervals follow the age of a job that begins with the wait."""
    created = record(2, create_time=ScriptedTransport.noon)
    harness = WaitHarness(created)
    await timed_out(harness.wait(timeout=60, schedule=STEADY))
    assert harness.api.polled_at == pytest.approx(
        [0, 2, 5, 9.5, 16.25, 26.375, 41.375, 56.375, 59], abs=1e-9
    )


async def test_a_resumed_wait_uses_the_long_interval():
    """A wait for a job that is 80 s old continues at the long interval."""
    created = record(2, create_time=ScriptedTransport.noon - timedelta(seconds=80))
    harness = WaitHarness(created)
    await timed_out(harness.wait(timeout=60, schedule=STEADY))
    assert harness.api.polled_at == [0, 15, 30, 45, 59]


async def test_the_schedule_gets_the_age_by_the_servers_clock():
    """Without that clock, it gets the age of the wait."""
    created = record(2, create_time=ScriptedTransport.noon - timedelta(seconds=80))
    ages = []
    for has_clock in (True, False):
        schedule = FixedInterval(2.5)
        harness = WaitHarness(created, has_clock=has_clock)
        began = now()
        await timed_out(harness.wait(timeout=12, schedule=schedule))
        ages.append([age - began * has_clock for age in schedule.ages[:4]])
    assert ages == [[80, 82.5, 85, 87.5], [0, 2.5, 5, 7.5]]


async def test_the_schedule_sees_the_pressure():
    """The schedule gets the pressure of the rate limiter."""
    schedule = FixedInterval(5)
    harness = WaitHarness(GENERATING, COVER, rate_limiter=RateLimiter(10), latency=0.05)
    wait = asyncio.create_task(harness.wait(schedule=schedule).run())
    await asyncio.sleep(0)
    queue = [asyncio.create_task(harness.rate_limiter.acquire()) for _ in range(20)]
    await wait
    await asyncio.wait(queue)
    assert schedule.pressures == [3]


async def test_the_last_poll_is_a_second_before_the_deadline():
    """No poll follows it, and the error comes at the deadline."""
    harness = WaitHarness(GENERATING)
    error = await timed_out(harness.wait(timeout=60, schedule=FixedInterval(25)))
    assert harness.api.polled_at == [0, 25, 50, 59]
    assert (error.polls, error.waited, error.details, now()) == (4, 60, GENERATING, 60)
    assert harness.is_empty()


async def test_a_short_wait_has_its_last_poll_at_nine_tenths():
    """A short timeout has its last poll a tenth of it before the deadline."""
    harness = WaitHarness(GENERATING)
    await timed_out(harness.wait(timeout=2))
    assert harness.api.polled_at == [0, pytest.approx(1.8)]


async def test_a_cover_found_by_the_last_poll_is_returned():
    """A cover that is finished at the last poll is returned."""
    harness = WaitHarness(by_time=lambda at: COVER if at > 50 else GENERATING)
    assert await harness.wait(timeout=60, schedule=FixedInterval(50)).run() is COVER
    assert now() == 59


HARD = {
    "a first poll that never returns": ([NEVER], 0, {}),
    "a poll that never returns": ([GENERATING, NEVER], 0, {}),
    "slow polls": ([GENERATING], 3, {}),
    "a last poll that is too slow": ([GENERATING], 0.8, {}),
    "a pause of all requests": ([refused(60)], 0, {}),
    "no record": ([NOT_FOUND], 0, {}),
    "failures": ([RESET], 0, {}),
    "unreadable answers": ([UNREADABLE], 0, {}),
    "success without images": ([BARE], 0, {}),
    "an unknown flag": ([UNHEARD_OF], 0, {}),
    "a slow on_update": ([GENERATING], 0, {"on_update": Updates(1000)}),
    "a schedule that never rests": ([GENERATING], 0.01, {"schedule": FixedInterval(0)}),
    "a schedule that rests too long": ([GENERATING], 0, {"schedule": FixedInterval(1e9)}),
}


@pytest.mark.parametrize(("replies", "latency", "options"), HARD.values(), ids=HARD)
async def test_the_deadline_is_hard(replies, latency, options):
    """Under any fault the wait ends exactly at its deadline and leaves nothing."""
    harness = WaitHarness(*replies, latency=latency, rate_limiter=RateLimiter(1000))
    error = await timed_out(harness.wait(timeout=7.3, **options))
    assert (now(), error.waited, error.task_id) == (7.3, 7.3, ID)
    assert harness.is_empty()


async def test_timeout_and_grace_start_with_the_first_poll():
    """Time for which the first poll queues does not count."""
    harness = WaitHarness(NOT_FOUND, rate_limiter=RateLimiter())
    harness.rate_limiter.pause(50)
    error = await timed_out(harness.wait(timeout=10))
    assert (harness.api.polled_at, error.waited, now()) == ([50, 55, 59], 10, 60)
    harness.rate_limiter.pause(100)
    with pytest.raises(TaskNotFoundError):
        await harness.wait(grace=12).run()
    assert now() == 175


async def test_a_timeout_of_zero_is_one_poll():
    """A timeout of 0 is one poll, however long it takes."""
    assert await WaitHarness(COVER, latency=3).wait(timeout=0).run() is COVER
    assert now() == 3
    harness = WaitHarness(GENERATING, COVER)
    error = await timed_out(harness.wait(timeout=0))
    assert (error.polls, error.details, harness.api.polled_at) == (1, GENERATING, [3])
    assert isinstance(
        (await timed_out(WaitHarness(RESET).wait(timeout=0))).__cause__, TransportError
    )
    harness = WaitHarness(NOT_FOUND)
    assert isinstance((await timed_out(harness.wait(timeout=0))).__cause__, TaskNotFoundError)
    with pytest.raises(TaskNotFoundError):
        await harness.wait(timeout=0, grace=0).run()


async def test_without_a_timeout_a_wait_has_no_deadline():
    """Without a timeout a wait continues until the job ends."""
    month = 30 * 86400
    harness = WaitHarness(by_time=lambda at: COVER if at >= month else GENERATING)
    assert await harness.wait(timeout=None, schedule=FixedInterval(86400)).run() is COVER
    assert now() == month


async def test_transient_failures_do_not_end_a_wait():
    """A wait retries them at the policy's pace, and returns the cover."""
    harness = WaitHarness(RESET, RESET, UNREADABLE, GENERATING, RESET, COVER)
    assert await harness.wait().run() is COVER
    assert harness.api.polled_at == [0, 1, 3, 6, 11, 12]


async def test_a_wait_continues_after_a_pause_of_the_limiter():
    """A refusal pauses the rate limiter, and the wait continues after the pause."""
    harness = WaitHarness(GENERATING, refused(60), refused(60), COVER, rate_limiter=RateLimiter())
    assert await harness.wait().run() is COVER
    assert harness.api.polled_at == [0, 5, 65, 125]


@pytest.mark.parametrize(
    ("replies", "cause"),
    [
        ([GENERATING, RESET], TransportError),
        ([refused(1)], RateLimitedError),
        ([RESET, NOT_FOUND], TaskNotFoundError),
        ([RESET, GENERATING], type(None)),
    ],
)
async def test_the_last_error_is_the_cause_of_a_timeout(replies, cause):
    """Only a wait that ends in a streak of failures has a cause."""
    error = await timed_out(WaitHarness(*replies, rate_limiter=RateLimiter()).wait(timeout=20))
    assert type(error.__cause__) is cause


async def test_an_unknown_flag_is_named():
    """An unknown flag does not end the wait, and the timeout error shows it."""
    harness = WaitHarness(UNHEARD_OF)
    error = await timed_out(harness.wait(timeout=20))
    assert harness.api.polled_at == [0, 5, 10, 15, 19]
    assert "unknown flag 17" in str(error)
    assert await WaitHarness(UNHEARD_OF, COVER).wait().run() is COVER


async def test_a_missing_record_after_the_grace_ends_a_wait():
    """Within the grace, or once a record was seen, a missing one does not."""
    with pytest.raises(TaskNotFoundError):
        await WaitHarness(NOT_FOUND).wait(grace=12).run()
    assert now() == 15
    harness = WaitHarness(NOT_FOUND, NOT_FOUND, GENERATING, *[NOT_FOUND] * 9, COVER)
    assert await harness.wait(grace=12).run() is COVER


async def test_success_without_images_fails_after_ten_seconds():
    """It is polled every second for ten seconds; the error then has the record."""
    harness = WaitHarness(BARE)
    with pytest.raises(CoverFailedError) as caught:
        await harness.wait().run()
    assert harness.api.polled_at == list(range(11))
    assert caught.value.details is BARE
    assert await WaitHarness(*[BARE] * 10, COVER).wait().run() is COVER


async def test_ten_unreadable_answers_in_a_row_end_a_wait():
    """Nine, and then a good one, do not."""
    harness = WaitHarness(UNREADABLE)
    with pytest.raises(InvalidResponseError):
        await harness.wait().run()
    assert len(harness.api.polled_at) == 10
    harness = WaitHarness(*[UNREADABLE] * 9, GENERATING, *[UNREADABLE] * 9, COVER)
    assert await harness.wait().run() is COVER


@pytest.mark.parametrize("before", [(), (GENERATING, RESET)])
async def test_a_permanent_error_ends_a_wait_immediately(before):
    """A rejected key ends a wait at that poll."""
    harness = WaitHarness(*before, UNAUTHORISED)
    with pytest.raises(AuthenticationError):
        await harness.wait().run()
    assert len(harness.api.polled_at) == len(before) + 1
    assert harness.is_empty()


@pytest.mark.parametrize("end", [COVER, FAILED])
async def test_on_update_gets_every_record(end):
    """A plain or async `on_update` gets the record of each poll, the last included."""
    replies = [NOT_FOUND, PENDING, RESET, GENERATING, GENERATING, end]
    updates, plain = Updates(1), []
    for on_update in (updates, plain.append):
        wait = WaitHarness(*replies).wait(on_update=on_update)
        await asyncio.gather(wait.run(), return_exceptions=True)
    assert updates.seen == plain == [PENDING, GENERATING, GENERATING, end]


async def test_on_update_is_called_in_the_callers_task():
    """It runs in the caller's context, without another task."""
    tasks = []
    await WaitHarness(COVER).wait(on_update=lambda _: tasks.append(asyncio.current_task())).run()
    assert tasks == [asyncio.current_task()]


async def test_a_result_seen_by_on_update_survives_the_deadline():
    """If `on_update` of the last record exceeds the deadline, its result counts."""
    harness = WaitHarness(GENERATING, COVER)
    assert await harness.wait(timeout=7, on_update=Updates(4)).run() is COVER
    assert now() == 5 + 4
    with pytest.raises(CoverFailedError):
        await WaitHarness(FAILED).wait(timeout=7, on_update=Updates(100)).run()
    assert now() == 109


@pytest.mark.parametrize("end", [COVER, FAILED], ids=["cover", "failure"])
async def test_a_result_of_another_poll_before_the_deadline_counts(end):
    """The end of the job that another caller's poll saw while `on_update` ran is the result."""
    harness = WaitHarness(by_time=lambda at: GENERATING if at < 5 else end)
    updates = Updates(20)
    late = asyncio.create_task(harness.wait(timeout=15, on_update=updates).run())
    outcomes = await asyncio.gather(harness.wait().run(), late, return_exceptions=True)
    seen = [getattr(outcome, "details", outcome) for outcome in outcomes]
    assert (seen, now()) == ([end, end], 15 + 20)
    assert updates.seen == [GENERATING, end]
    assert harness.is_empty()


async def test_on_update_may_return_an_awaitable_only_sometimes():
    """It is called with the end that another wait's poll brought, and nothing is awaited."""
    harness = WaitHarness(by_time=lambda at: GENERATING if at < 5 else COVER)
    seen = []

    def on_update(details: CoverDetails) -> object:
        seen.append(details)
        return asyncio.sleep(20) if details is GENERATING else None

    late = harness.wait(timeout=15, on_update=on_update).run()
    assert await asyncio.gather(harness.wait().run(), late) == [COVER, COVER]
    assert (now(), seen) == (15, [GENERATING, COVER])
    assert harness.is_empty()


async def test_an_unfinished_result_before_the_deadline_is_a_timeout():
    """The wait then times out, and `on_update` is not called again."""
    harness, updates = WaitHarness(GENERATING), Updates(20)
    late = harness.wait(timeout=15, on_update=updates)
    other = asyncio.create_task(timed_out(harness.wait(timeout=12)))
    error = await timed_out(late)
    assert (error.polls, error.waited, updates.seen) == (1, 15, [GENERATING])
    assert (await other).polls == 4


async def test_each_wait_polls_before_its_deadline_despite_a_long_queue():
    """Each wait polls before its time is up, even if others have not had a first poll yet."""

    async def answer(task_id):
        await asyncio.sleep(0.5)
        return COVER if now() > 8 else GENERATING, None

    api = FakeTransport(answer, RateLimiter(10))
    coalescer = coalescer_of(api)
    options = WaitOptions(timeout=20, not_found_grace=90, schedule=STEADY, retry=CountedRetries())
    watches = [TaskWatch(coalescer, None, str(number)) for number in range(400)]
    waits = [Waiter(api, watch, options, expects_callback=False).run() for watch in watches]
    assert await asyncio.gather(*waits) == [COVER] * 400
    assert now() < 50


async def test_a_wait_polls_once_after_a_blocked_loop():
    """The wait ends a second after the loop is free, after one more poll.

    A cover that was seen is returned.
    """
    error = await timed_out(WaitHarness(GENERATING).wait(timeout=7, on_update=lambda _: stall(100)))
    assert (error.waited, error.polls) == (201, 2)
    assert await WaitHarness(COVER).wait(timeout=7, on_update=lambda _: stall(100)).run() is COVER


async def test_another_poll_before_the_loop_was_blocked_does_not_replace_the_last_poll():
    """After a late deadline there is a last poll, whatever was polled before the loop was blocked.

    The job may have ended since.
    """
    harness = WaitHarness(by_time=lambda at: COVER if at > 50 else GENERATING)

    async def block(details: CoverDetails) -> None:
        if details is GENERATING:
            await harness.coalescer.poll(ID)
            stall(100)
            await asyncio.sleep(60)

    assert await harness.wait(timeout=7, on_update=block).run() is COVER
    assert harness.api.polled_at == [0, 0, 101]
    assert harness.is_empty()


async def test_a_first_poll_does_not_overtake_polls_that_were_due_before():
    """Polls of all waits are sent in the order in which they are due, first ones like others."""
    sent = []

    async def answer(task_id):
        sent.append((now(), task_id))
        return GENERATING if now() < 20 else COVER, None

    api = FakeTransport(answer, RateLimiter(1))
    coalescer = coalescer_of(api)
    options = WaitOptions(
        timeout=None, not_found_grace=90, schedule=FixedInterval(5), retry=CountedRetries()
    )

    async def wait_from(moment: float, task_id: str) -> None:
        await asyncio.sleep(moment)
        watch = TaskWatch(coalescer, None, task_id)
        await Waiter(api, watch, options, expects_callback=False).run()

    asyncio.get_running_loop().call_at(1, api.rate_limiter.pause, 9)
    await asyncio.gather(wait_from(0, "early"), wait_from(6, "late"))
    assert sent[:3] == [(0, "early"), (10, "early"), (11, "late")]


async def test_on_update_that_ignores_cancellation_only_delays_the_end():
    """The wait ends when `on_update` returns."""

    async def swallow(_: object) -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(1)

    harness = WaitHarness(by_time=lambda at: GENERATING if at < 50 else COVER)
    error = await timed_out(harness.wait(timeout=7, on_update=swallow))
    assert (error.waited, harness.api.polled_at) == (8, [0])
    assert harness.is_empty()


@pytest.mark.parametrize("end", [GENERATING, COVER])
@pytest.mark.parametrize("error", [ValueError("mine"), TimeoutError("mine"), RESET], ids=repr)
async def test_an_error_of_on_update_ends_its_wait(error, end):
    """It is raised unchanged from that wait alone, even a TimeoutError."""

    def complain(_: object) -> None:
        raise error

    harness = WaitHarness(end, COVER)
    waits = [harness.wait(on_update=complain), harness.wait()]
    results = await asyncio.gather(*[wait.run() for wait in waits], return_exceptions=True)
    assert results == [error, COVER]
    assert harness.is_empty()


async def test_an_error_of_an_async_on_update_ends_its_wait():
    """An error in an async `on_update` ends the wait at any time."""

    async def complain(_: object) -> None:
        await asyncio.sleep(1)
        raise TimeoutError("mine")

    harness = WaitHarness(GENERATING)
    with pytest.raises(TimeoutError, match="mine"):
        await harness.wait(on_update=complain).run()
    assert (now(), harness.is_empty()) == (1, True)


@pytest.mark.parametrize("interval", [float("nan"), -1, "5"])
async def test_an_invalid_interval_ends_the_wait(interval):
    """An interval that is not a number of seconds ends that wait; the error names the schedule."""
    harness = WaitHarness(GENERATING, COVER)
    waits = [harness.wait(schedule=FixedInterval(interval)), harness.wait()]
    error, cover = await asyncio.gather(*[wait.run() for wait in waits], return_exceptions=True)
    assert isinstance(error, (ValueError, TypeError))
    assert "schedule.delay() must be" in str(error)
    assert cover is COVER
    assert harness.is_empty()


@pytest.mark.parametrize(
    ("replies", "learned"),
    [
        ([PENDING, GENERATING, COVER], [COVER]),
        ([GENERATING, FAILED], [FAILED]),
        ([BARE, BARE, COVER], [COVER]),
        ([BARE], [BARE]),
        ([GENERATING, UNAUTHORISED], []),
        ([GENERATING], []),
    ],
)
async def test_a_learning_schedule_gets_each_final_record_once(replies, learned):
    """A learning schedule gets each record that ended a wait, once."""
    schedule = LearningInterval(5)
    wait = WaitHarness(*replies).wait(schedule=schedule, timeout=60)
    await asyncio.gather(wait.run(), return_exceptions=True)
    assert schedule.learned == learned


async def test_a_failing_learn_does_not_lose_the_cover(caplog):
    """The schedule's error is logged, and the cover is returned."""

    class FailingSchedule(FixedInterval):
        def learn(self, details: object) -> None:
            raise ZeroDivisionError

    assert await WaitHarness(COVER).wait(schedule=FailingSchedule(5)).run() is COVER
    [record] = caplog.records
    assert (record.levelname, record.exc_info[0]) == ("ERROR", ZeroDivisionError)
    assert ID in record.getMessage()


async def test_a_wait_uses_the_polls_of_other_callers():
    """A wait gets each result for its id, and ends when one has the cover."""
    harness = WaitHarness(GENERATING, GENERATING, COVER)
    updates = Updates()
    wait = asyncio.create_task(harness.wait(schedule=FixedInterval(100), on_update=updates).run())
    for moment in (3, 4):
        await asyncio.sleep(moment)
        await harness.coalescer.poll(ID)
    assert await wait is COVER
    assert now() == 7
    assert updates.seen == [GENERATING, GENERATING, COVER]


async def test_ten_waits_for_one_id_share_polls():
    """Ten waits with different options cost hardly more polls than one."""

    def by_time(at: float):
        return COVER if at >= 61 else GENERATING

    alone = WaitHarness(by_time=by_time, latency=0.5)
    await alone.wait(schedule=FixedInterval(5)).run()
    began = now()
    harness = WaitHarness(by_time=lambda at: by_time(at - began), latency=0.5)
    timeouts = [None, 900, 20, 300, 33, 80, 70, 900, 900, 900]
    waits = [
        asyncio.create_task(harness.wait(timeout=timeout, schedule=FixedInterval(5 + i)).run())
        for i, timeout in enumerate(timeouts)
    ]
    results = await asyncio.gather(*waits, return_exceptions=True)
    for timeout, result in zip(timeouts, results, strict=True):
        if timeout in (20, 33):
            assert (result.waited, result.details) == (timeout, GENERATING)
        else:
            assert result is COVER
    # Each of the two that ran out of time had a last poll of its own.
    assert len(harness.api.polled_at) <= len(alone.api.polled_at) + 2
    assert harness.is_empty()


async def test_cancelling_some_waits_does_not_affect_the_others():
    """Even the wait whose poll is in flight may be cancelled."""
    harness = WaitHarness(by_time=lambda at: COVER if at >= 61 else GENERATING, latency=2)
    updates = [Updates() for _ in range(10)]
    waits = [asyncio.create_task(harness.wait(on_update=update).run()) for update in updates]
    for i in range(7):
        await asyncio.sleep(7 + i % 2)
        waits[i].cancel()
    results = await asyncio.gather(*waits, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[:7])
    assert results[7:] == [COVER] * 3
    assert updates[7].seen == updates[8].seen == updates[9].seen
    assert len(harness.api.polled_at) <= 62 / 7 + 7
    assert harness.is_empty()


async def test_each_wait_has_its_own_error():
    """Waits that end by the same answer raise separate errors."""
    harness = WaitHarness(UNAUTHORISED, latency=1)
    waits = [harness.wait().run() for _ in range(3)]
    errors = await asyncio.gather(*waits, return_exceptions=True)
    assert len(set(map(id, errors))) == 3
    assert all(type(error) is AuthenticationError for error in errors)


async def test_cancelling_a_queued_wait_does_not_affect_the_others():
    """The others' polls and deadlines stay the same."""
    harness = WaitHarness(GENERATING, rate_limiter=RateLimiter())
    harness.rate_limiter.pause(5)
    stays, gone = (asyncio.create_task(harness.wait(timeout=10).run()) for _ in range(2))
    await asyncio.sleep(1)
    gone.cancel()
    with pytest.raises(CoverTimeoutError):
        await stays
    assert now() == 15


async def test_the_clock_starts_once():
    """Repeating a joined first poll does not move the deadline."""
    harness = WaitHarness(GENERATING, latency=20)
    gone = asyncio.create_task(harness.wait().run())
    await asyncio.sleep(1)
    stays = asyncio.create_task(timed_out(harness.wait(timeout=15)))
    await asyncio.sleep(4)
    gone.cancel()
    assert (await stays).waited == 15
    assert now() == 16
    assert harness.api.polled_at == [0, 5]


@pytest.mark.parametrize("moment", [WHILE_WAITING, AS_IT_WAKES])
@pytest.mark.parametrize("timeout", [None, 100, 13])
async def test_a_wait_can_be_cancelled_at_each_await(moment, timeout):
    """A wait cancelled at any await leaves nothing; the other one gets its cover."""
    replies = [NOT_FOUND, RESET, refused(2), GENERATING, UNREADABLE, BARE, COVER]
    interruptions = 0
    while True:
        harness = WaitHarness(*replies, rate_limiter=RateLimiter(1), latency=1)
        wait = harness.wait(timeout=timeout, on_update=Updates(1))
        interrupted = CancelledAt(interruptions, moment, wait.run())
        outcome, cover = await asyncio.gather(
            interrupted.run(), harness.wait().run(), return_exceptions=True
        )
        assert (cover, harness.is_empty()) == (COVER, True)
        if not interrupted.interrupted:
            break
        assert isinstance(outcome, asyncio.CancelledError)
        interruptions += 1
    assert interruptions > 8
    assert isinstance(outcome, CoverTimeoutError if timeout == 13 else CoverDetails)


async def test_polls_and_changes_are_events():
    """Each poll and each change is an event with the job's age and the wait."""
    events: list[CoverPolled | StateChanged] = []
    created = record(2, create_time=ScriptedTransport.noon - timedelta(seconds=80))
    wait = WaitHarness(created, RESET, COVER, observers=[events.append]).wait()
    await wait.run()
    assert [(type(event), event.task_id, event.age, event.details) for event in events] == [
        (CoverPolled, ID, 80, created),
        (StateChanged, ID, 80, created),
        (CoverPolled, ID, 85, None),
        (CoverPolled, ID, 86, COVER),
        (StateChanged, ID, 86, COVER),
    ]
    assert isinstance(events[2].error, TransportError)
    assert [event.previous_state for event in (events[1], events[4])] == [None, created.state]
    assert {event.wait for event in events} == {wait}


async def test_each_wait_is_a_distinct_key():
    """An observer can use waits as keys, whatever their schedules are."""

    class Unhashable(FixedInterval):
        __hash__ = None

    events: list[CoverPolled] = []
    schedule = Unhashable(5)
    harness = WaitHarness(COVER, latency=1, observers=[events.append])
    waits = [harness.wait(schedule=schedule) for _ in range(2)]
    await asyncio.gather(*[wait.run() for wait in waits])
    assert {event.wait for event in events} == set(waits)


async def test_a_failing_observer_does_not_lose_the_cover(caplog):
    """The observer's error is logged, and the cover is returned."""

    def fail(_: object) -> None:
        raise ValueError("not today")

    assert await WaitHarness(GENERATING, COVER, observers=[fail]).wait().run() is COVER
    assert caplog.text.count("ValueError: not today") == 4


async def test_state_changes_are_logged_as_info(caplog):
    """Polls that bring nothing new are logged as DEBUG."""
    caplog.set_level(logging.DEBUG, "kie_cover_async.polling")
    await WaitHarness(GENERATING, GENERATING, RESET, COVER).wait().run()
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("INFO", f"cover {ID} at 0.0 s: GENERATING"),
        ("DEBUG", f"cover {ID} at 5.0 s: GENERATING"),
        ("DEBUG", f"cover {ID} at 10.0 s: no usable answer: reset"),
        ("INFO", f"cover {ID} at 11.0 s: SUCCESS"),
    ]
