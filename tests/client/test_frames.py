"""How many coroutine frames lie between a call and aiohttp, and which ones."""

import asyncio

import pytest
from aiohttp import TraceConfig

import kie_cover_async


class Frames:
    """Notes the package's coroutines that await each request, the outermost first.

    A task's chain of awaits can be read only while the task is suspended, so the hook sleeps.
    """

    def __init__(self):
        self.seen = []
        self.trace_config = TraceConfig()
        self.trace_config.on_request_start.append(self._on_request_start)

    async def _on_request_start(self, session, context, params):
        asyncio.get_running_loop().call_soon(self._note, asyncio.current_task())
        await asyncio.sleep(0)

    def _note(self, task):
        names, awaiting = [], task.get_coro()
        while (frame := getattr(awaiting, "cr_frame", None)) is not None:
            if frame.f_globals["__name__"].partition(".")[0] == kie_cover_async.__name__:
                names.append(awaiting.__qualname__)
            awaiting = awaiting.cr_await
        self.seen.append(names)


@pytest.fixture
async def frames():
    return Frames()


@pytest.fixture
async def client(connect, emulator, make_session, frames):
    return connect(emulator, session=make_session(trace_configs=[frames.trace_config]))


async def test_a_poll_passes_five_frames(client, emulator, frames):
    """From `get_cover_details` to aiohttp a poll passes five coroutines."""
    await client.get_cover_details(emulator.add_job())
    assert frames.seen == [
        [
            "CoverClient.get_cover_details",
            "Poller.fetch",
            "PollCoalescer.poll",
            "Transport.send",
            "HttpClient.request",
        ]
    ]


async def test_a_wait_passes_seven_frames(client, emulator, frames):
    """From `wait_for_cover` to aiohttp each poll of a wait passes seven coroutines."""
    await client.wait_for_cover(emulator.add_job("generating, success"))
    assert len(frames.seen) > 1
    for names in frames.seen:
        assert names == [
            "CoverClient.wait_for_cover",
            "Poller.wait",
            "Waiter.run",
            "TaskWatch.next_outcome",
            "PollCoalescer.poll",
            "Transport.send",
            "HttpClient.request",
        ]


async def test_a_submit_passes_four_frames(client, frames):
    """From `generate_cover` to aiohttp a submit passes four coroutines."""
    await client.generate_cover("a-song", callback_url="https://example.com/covers")
    assert frames.seen == [
        ["CoverClient.generate_cover", "Transport.call", "Transport.send", "HttpClient.request"]
    ]


async def test_a_poll_of_a_bulk_call_passes_four_frames_after_the_pool(client, emulator, frames):
    """A poll of `check_covers` passes the same frames as a single one, below its worker."""
    async with client.check_covers([emulator.add_job()]) as outcomes:
        assert [outcome.ok async for outcome in outcomes] == [True]
    [names] = frames.seen
    assert names[-4:] == [
        "Poller.fetch",
        "PollCoalescer.poll",
        "Transport.send",
        "HttpClient.request",
    ]
    assert all(name.startswith("Pool.") for name in names[:-4])
