import asyncio
import socket
import time

import pytest
from support.virtual_time import Deadlock, VirtualTimeLoop, now

pytestmark = pytest.mark.virtual_time


async def test_time_begins_at_zero():
    """The clock of every test stands at 0 when it begins."""
    assert now() == 0


async def test_an_hour_takes_no_time():
    """A sleep ends at exactly its moment, and nobody has waited for it."""
    started = time.perf_counter()
    await asyncio.sleep(3600)
    assert now() == 3600
    assert time.perf_counter() - started < 1


async def test_a_deadline_is_exact():
    """A timeout fires at its very moment, whatever was slept before."""
    await asyncio.sleep(0.1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout_at(1 / 3):
            await asyncio.sleep(1)
    assert now() == 1 / 3


async def test_a_cancelled_timer_does_not_move_the_clock():
    """The clock jumps to the next timer that is still wanted."""
    asyncio.get_running_loop().call_later(5, pytest.fail).cancel()
    await asyncio.sleep(7)
    assert now() == 7


async def test_tasks_meet_in_the_order_of_their_timers():
    """What is ready runs before the clock goes on, so timers fire one moment at a time."""
    seen = []

    async def note(delay: float) -> None:
        await asyncio.sleep(delay)
        seen.append(now())

    await asyncio.gather(*map(note, (3, 1, 2)))
    assert seen == [1, 2, 3]


def run(coroutine):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(coroutine)


def test_a_deadlock_is_an_error():
    """Where nothing can ever happen again the run ends, and names who waits."""

    async def wait_for_ever():
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="wait_for_ever"):
        run(wait_for_ever())


def test_there_are_no_sockets():
    """A socket in virtual time is an error, not a race."""
    ours, theirs = socket.socketpair()

    async def listen():
        asyncio.get_running_loop().add_reader(ours, print)

    with ours, theirs, pytest.raises(RuntimeError, match="socket"):
        run(listen())


def test_there_are_no_threads():
    """A thread in virtual time is an error, not a race."""
    with pytest.raises(RuntimeError, match="thread"):
        run(asyncio.to_thread(print))
