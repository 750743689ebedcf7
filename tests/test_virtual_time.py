import asyncio
import socket
import time

import pytest
from support.virtual_time import Deadlock, VirtualTimeLoop, now

pytestmark = pytest.mark.virtual_time


async def test_time_starts_at_zero():
    """The clock of every test starts at 0."""
    assert now() == 0


async def test_an_hour_takes_no_time():
    """A sleep ends at exactly its time, and takes no real time."""
    started = time.perf_counter()
    await asyncio.sleep(3600)
    assert now() == 3600
    assert time.perf_counter() - started < 1


async def test_a_deadline_is_exact():
    """A timeout fires at exactly its time, after any other sleep."""
    await asyncio.sleep(0.1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout_at(1 / 3):
            await asyncio.sleep(1)
    assert now() == 1 / 3


async def test_a_cancelled_timer_does_not_move_the_clock():
    """The clock jumps to the next timer that is not cancelled."""
    asyncio.get_running_loop().call_later(5, pytest.fail).cancel()
    await asyncio.sleep(7)
    assert now() == 7


async def test_timers_fire_in_their_order():
    """Ready callbacks run before the clock jumps."""
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
    """If no timer is set, the run ends and names the waiting tasks."""

    async def wait_for_ever():
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="wait_for_ever"):
        run(wait_for_ever())


def test_sockets_are_an_error():
    """A socket in virtual time is an error, not a race."""
    ours, theirs = socket.socketpair()

    async def listen():
        asyncio.get_running_loop().add_reader(ours, print)

    with ours, theirs, pytest.raises(RuntimeError, match="socket"):
        run(listen())


def test_threads_are_an_error():
    """A thread in virtual time is an error, not a race."""
    with pytest.raises(RuntimeError, match="thread"):
        run(asyncio.to_thread(print))
