import asyncio
import types
from functools import partial

import pytest
from interrupted import left_in
from verbs import VERBS

from kie_cover_async import ClientClosedError
from kie_cover_async.emulator import CoverScript, Fault

CALLBACK = "https://example.com/covers"
SERVING = {"start", "_handle_request", "_accept_connection2"}


class Interruption:
    """Runs a coroutine and cancels its task at the coroutine's n-th suspension.

    It does so at once, or `late`: in the moment in which what is awaited has come true, but the
    task has not heard of it yet.
    """

    def __init__(self, at: int, *, late: bool) -> None:
        self.at, self.late, self.reached = at, late, False

    @types.coroutine
    def __call__(self, coroutine):
        send, suspensions = partial(coroutine.send, None), 0
        while True:
            try:
                awaited = send()
            except StopIteration as done:
                return done.value
            suspensions += 1
            if suspensions == self.at:
                self.reached = True
                self._interrupt(awaited, asyncio.current_task())
            try:
                yield awaited
                send = partial(coroutine.send, None)
            except BaseException as error:  # noqa: BLE001 - whatever is thrown in is passed on
                send = partial(coroutine.throw, error)

    def _interrupt(self, awaited, task):
        if self.late and awaited is not None:
            awaited.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()


def tasks_of_clients():
    """All tasks but this one and those by which the emulator serves its connections."""
    return {
        task
        for task in asyncio.all_tasks() - {asyncio.current_task()}
        if task.get_coro().__name__ not in SERVING
    }


def a_poll(client, emulator):
    return client.get_cover_details(emulator.add_job())


async def a_poll_that_is_paused(client, emulator):
    client.rate_limiter.pause(0.01)
    await client.get_cover_details(emulator.add_job())


def a_wait(client, emulator):
    return client.wait_for_cover(emulator.add_job("generating, success"))


def a_wait_in_trouble(client, emulator):
    statuses = [
        "missing",
        "500",
        "429",
        Fault.reset(midway=True),
        Fault.truncated_json(),
        "success",
    ]
    task_id = emulator.add_job(CoverScript(statuses=statuses))
    return client.wait_for_cover(task_id, on_update=a_listener)


async def a_listener(_):
    await asyncio.sleep(0)


async def polls_at_many(client, emulator):
    async with client.check_covers([emulator.add_job() for _ in range(3)]) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 3


async def polls_at_some(client, emulator):
    async with client.check_covers([emulator.add_job() for _ in range(3)]) as outcomes:
        await anext(outcomes)


async def waits_for_many(client, emulator):
    jobs = [emulator.add_job("generating, success") for _ in range(3)]
    async with client.wait_for_covers(from_afar(jobs), on_update=a_listener) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 3


async def from_afar(task_ids):
    for task_id in task_ids:
        await asyncio.sleep(0)
        yield task_id


def a_request_for_a_cover(client, emulator):
    return client.generate_cover(_a_song(emulator), callback_url=CALLBACK)


def a_cover(client, emulator):
    emulator.fault(Fault.rate_limited(), endpoint="generate")
    song = _a_song(emulator)
    return client.generate_and_wait(song, callback_url=CALLBACK, on_task_id=a_listener)


def the_credits(client, emulator):
    emulator.fault(Fault.gateway_page(), endpoint="credit")
    return client.get_credits()


async def a_link(client, emulator):
    task_id = emulator.add_job("success")
    image = (await client.get_cover_details(task_id)).images[0]
    await client.get_download_url(image)


def _a_song(emulator):
    song = f"song-{len(emulator.requests)}-{emulator.credits}"
    emulator.script_song(song, "generating, success")
    return song


CALLS = {
    "get_cover_details": a_poll,
    "get_cover_details, held": a_poll_that_is_paused,
    "wait_for_cover": a_wait,
    "wait_for_cover, in trouble": a_wait_in_trouble,
    "check_covers": polls_at_many,
    "check_covers, left early": polls_at_some,
    "wait_for_covers": waits_for_many,
    "generate_cover": a_request_for_a_cover,
    "generate_and_wait": a_cover,
    "get_credits": the_credits,
    "get_download_url": a_link,
}


def test_every_verb_is_cancelled():
    """No verb of the client is left out below."""
    assert {name.partition(",")[0] for name in CALLS} == VERBS


async def interrupted(call, at, *, late):
    """What came of the call, and whether it had as many suspensions."""
    interruption = Interruption(at, late=late)

    async def run():
        return await interruption(call)

    [outcome] = await asyncio.gather(asyncio.create_task(run()), return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError) == interruption.reached
    return outcome, interruption.reached


late_or_not = pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])


@late_or_not
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_call_can_be_cancelled_anywhere(emulator, connect, call, late):
    """Cancelled at any of its suspensions, a call leaves nothing, and the next one is answered."""
    at, reached = 0, True
    while reached:
        at += 1
        async with connect(emulator, max_concurrent_requests=1) as client:
            _, reached = await interrupted(call(client, emulator), at, late=late)
            assert not any(left_in(client).values()), left_in(client)
            assert tasks_of_clients() == set()
            emulator.clear_faults()
            async with asyncio.timeout(2):
                assert await client.get_credits() == emulator.credits
    assert at > 2


@late_or_not
async def test_a_companion_is_not_cancelled_along(emulator, connect, late):
    """A wait that shares its polls with one that is cancelled, wherever, has its cover."""
    at, reached = 0, True
    while reached:
        at += 1
        async with connect(emulator, max_concurrent_requests=1) as client:
            task_id = emulator.add_job(
                CoverScript(statuses=["generating", "generating", "success"])
            )
            waits = [client.wait_for_cover(task_id) for _ in range(3)]
            first, (_, reached), last = await asyncio.gather(
                waits[0], interrupted(waits[1], at, late=late), waits[2]
            )
            assert first.is_success
            assert last.is_success
            assert not any(left_in(client).values()), left_in(client)
    assert at > 2


@late_or_not
async def test_a_leader_is_not_missed(emulator, connect, late):
    """A wait that makes the requests for the others is cancelled, wherever: they go on."""
    at, reached = 0, True
    while reached:
        at += 1
        async with connect(emulator, max_concurrent_requests=1) as client:
            task_id = emulator.add_job(
                CoverScript(statuses=["generating", "generating", "success"])
            )
            waits = [client.wait_for_cover(task_id) for _ in range(3)]
            (_, reached), *others = await asyncio.gather(
                interrupted(waits[0], at, late=late), *waits[1:]
            )
            assert all(details.is_success for details in others)
            assert not any(left_in(client).values()), left_in(client)
    assert at > 2


@late_or_not
async def test_closing_can_be_cancelled_anywhere(emulator, connect, late):
    """Cancelled at any of its suspensions, closing has closed, and ended what was running."""
    at, reached = 0, True
    while reached:
        at += 1
        client = connect(emulator)
        await client.get_credits()
        wait = asyncio.create_task(client.wait_for_cover(emulator.add_job()))
        await asyncio.sleep(0)
        _, reached = await interrupted(client.aclose(), at, late=late)
        [ending] = await asyncio.gather(wait, return_exceptions=True)
        assert isinstance(ending, ClientClosedError)
        assert client._transport.http_client._session.closed
    assert at > 1
