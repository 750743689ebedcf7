import asyncio
from collections import Counter
from contextlib import suppress

import pytest

from kie_cover_async import (
    ClientClosedError,
    CoverFailedError,
    CoverState,
    CoverTimeoutError,
    InvalidTaskIdError,
    RateLimiter,
    RetryPolicy,
    TaskNotFoundError,
)
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.events import CoverPolled, RequestFinished

pytestmark = pytest.mark.usefixtures("route")

FAULTS = [
    Fault.rate_limited(retry_after=0),
    Fault.server_error(),
    Fault.gateway_page(),
    Fault.reset(midway=True),
    Fault.truncated_json(),
]


async def async_ids(task_ids):
    for task_id in task_ids:
        await asyncio.sleep(0)
        yield task_id


class Stalled:
    """A source of which nothing comes."""

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.Event().wait()


async def by_id(outcomes):
    async with outcomes:
        return {outcome.task_id: outcome async for outcome in outcomes}


def tasks():
    """Those of bulk calls."""
    return [task for task in asyncio.all_tasks() if "Pool." in task.get_coro().__qualname__]


@pytest.mark.parametrize("source", [list, iter, async_ids])
async def test_each_id_is_polled_once(emulator, client, source):
    """Each id has its outcome after one poll, whatever its state."""
    done = [emulator.add_job(age=60) for _ in range(100)]
    failed = [emulator.add_job(CoverScript(end="failure"), age=60) for _ in range(10)]
    young = [emulator.add_job(CoverScript(end="never")) for _ in range(10)]
    outcomes = await by_id(client.check_covers(source([*done, *failed, *young, "nobody", "no id"])))
    assert len(outcomes) == 122
    assert all(outcomes[task_id].result().is_success for task_id in done)
    assert all(outcomes[task_id].result().state.is_failure for task_id in failed)
    assert not any(outcomes[task_id].result().is_terminal for task_id in young)
    assert isinstance(outcomes["nobody"].error, TaskNotFoundError)
    assert isinstance(outcomes["no id"].error, InvalidTaskIdError)
    assert len(emulator.requests) == 121


async def test_ordered_outcomes_keep_the_input_order(emulator, client):
    """With `ordered`, outcomes come in the order of the ids."""
    task_ids = [emulator.add_job(age=60) for _ in range(150)]
    emulator.fault(Fault.slow(0.05), rate=0.1)
    async with client.check_covers(task_ids, ordered=True) as outcomes:
        seen = [(outcome.task_id, outcome.result().task_id) async for outcome in outcomes]
    assert seen == [(task_id, task_id) for task_id in task_ids]


async def test_a_bulk_call_survives_faults(emulator, connect):
    """If a third of the answers have a fault, every id still has its outcome."""
    client = connect(
        emulator, retry=RetryPolicy(max_attempts=20, initial_delay=0.01, max_delay=0.02)
    )
    task_ids = [emulator.add_job(age=60) for _ in range(200)]
    for fault in FAULTS:
        emulator.fault(fault, rate=0.08)
    outcomes = await by_id(client.check_covers(task_ids))
    assert set(outcomes) == set(task_ids)
    assert all(outcome.result().is_success for outcome in outcomes.values())
    assert len(emulator.requests) > 230


async def test_a_bulk_call_uses_the_clients_concurrency(emulate, connect):
    """A bulk call has as many requests and tasks as the client's limit."""
    emulator = await emulate(latency=0.02)
    client = connect(emulator, max_concurrent_requests=7)
    async with client.check_covers([emulator.add_job() for _ in range(50)]) as outcomes:
        await anext(outcomes)
        assert len(tasks()) == 7
        assert len([outcome async for outcome in outcomes]) == 49
    assert emulator.open_connections == 7


async def test_each_id_is_waited_for(emulator, client):
    """Each wait ends when its job ends, in success or failure."""
    done = [emulator.add_job(CoverScript(seconds=n / 100)) for n in range(40)]
    failed = emulator.add_job(CoverScript(seconds=0.1, end="failure"))
    stuck = emulator.add_job(CoverScript(end="never"))
    outcomes = await by_id(
        client.wait_for_covers([*done, failed, stuck, "nobody", ""], timeout=1, not_found_grace=0)
    )
    assert len(outcomes) == 44
    assert all(outcomes[task_id].result().is_success for task_id in done)
    assert isinstance(outcomes[failed].error, CoverFailedError)
    assert isinstance(outcomes[stuck].error, CoverTimeoutError)
    assert outcomes[stuck].error.details.state is CoverState.GENERATING
    assert isinstance(outcomes["nobody"].error, TaskNotFoundError)
    assert isinstance(outcomes[""].error, InvalidTaskIdError)


async def test_on_update_is_called_for_every_id(emulator, client):
    """`on_update` is called after every poll of every id."""
    statuses = ["pending", "generating", "success"]
    task_ids = [emulator.add_job(CoverScript(statuses=statuses)) for _ in range(10)]
    seen = Counter()

    async def update(details):
        await asyncio.sleep(0)
        seen[details.task_id, details.state.value] += 1

    await by_id(client.wait_for_covers(task_ids, on_update=update))
    assert set(seen.values()) == {1}
    assert len(seen) == 30


async def test_an_error_of_on_update_ends_the_iteration(emulator, client):
    """It is raised from the iteration after everything has stopped."""
    task_ids = [emulator.add_job(CoverScript(end="never")) for _ in range(20)]

    def fail(details):
        if details.task_id == task_ids[7]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await by_id(client.wait_for_covers(task_ids, on_update=fail))
    assert tasks() == []


async def test_bulk_and_single_waits_share_polls(emulator, client):
    """A wait, a bulk of waits and equal ids in it cost the polls of one."""
    task_id = emulator.add_job(CoverScript(statuses=[*["generating"] * 5, "success"]))
    alone, outcomes = await asyncio.gather(
        client.wait_for_cover(task_id), by_id(client.wait_for_covers([task_id] * 5))
    )
    assert alone.is_success
    assert outcomes[task_id].result().is_success
    assert emulator.poll_count(task_id) == 6


async def test_a_single_call_does_not_queue_behind_a_bulk_call(emulator, connect):
    """A single call is sent before the bulk call has had all its slots."""
    client = connect(emulator, rate_limiter=RateLimiter(100, per=1.0))
    async with client.check_covers(map(str, range(10_000))) as outcomes:
        for _ in range(5):
            await anext(outcomes)
        async with asyncio.timeout(1):
            await client.get_credits()
    assert client.rate_limiter.queued == 0


@pytest.mark.parametrize("verb", ["check_covers", "wait_for_covers"])
async def test_leaving_the_block_early_leaves_nothing(emulator, client, eventually, verb):
    """No request, task or used connection remains."""
    emulator.fault(Fault.stall(), rate=1.0, after=5, endpoint="poll")
    task_ids = [emulator.add_job(age=60) for _ in range(500)]
    async with getattr(client, verb)(task_ids) as outcomes:
        await anext(outcomes)
        await eventually(lambda: len(emulator.requests) > 50)
        assert tasks()
    assert tasks() == []
    assert not client._transport.open_calls._scopes
    assert await client.get_credits() == emulator.credits


@pytest.mark.parametrize("verb", ["check_covers", "wait_for_covers"])
async def test_closing_the_client_ends_a_bulk(emulator, client, eventually, verb):
    """Closing the client raises `ClientClosedError` in the consumer of a running bulk call."""
    emulator.fault(Fault.stall(), rate=1.0)
    consuming = asyncio.create_task(by_id(getattr(client, verb)(["a", "b", "c"])))
    await eventually(lambda: len(emulator.requests) == 3)
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await consuming
    assert tasks() == []


async def test_closing_the_client_ends_a_bulk_call_without_ids(emulator, client):
    """Closing the client ends a bulk call even while its source yields nothing."""
    consuming = asyncio.create_task(by_id(client.check_covers(Stalled())))
    await asyncio.sleep(0.01)
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await consuming


async def test_outcomes_before_closing_are_not_lost(emulator, client):
    """Outcomes that are ready arrive before the `ClientClosedError`."""
    task_ids = [emulator.add_job(age=60) for _ in range(1000)]
    seen = []
    outcomes = client.check_covers(task_ids)
    seen.append(await anext(outcomes))
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await anext(outcomes)
    assert [outcome.ok for outcome in seen] == [True]
    assert [outcome async for outcome in outcomes] == []


async def test_a_bulk_call_of_a_closed_client_raises(emulator, client):
    """The first outcome is the error, and nothing is sent."""
    await client.aclose()
    for outcomes in (client.check_covers(["a"]), client.wait_for_covers(async_ids(["a"]))):
        with pytest.raises(ClientClosedError):
            await anext(outcomes)
    assert emulator.requests == []


async def test_a_bulk_call_has_the_usual_events(emulator, connect):
    """Its requests and polls are events like those of other calls."""
    events = []
    client = connect(emulator, observer=events.append)
    task_ids = [emulator.add_job(CoverScript(statuses=["success"])) for _ in range(20)]
    await by_id(client.wait_for_covers(task_ids))
    for kind in (RequestFinished, CoverPolled):
        told = [event.task_id for event in events if isinstance(event, kind)]
        assert Counter(told) == Counter(task_ids)


async def test_a_cancelled_consumer_leaves_nothing(emulator, client, eventually):
    """A consumer that is cancelled in its block leaves nothing."""
    emulator.fault(Fault.stall(), rate=1.0)
    consuming = asyncio.create_task(by_id(client.check_covers(map(str, range(1000)))))
    await eventually(lambda: len(emulator.requests) == 100)
    consuming.cancel()
    with suppress(asyncio.CancelledError):
        await consuming
    assert tasks() == []
    assert not client._transport.open_calls._scopes
