"""A client with an inbox, an API that makes covers, and callbacks over real sockets."""

import asyncio

import pytest
from aiohttp import web

from kie_cover_async import ClientClosedError, CoverClient
from kie_cover_async.callbacks import CallbackInbox, sign_callback
from kie_cover_async.emulator import CoverEmulator, CoverScript

pytestmark = pytest.mark.usefixtures("route")

KEY = "test-webhook-hmac-key"
FORGED = "https://forged.example/image.png"
NEVER = 3600.0


class Vendor:
    """Posts callbacks to where they were asked for."""

    def __init__(self, caller, url):
        self.caller, self.url = caller, url

    async def call(self, task_id, key=KEY, **more):
        body = {"code": 200, "msg": "success", "data": {"taskId": task_id, **more}}
        headers = sign_callback(task_id, key)
        async with self.caller.post(self.url, json=body, headers=headers) as answer:
            return answer.status


@pytest.fixture
async def inbox():
    """An inbox so patient that without a callback a wait polls only before its end, in 29 s."""
    return CallbackInbox(KEY, fallback_poll_interval=NEVER)


@pytest.fixture
async def vendor(stack, inbox, make_session):
    app = web.Application()
    app.add_routes(inbox.routes("/callbacks"))
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return Vendor(make_session(), f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks")


@pytest.fixture
async def emulator(emulate):
    """One whose covers are finished when they are asked for."""
    return await emulate(generation_time=0)


async def test_a_callback_costs_one_poll(emulator, connect, inbox, vendor):
    """With callbacks a cover costs one poll, whose record is returned."""
    client = connect(emulator, inbox=inbox)
    ids, updates = asyncio.Queue(), []
    making = asyncio.create_task(
        client.generate_and_wait(
            "song",
            callback_url=vendor.url,
            on_task_id=ids.put_nowait,
            on_update=updates.append,
            timeout=30,
        )
    )
    task_id = await ids.get()
    assert emulator.poll_count(task_id) == 0
    assert await vendor.call(task_id, images=[FORGED]) == 200
    details = await asyncio.wait_for(making, 10)
    assert details.is_success
    assert FORGED not in details.images
    assert (emulator.poll_count(task_id), updates) == (1, [details])
    assert not inbox._listeners


async def test_callback_before_the_wait_is_found(emulator, connect, inbox, vendor):
    """A callback that arrives before the id is known wakes the wait."""
    client = connect(emulator, inbox=inbox)
    async with asyncio.timeout(10):
        details = await client.generate_and_wait(
            "song", callback_url=vendor.url, on_task_id=vendor.call, timeout=30
        )
    assert emulator.poll_count(details.task_id) == 1


def test_an_inbox_of_another_event_loop_is_rejected_before_paying():
    """The error is raised before the submit is sent."""
    inbox = CallbackInbox()

    async def receive():
        inbox.notify("id")

    async def ask():
        async with (
            CoverEmulator() as emulator,
            CoverClient("a-key", base_url=emulator.url, inbox=inbox) as client,
        ):
            with pytest.raises(RuntimeError, match="CallbackInbox belongs to another event loop"):
                await client.generate_and_wait("song", callback_url="https://example.com/covers")
            return emulator.requests

    asyncio.run(receive())
    assert asyncio.run(ask()) == []


def test_a_rejected_client_does_not_bind_its_inbox():
    """A client that is rejected in a second loop leaves its inbox to the first one."""
    inbox = CallbackInbox()

    async def notify():
        inbox.notify("id")

    with asyncio.Runner() as first, asyncio.Runner() as second:
        emulator = CoverEmulator()
        first.run(emulator.start())
        client = CoverClient("a-key", base_url=emulator.url, inbox=inbox)
        first.run(client.get_credits())
        with pytest.raises(RuntimeError, match="CoverClient belongs to another event loop"):
            second.run(client.generate_and_wait("song", callback_url="https://example.com/covers"))
        first.run(notify())
        first.run(client.aclose())
        first.run(emulator.aclose())


async def test_an_existing_cover_is_polled_immediately(emulator, connect, inbox, vendor):
    """No callback will come for a cover that was made before."""
    task_id = emulator.add_job(music_task_id="song")
    client = connect(emulator, inbox=inbox)
    async with asyncio.timeout(10):
        details = await client.generate_and_wait("song", callback_url=vendor.url, timeout=30)
    assert (details.task_id, emulator.poll_count(task_id)) == (task_id, 1)


async def test_a_forged_callback_wakes_no_wait(emulator, connect, inbox, vendor):
    """A callback without a genuine signature is rejected and costs no poll."""
    ids = asyncio.Queue()
    client = connect(emulator, inbox=inbox)
    making = asyncio.create_task(
        client.generate_and_wait(
            "song", callback_url=vendor.url, on_task_id=ids.put_nowait, timeout=30
        )
    )
    task_id = await ids.get()
    assert await vendor.call(task_id, key="another") == 401
    assert emulator.poll_count(task_id) == 0
    assert await vendor.call(task_id) == 200
    assert (await asyncio.wait_for(making, 10)).task_id == task_id


async def test_a_lost_callback_is_replaced_by_a_fallback_poll(emulate, connect):
    """Without a callback the cover is found after the fallback poll interval."""
    emulator = await emulate(generation_time=0)
    client = connect(emulator, inbox=CallbackInbox(KEY, fallback_poll_interval=0.1))
    details = await client.generate_and_wait(
        "song", callback_url="https://example.com/lost", timeout=30
    )
    assert emulator.poll_count(details.task_id) == 1


async def test_bulk_call_polls_each_id_after_its_callback(emulator, connect, inbox, vendor):
    """A bulk call polls each id immediately, and again after its callback."""
    script = CoverScript(statuses=["generating", "success"])
    ids = [emulator.add_job(script) for _ in range(20)]
    seen = asyncio.Queue()
    client = connect(emulator, inbox=inbox)
    async with client.wait_for_covers(ids, on_update=seen.put_nowait, timeout=30) as outcomes:
        calling = asyncio.create_task(_call_when_seen(vendor, seen, 2 * len(ids)))
        covers = [outcome.result().task_id async for outcome in outcomes]
        await calling
    assert sorted(covers) == sorted(ids)
    assert all(emulator.poll_count(task_id) == 2 for task_id in ids)
    assert not inbox._listeners


async def _call_when_seen(vendor, seen, number):
    for _ in range(number):
        details = await seen.get()
        if not details.is_terminal:
            await vendor.call(details.task_id)


async def test_closing_leaves_no_subscription(emulator, connect, inbox, vendor, eventually):
    """Closing the client ends waits for callbacks and their subscriptions."""
    client = connect(emulator, inbox=inbox)
    making = asyncio.create_task(client.generate_and_wait("song", callback_url=vendor.url))
    await eventually(lambda: inbox._listeners)
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await asyncio.wait_for(making, 10)
    assert not inbox._listeners


async def test_several_clients_may_share_an_inbox(emulator, connect, inbox, vendor, eventually):
    """Each client that has the inbox polls when a callback arrives."""
    script = CoverScript(statuses=["generating", "generating", "success"])
    task_id = emulator.add_job(script)
    waits = [
        asyncio.create_task(connect(emulator, inbox=inbox).wait_for_cover(task_id, timeout=30))
        for _ in range(2)
    ]
    await eventually(lambda: emulator.poll_count(task_id) == 2)
    await vendor.call(task_id)
    assert [(await wait).is_success for wait in waits] == [True, True]
