import asyncio

import pytest
from support.virtual_time import now

from kie_cover_async.cancel_scope import CancelScope, SharedTimeout, Timeout

pytestmark = pytest.mark.virtual_time


class Ended(Exception):
    """What the blocks of these tests raise."""


def a_scope():
    return CancelScope(error=Ended)


async def in_block(scope, seconds=100.0):
    with scope:
        await asyncio.sleep(seconds)
    return now()


async def ending_itself():
    with a_scope() as scope:
        scope.end()
        await asyncio.sleep(1)


async def test_a_block_is_ended_from_outside():
    """The block raises its error, and the task is not marked as cancelled."""
    scope = a_scope()
    task = asyncio.create_task(in_block(scope))
    await asyncio.sleep(1)
    scope.end()
    scope.end()
    with pytest.raises(Ended):
        await task
    assert task.cancelling() == 0


async def test_a_cancellation_from_elsewhere_passes_through():
    """A task that is cancelled at the same moment is cancelled, not ended."""
    scope = a_scope()
    task = asyncio.create_task(in_block(scope))
    await asyncio.sleep(1)
    task.cancel()
    scope.end()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_block_ended_by_its_own_task_may_still_be_left():
    """Ending takes effect at the next await; a block that is left before is not ended."""
    with a_scope() as scope:
        scope.end()
    await asyncio.sleep(1)
    with pytest.raises(Ended):
        await ending_itself()


async def test_a_block_needs_a_task():
    """Code outside of a task cannot be cancelled: entering a block there raises."""
    checked = asyncio.get_running_loop().create_future()

    def outside_of_any_task():
        with pytest.raises(RuntimeError, match="inside a task"):
            a_scope().__enter__()
        checked.set_result(None)

    asyncio.get_running_loop().call_soon(outside_of_any_task)
    await checked


async def test_deadlines_are_exact():
    """Scopes that share a timer each end exactly at their own time."""
    shared_timeout = SharedTimeout(10.0)
    ended = []

    async def one(start, seconds):
        await asyncio.sleep(start)
        try:
            await in_block(CancelScope(shared_timeout), seconds)
        except TimeoutError:
            ended.append((start, now()))

    await asyncio.gather(one(0, 100), one(0, 100), one(1, 2), one(2.5, 100), one(30, 100))
    assert ended == [(0, 10.0), (0, 10.0), (2.5, 12.5), (30, 40.0)]


async def test_a_block_left_in_time_is_not_ended():
    """Neither the block nor later work of its task is interrupted."""
    shared_timeout = SharedTimeout(10.0)
    assert await in_block(CancelScope(shared_timeout), 9.9) == 9.9
    await asyncio.sleep(100)
    shared_timeout.cancel()
    shared_timeout.cancel()
    assert await in_block(CancelScope(shared_timeout), 1.0) == 110.9


async def in_timeout(when, *moves):
    """Sleep in a `Timeout` that is moved inside, and return it."""
    with Timeout(when) as timeout:
        for move in moves:
            timeout.reschedule(move)
        await asyncio.sleep(100)
    return timeout


@pytest.mark.parametrize(("moves", "ended_at"), [((3,), 3), ((None, 60, 5), 5), ((6, None), None)])
async def test_a_timeout_ends_its_block_in_time(moves, ended_at):
    """A `Timeout` ends its block at its time, which can be set or moved, without an error."""
    timeout = await in_timeout(*moves)
    assert (now(), timeout.is_ended) == (ended_at or 100, ended_at is not None)
    assert timeout.late == 0


async def test_an_expired_timeout_cannot_be_moved():
    """Once a timeout has expired, it stays expired."""
    with Timeout(1) as timeout:
        try:
            await asyncio.sleep(100)
        finally:
            timeout.reschedule(100)
            timeout.end()
    assert (now(), timeout.is_ended) == (1, True)


async def test_a_cancellation_during_a_timeout_is_passed_on():
    """A cancellation at the moment of the timeout is passed on."""

    async def block():
        with Timeout(now() + 1):
            await asyncio.sleep(100)

    task = asyncio.create_task(block())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
