import ast
import asyncio
import gc
import socket
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

import kie_cover_async.emulator
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault

CREDIT = "/api/v1/chat/credit"
KEY = {"Authorization": "Bearer a-key"}


def test_the_emulator_is_independent():
    """The emulator imports nothing else of the package."""
    folder = Path(kie_cover_async.emulator.__file__).parent
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not name.startswith("kie_cover_async") or ".emulator" in name


async def test_before_the_start_there_is_no_url():
    """An emulator that was not started has no URL, and can be closed."""
    emulator = CoverEmulator()
    with pytest.raises(RuntimeError, match="not been started"):
        _ = emulator.url
    await emulator.aclose()


async def test_emulators_run_side_by_side():
    """Emulators take free ports, two each, so any number can run."""
    async with CoverEmulator() as one, CoverEmulator() as other:
        assert len({one.url, one.image_url, other.url, other.image_url}) == 4


async def test_starting_twice_raises():
    """A running emulator cannot be started."""
    async with CoverEmulator() as emulator:
        with pytest.raises(RuntimeError, match="running already"):
            await emulator.start()


async def test_a_taken_port_raises():
    """A port that is taken raises an error, and nothing is left."""
    async with CoverEmulator() as emulator:
        port = int(emulator.url.rpartition(":")[2])
        other = CoverEmulator(image_port=port)
        with pytest.raises(OSError, match="in use"):
            await other.start()
        with pytest.raises(RuntimeError, match="not been started"):
            _ = other.url


async def test_ports_can_be_chosen():
    """Ports can be chosen."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("", 0)) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
    async with CoverEmulator(port=ports[0], image_port=ports[1]) as emulator:
        assert emulator.url == f"http://127.0.0.1:{ports[0]}"
        assert emulator.image_url == f"http://127.0.0.1:{ports[1]}"


async def test_a_restart_keeps_urls_and_jobs(start):
    """After a restart the emulator has the same URLs and jobs, like a server after an outage."""
    caller = await start()
    task_id, url = caller.emulator.add_job(), caller.emulator.url
    await caller.emulator.aclose()
    with pytest.raises(aiohttp.ClientConnectorError):
        await caller.record(task_id)
    await caller.emulator.start()
    assert caller.emulator.url == url
    assert (await caller.record(task_id))["data"]["taskId"] == task_id


async def closed_in(emulator):
    begin = asyncio.get_running_loop().time()
    await emulator.aclose()
    return asyncio.get_running_loop().time() - begin


async def read(session, url):
    async with session.get(url, headers=KEY) as answer:
        return await answer.read()


@pytest.mark.parametrize("turns", range(8))
async def test_a_connecting_client_does_not_delay_closing(caller, turns):
    """A client that connects during closing does not delay it."""
    caller.emulator.fault(Fault.stall(), rate=1.0)
    port = int(caller.emulator.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.send(f"GET {CREDIT} HTTP/1.1\r\nAuthorization: Bearer k\r\n\r\n".encode())
        for _ in range(turns):
            await asyncio.sleep(0)
        assert await closed_in(caller.emulator) < 0.25


@pytest.mark.parametrize(
    "fault",
    [Fault.stall(), Fault.stall(midway=True), Fault.slow(60)],
    ids=["stalled", "stalled midway", "slow"],
)
@pytest.mark.parametrize("endpoint", ["credit", "image"])
async def test_closing_ends_stalled_requests(caller, endpoint, fault):
    """Closing ends stalled requests immediately, and leaves no task."""
    tasks = asyncio.all_tasks()
    caller.emulator.fault(fault, rate=1.0, endpoint=endpoint)
    origin = caller.emulator.image_url if endpoint == "image" else caller.emulator.url
    calls = [asyncio.ensure_future(read(caller.session, origin + CREDIT)) for _ in range(5)]
    await caller.eventually(lambda: len(caller.emulator.requests) == 5)
    assert await closed_in(caller.emulator) < 0.25
    assert asyncio.all_tasks() - tasks <= set(calls)
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, aiohttp.ClientError) for error in ended)


async def test_closing_ends_idle_connections(caller):
    """Idle connections and incomplete requests do not delay closing."""
    await caller.get(CREDIT)
    port = int(caller.emulator.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
    await caller.eventually(lambda: caller.emulator.open_connections == 2)
    assert await closed_in(caller.emulator) < 0.25
    with suppress(ConnectionResetError):  # which comes where the half was not yet read
        assert await reader.read() == b""
    writer.close()


async def test_closing_leaves_nothing_to_the_collector(caller):
    """Nothing is left that would warn when it is collected."""
    caller.emulator.fault(Fault.stall())
    with pytest.raises(TimeoutError):
        await caller.session.get(
            caller.emulator.url, headers=KEY, timeout=aiohttp.ClientTimeout(total=0.05)
        )
    await caller.emulator.aclose()
    await caller.session.close()
    gc.collect()


async def test_requests_are_recorded(caller):
    """Each request is recorded with its content, time and connection."""
    before = asyncio.get_running_loop().time()
    task_id = caller.emulator.add_job()
    await caller.record(task_id)
    await caller.generate("song", callback="http://x")
    poll, generate = caller.emulator.requests
    assert (poll.endpoint, poll.method, poll.task_id) == ("record-info", "GET", task_id)
    assert (poll.path, dict(poll.query)) == (
        "/api/v1/suno/cover/record-info",
        {"taskId": task_id},
    )
    assert poll.headers["authorization"] == "Bearer a-key"
    assert (poll.body, poll.fault) == (b"", None)
    assert (generate.endpoint, generate.task_id) == ("generate", "song")
    assert b'"callBackUrl": "http://x"' in generate.body
    assert before <= poll.received <= generate.received <= asyncio.get_running_loop().time()


async def test_connections_are_numbered(caller):
    """A reused connection has the same number and peer, a new one has others."""
    await caller.get(CREDIT)
    await caller.get(CREDIT)
    async with aiohttp.ClientSession() as session:
        await session.get(caller.emulator.url + CREDIT, headers=KEY)
    first, second, third = caller.emulator.requests
    assert (first.connection, first.peer) == (second.connection, second.peer)
    assert third.connection != first.connection
    assert third.peer != first.peer


async def test_polls_are_counted_per_id(caller):
    """Polls are counted for each id, unknown ones too."""
    task_id = caller.emulator.add_job(CoverScript(statuses=["429"]))
    for asked in [task_id, task_id, "unknown"]:
        await caller.record(asked)
    counts = [caller.emulator.poll_count(name) for name in (task_id, "unknown", "never asked")]
    assert counts == [2, 1, 0]


async def test_requests_need_not_be_kept(start):
    """With `keep_requests=False`, polls are counted all the same."""
    caller = await start(keep_requests=False)
    await caller.record("a")
    assert caller.emulator.requests == []
    assert caller.emulator.poll_count("a") == 1


async def test_age_of_a_job_is_by_the_loops_clock(start):
    """A job's age is measured on the loop's clock."""
    caller = await start(generation_time=60, visible_after=10)
    ages = [caller.emulator.add_job(age=age) for age in (0, 11, 61)]
    data = [(await caller.record(task_id))["data"] for task_id in ages]
    assert data[0] is None
    assert [record["successFlag"] for record in data[1:]] == [2, 1]


@pytest.mark.parametrize("steps", range(4))
async def test_starting_can_be_cancelled(steps):
    """An emulator whose start is cancelled, at whatever step, leaves no socket."""
    emulator = CoverEmulator()
    starting = asyncio.create_task(emulator.start())
    for _ in range(steps):
        await asyncio.sleep(0)
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    await emulator.aclose()
