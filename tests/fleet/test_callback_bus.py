"""Callbacks over several processes: inboxes that share a Redis server by their buses."""

import asyncio
import logging
import signal
from contextlib import AsyncExitStack

import pytest
from attrs import define, field
from redis import Redis
from support.redis_server import needs_redis

from kie_cover_async import CoverClient
from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.emulator import CoverEmulator, CoverScript
from kie_cover_async.fleet import CallbackBus, callback_bus

pytestmark = needs_redis

STREAM = "{kie-cover:kie}:callbacks"


@define
class Process:
    """An inbox as in a process of its own, and what reached it in its order."""

    inbox: CallbackInbox = field(factory=CallbackInbox)
    received: list[tuple[str, str | None]] = field(factory=list)

    def __attrs_post_init__(self):
        self.inbox.subscribe_unknown(lambda *each: self.received.append(each))

    def receive(self, task_id, music_task_id=None, **more):
        self.inbox.receive({}, {"data": {"taskId": task_id}, **more}, music_task_id)

    @property
    def ids(self):
        return [task_id for task_id, _ in self.received]


@pytest.fixture
async def processes(stopped_redis):
    """Return inboxes as different processes would make them, each with a bus."""
    async with AsyncExitStack() as stack:

        async def processes(count, *, query="", **options):
            made = [Process() for _ in range(count)]
            for each in made:
                bus = CallbackBus(f"{stopped_redis.url}{query}", each.inbox, **options)
                await stack.enter_async_context(bus)
            return made

        yield processes


@pytest.fixture
def server(redis):
    """Return a client of the server, for what other programs and operators do."""
    with Redis.from_url(redis.url) as client:
        yield client


@pytest.fixture
def quick(monkeypatch):
    """Make reads and pauses so short that a test need not wait for them."""
    monkeypatch.setattr(callback_bus, "_READ_WAIT", 0.05)
    monkeypatch.setattr(callback_bus, "_PROBE_INTERVAL", (0.02, 0.05))


@pytest.mark.parametrize("query", ["", "?protocol=2", "?protocol=3"])
async def test_callback_reaches_all_processes(processes, server, eventually, query):
    """A callback that one process receives reaches each process once, with its song."""
    three = await processes(3, query=query)
    three[0].receive("id", "song")
    three[1].receive("other")
    for each in three:
        await eventually(lambda each=each: len(each.received) >= 2)
        assert sorted(each.received, key=str) == [("id", "song"), ("other", None)]
    assert server.xlen(STREAM) == 2


async def test_callback_ends_a_wait_in_another_process(processes, redis, eventually):
    """The process that waits polls when the callback reaches the other one."""
    receiving, waiting = await processes(2)
    async with (
        CoverEmulator(generation_time=0.0) as emulator,
        CoverClient("key", base_url=emulator.url, inbox=waiting.inbox) as client,
        asyncio.timeout(10),
    ):
        emulator.script_song("song", CoverScript(statuses=["generating", "success"]))
        task_id = await client.generate_cover("song", callback_url="https://example.com")
        wait = asyncio.create_task(client.wait_for_cover(task_id))
        await eventually(lambda: emulator.poll_count(task_id))
        receiving.receive(task_id)
        assert (await wait).is_success
        assert emulator.poll_count(task_id) == 2


async def test_only_ids_are_passed_on(processes, server, eventually):
    """The stream has nothing of a callback's body."""
    [one] = await processes(1)
    one.receive("id", "song", msg="text", code=200)
    await eventually(lambda: server.xlen(STREAM))
    [(_, fields)] = server.xrange(STREAM)
    assert len(fields.pop(b"source")) == 16
    assert fields == {b"task_id": b"id", b"music_task_id": b"song"}


async def test_notifications_and_repetitions_are_not_passed_on(processes, server, eventually):
    """Only the first delivery of a callback goes to the other processes, and no `notify`."""
    one, other = await processes(2)
    one.inbox.notify("notified")
    one.receive("id")
    one.receive("id")
    one.receive("last")
    await eventually(lambda: "last" in other.ids)
    assert other.ids == ["id", "last"]


async def test_buses_of_other_names_are_apart(processes, redis, eventually):
    """Callbacks stay among the buses of one name."""
    [apart] = await processes(1, name="apart")
    one, other = await processes(2)
    one.receive("id")
    await eventually(lambda: other.ids)
    assert apart.ids == []


async def test_process_that_starts_knows_the_last_minutes(processes, server, eventually):
    """An inbox gets the callbacks that came before its bus started, but not those of long ago."""
    seconds, _ = server.time()
    for age in (400, 200):
        server.xadd(STREAM, {"task_id": f"{age}-seconds-ago"}, id=f"{(seconds - age) * 1000}-0")
    [late] = await processes(1)
    server.xadd(STREAM, {"task_id": "now"})
    await eventually(lambda: "now" in late.ids)
    assert late.ids == ["200-seconds-ago", "now"]


async def test_reopened_bus_reads_what_it_published(redis, eventually):
    """A bus has a new name whenever it is opened, as in a forked process."""
    bus = CallbackBus(redis.url, (one := Process()).inbox)
    async with bus:
        one.receive("id")
    async with bus:
        await eventually(lambda: one.ids == ["id", "id"])


async def test_cut_connections_lose_nothing(processes, server, eventually, caplog):
    """After all connections were cut, again and again, every callback has arrived in order."""
    one, other = await processes(2)
    numbers = [str(number) for number in range(200)]
    for number in numbers:
        one.receive(number)
        if number.endswith("50"):
            await eventually(lambda number=number: number in other.ids)
            server.client_kill_filter(_type="normal", skipme=True)
        await asyncio.sleep(0)
    await eventually(lambda: "199" in other.ids)
    assert [*dict.fromkeys(other.ids)] == numbers
    assert not caplog.records


@pytest.mark.usefixtures("quick")
async def test_outage_delays_callbacks(processes, redis, eventually, caplog):
    """Without Redis an inbox works alone; later the others get what came, and logs say both."""
    one, other = await processes(2)
    one.receive("before")
    await eventually(lambda: other.ids)
    redis.kill()
    numbers = [str(number) for number in range(50)]
    for number in numbers:
        one.receive(number)
    assert one.ids == ["before", *numbers]
    await eventually(lambda: caplog.text.count("callbacks stay in their processes") == 2)
    redis.start()
    await eventually(lambda: caplog.text.count("Redis is back") == 2)
    await eventually(lambda: [*dict.fromkeys(other.ids)] == ["before", *numbers])
    assert [each.levelname for each in caplog.records] == ["WARNING"] * 4


@pytest.mark.usefixtures("quick")
async def test_process_may_start_without_redis(processes, stopped_redis, eventually):
    """A bus that finds no Redis connects as soon as there is one."""
    one, other = await processes(2)
    one.receive("id")
    stopped_redis.start()
    await eventually(lambda: other.ids == ["id"])


@pytest.mark.usefixtures("quick")
async def test_store_with_an_earlier_clock_is_read(processes, server, eventually):
    """When the store is empty and its entries come before those seen, they arrive."""
    one, other = await processes(2)
    seconds, _ = server.time()
    server.xadd(STREAM, {"task_id": "future"}, id=f"{(seconds + 3600) * 1000}-0")
    await eventually(lambda: one.ids == other.ids == ["future"])
    server.flushall()
    one.receive("id")
    await eventually(lambda: [*dict.fromkeys(other.ids)] == ["future", "id"])


@pytest.mark.usefixtures("quick")
async def test_last_callbacks_are_added_to_an_empty_store_again(
    processes, server, eventually, monkeypatch
):
    """A store may lose a callback before others have read it, so the last ones are repeated."""
    monkeypatch.setattr(callback_bus, "_REPEATED", 0.1)
    one, other = await processes(2)
    one.receive("old")
    await asyncio.sleep(0.2)
    one.receive("a")
    one.receive("b", "song")
    await eventually(lambda: other.ids == ["old", "a", "b"])
    server.flushall()
    await eventually(lambda: len(other.ids) == 5)
    assert other.received[3:] == [("a", None), ("b", "song")]
    assert one.ids == ["old", "a", "b"]


@pytest.mark.usefixtures("quick")
async def test_refused_writes_are_reported(processes, server, eventually, caplog):
    """A server that can be read but not written fails for the bus until it can be written."""
    one, other = await processes(2)
    server.config_set("maxmemory", 1)
    one.receive("id")
    await eventually(
        lambda: "callbacks stay in their processes: command not allowed" in caplog.text
    )
    server.config_set("maxmemory", 0)
    await eventually(lambda: other.ids == ["id"])
    await eventually(lambda: "passes callbacks on again; 0 were not" in caplog.text)
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("quick")
async def test_pending_callbacks_are_bounded(
    processes, stopped_redis, eventually, caplog, monkeypatch
):
    """Of many callbacks during an outage the oldest are dropped, and a warning counts them."""
    monkeypatch.setattr(callback_bus, "_MAX_PENDING", 2)
    one, other = await processes(2)
    for number in range(5):
        one.receive(str(number))
    await eventually(lambda: "callbacks stay in their processes" in caplog.text)
    stopped_redis.start()
    await eventually(lambda: "on again; 3 were not" in caplog.text)
    await eventually(lambda: other.ids == ["3", "4"])


@pytest.mark.usefixtures("quick")
async def test_old_callbacks_are_not_passed_on(
    processes, stopped_redis, eventually, caplog, monkeypatch
):
    """A callback for which Redis was not there for long is of no use to the others."""
    monkeypatch.setattr(callback_bus, "_RETENTION", 0.2)
    one, other = await processes(2)
    one.receive("old")
    await asyncio.sleep(0.3)
    one.receive("new")
    stopped_redis.start()
    await eventually(lambda: other.ids == ["new"])
    await eventually(lambda: "on again; 1 were not" in caplog.text)


async def test_callback_dropped_while_it_is_added_takes_no_other_along(
    processes, redis, eventually, monkeypatch
):
    """The oldest may give way while its own command runs; the next one is still added."""
    monkeypatch.setattr(callback_bus, "_MAX_PENDING", 2)
    one, other = await processes(2)
    one.receive("first")
    await eventually(lambda: other.ids)
    redis.process.send_signal(signal.SIGSTOP)
    one.receive("a")
    await asyncio.sleep(0)
    one.receive("b")
    one.receive("c")
    redis.process.send_signal(signal.SIGCONT)
    await eventually(lambda: "c" in other.ids)
    assert other.ids == ["first", "a", "b", "c"]


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "x"},
        {"task_id": ""},
        {"task_id": "two words"},
        {"task_id": b"\xff"},
        {"task_id": "x" * 8191},
        {"task_id": "x", "music_task_id": "two words"},
    ],
    ids=["other fields", "empty", "blanks", "not text", "long", "song"],
)
async def test_invalid_entries_are_skipped(processes, server, eventually, fields, caplog):
    """What is not a callback in the stream notifies no wait, and the next entry is read."""
    caplog.set_level(logging.DEBUG, "kie_cover_async.fleet")
    server.xadd(STREAM, fields)
    one, other = await processes(2)
    one.receive("id")
    await eventually(lambda: other.ids == ["id"])
    assert "is not a callback" in caplog.text


async def test_failing_listener_does_not_stop_the_bus(processes, redis, eventually):
    """What a listener raises is reported by the event loop; later callbacks arrive."""
    one, other = await processes(2)
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, each: reported.append(each))
    other.inbox.subscribe("bad", lambda: 1 / 0)
    one.receive("bad")
    one.receive("good")
    await eventually(lambda: other.ids == ["good"])
    assert isinstance(reported[0]["exception"], ZeroDivisionError)


async def test_closing_passes_on_the_last_callbacks(processes, redis, eventually):
    """A callback that came immediately before the end reaches the other processes."""
    [other] = await processes(1)
    async with CallbackBus(redis.url, (one := Process()).inbox):
        one.receive("last")
    await eventually(lambda: other.ids == ["last"])
    one.receive("after")
    assert one.ids == ["last", "after"]


async def test_closing_does_not_wait_for_redis(stopped_redis, caplog):
    """During an outage a bus closes within about a second, and says what was not passed on."""
    loop = asyncio.get_running_loop()
    async with CallbackBus(stopped_redis.url, (one := Process()).inbox):
        one.receive("a")
        one.receive("b")
        closed_at = loop.time()
    assert loop.time() - closed_at < 5
    assert "the callback bus 'kie' was closed: 2 callbacks were not passed on" in caplog.text


async def test_open_bus_cannot_be_opened_again(redis):
    """A second `async with` would read everything twice."""
    async with CallbackBus(redis.url, CallbackInbox()) as bus:
        with pytest.raises(RuntimeError, match="this CallbackBus is open already"):
            await bus.__aenter__()
    async with bus:
        pass


def test_inbox_of_another_loop_is_rejected(redis):
    """A bus is opened in the event loop of its inbox, and leaves nothing behind otherwise."""
    inbox = CallbackInbox()

    async def notify():
        inbox.notify("id")

    async def open_bus():
        async with CallbackBus(redis.url, inbox):
            pass  # pragma: no cover

    asyncio.run(notify())
    with pytest.raises(RuntimeError, match="belongs to another event loop"):
        asyncio.run(open_bus())
