"""Callbacks of all kinds: the outcomes that docs/reliability.md states."""

import asyncio
import re
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from support.posted import CALLBACKS, FORGED, KEY, MIB, Posted
from support.raw_peer import Connection
from support.reliability_page import outcome_of, table

from kie_cover_async import CoverClient, ExponentialSchedule
from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.emulator import CoverEmulator

ROWS = table("## Callbacks of all kinds")
# Seconds: when the callback is sent, when the job ends, and how long to wait for an answer.
SENT_AT, ENDS_AT, ANSWER_TIMEOUT = 5.0, 20.0, 60.0
WITHOUT_JITTER = ExponentialSchedule(jitter=0)


class Poster:
    """Posts to a port, with a connection for each callback, and records the answers."""

    def __init__(self, port):
        self.port, self.answers, self.bytes_sent = port, [], 0

    async def post(self, row):
        for steps in [row.steps()] if isinstance(row, Posted) else row:
            connection = Connection(self, *await asyncio.open_connection("127.0.0.1", self.port))
            sending = asyncio.create_task(self._send(connection, steps))
            await self._read_answer(connection)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, connection, steps):
        for step in steps:
            await connection.take(step)

    async def _read_answer(self, connection):
        answer = b""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                while piece := await connection.reader.read(65_536):
                    answer += piece
        except (ConnectionError, TimeoutError):
            pass
        connection.writer.close()
        self.answers += re.findall(rb"^HTTP/1.[01] (\d+)", answer) or [b"nothing"]

    @property
    def summary(self):
        return " / ".join(dict.fromkeys(answer.decode() for answer in self.answers))


def test_the_page_has_every_callback():
    """The page has one row for each callback, in the same order."""
    assert [row["a callback that"] for row in ROWS] == list(CALLBACKS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["a callback that"])
async def test_each_callback_has_the_documented_outcome(instant_time, row):
    """Each callback gets the documented answer and costs the documented polls."""
    callback = CALLBACKS[row.pop("a callback that")]
    assert await cells(callback) == row


async def cells(callback):
    """Return the cells of the row."""
    answered, polls = await cell(callback, KEY)
    answered_unsigned, polls_unsigned = await cell(callback, None)
    return {
        "`inbox.receive`": await received(callback),
        "`inbox.routes`": answered,
        "polls": polls,
        "without a key": answered_unsigned,
        "polls, without a key": polls_unsigned,
    }


async def received(callback):
    """Return the outcome of `receive`, if the callback would reach it."""
    posted = callback("a-cover")
    if not isinstance(posted, Posted) or (posted.method, posted.path) != ("POST", "/callbacks"):
        return "–"

    async def receive():
        CallbackInbox(KEY).receive(posted.headers, posted.body)

    return await outcome_of(receive())


async def cell(callback, key):
    """Return the answer, and how many polls it cost the wait; check the wait's result."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        emulator = CoverEmulator(generation_time=ENDS_AT, callback_key=KEY)
        await stack.enter_async_context(emulator)
        inbox = CallbackInbox(key)
        poster = Poster(await port_of(inbox, stack))
        client = CoverClient("a-key", base_url=emulator.url, inbox=inbox, schedule=WITHOUT_JITTER)
        await stack.enter_async_context(client)
        ids, started = asyncio.Queue(), loop.time()
        url = f"http://127.0.0.1:{poster.port}/callbacks"
        making = asyncio.create_task(
            client.generate_and_wait("song", callback_url=url, on_task_id=ids.put_nowait)
        )
        task_id = await ids.get()
        await asyncio.sleep(SENT_AT)
        posting = asyncio.create_task(poster.post(callback(task_id)))
        details = await making
        assert loop.time() - started < ENDS_AT + 1
        polls = emulator.poll_count(task_id)
        await posting
        assert details == await client.get_cover_details(task_id)
        assert FORGED not in details.images
        assert not inbox._listeners
        assert poster.bytes_sent < 16 * MIB
        assert [sent.status for sent in emulator.callbacks] == [200]
    return poster.summary, str(polls - 1)


async def port_of(inbox, stack):
    """Serve the inbox's routes and return the port."""
    app = web.Application()
    app.add_routes(inbox.routes("/callbacks"))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner.addresses[0][1]
