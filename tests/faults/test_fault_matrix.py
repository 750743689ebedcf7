"""Every fault of the emulator, and what each verb makes of it, as docs/reliability.md has it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest
from support.client_calls import VERBS
from support.reliability_page import (
    all_kinds_of_faults,
    fault_of,
    kinds_of_faults,
    outcome_of,
    table,
)

from kie_cover_async import CoverClient
from kie_cover_async.emulator import CoverEmulator

CALLBACK = "https://example.com/covers"
SONG, TASK = "a-song", "a-cover"
# A wait, and the longest request before it.
WAIT, REQUEST = 300.0, 60.0


async def one_of(stream):
    """The result of the only outcome of a bulk call."""
    async with stream as outcomes:
        [outcome] = [outcome async for outcome in outcomes]
    return outcome.result()


class Spoilt(NamedTuple):
    """A call that meets the fault, and the endpoint whose requests are spoilt and counted."""

    call: Callable[[CoverClient, str], Awaitable[object]]
    endpoint: str


def poll(client, image):
    return client.get_cover_details(TASK)


def wait(client, image):
    return client.wait_for_cover(TASK, timeout=WAIT)


def ask(client, image):
    return client.generate_cover(SONG, callback_url=CALLBACK)


def ask_and_wait(client, image):
    return client.generate_and_wait(SONG, callback_url=CALLBACK, timeout=WAIT)


CALLS = {
    "get_cover_details": Spoilt(poll, "record-info"),
    "check_covers": Spoilt(lambda client, _: one_of(client.check_covers([TASK])), "record-info"),
    "get_credits": Spoilt(lambda client, _: client.get_credits(), "credit"),
    "get_download_url": Spoilt(lambda client, url: client.get_download_url(url), "download-url"),
    "wait_for_cover": Spoilt(wait, "record-info"),
    "wait_for_covers": Spoilt(
        lambda client, _: one_of(client.wait_for_covers([TASK], timeout=WAIT)), "record-info"
    ),
    "generate_cover": Spoilt(ask, "generate"),
    "generate_and_wait": Spoilt(ask_and_wait, "generate"),
    "generate_and_wait, on its polls": Spoilt(ask_and_wait, "record-info"),
}
HEADINGS = {"### A fault that strikes once": 1, "### A fault that stays": None}


def rows():
    """Each row of each table, and how often its fault strikes."""
    for heading, count in HEADINGS.items():
        for row in table(heading):
            yield pytest.param(count, row, id=f"{row['fault'].strip('`')} {count or 'for good'}")


def verbs_of(column):
    return [verb.replace("`", "") for verb in column.split("<br>")]


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_table_is_whole(heading):
    """Every kind of fault has a row, every verb of the client a column, and no other has one."""
    rows = table(heading)
    assert kinds_of_faults(rows) == all_kinds_of_faults()
    verbs = [verb for column in rows[0] if column != "fault" for verb in verbs_of(column)]
    assert verbs == list(CALLS)
    assert {verb.partition(",")[0] for verb in CALLS} == VERBS


@pytest.mark.parametrize(("count", "row"), [*rows()])
async def test_a_row(instant_time, count, row):
    """Each verb of a client as it is by default makes of this fault what the page says."""
    fault = fault_of(row.pop("fault"))
    seen = {
        column: " / ".join(
            dict.fromkeys([await cell(fault, count, verb) for verb in verbs_of(column)])
        )
        for column in row
    }
    assert seen == row


async def cell(fault, count, verb):
    """What comes of the verb, and within its time."""
    loop = asyncio.get_running_loop()
    async with CoverEmulator() as emulator, CoverClient("a-key", base_url=emulator.url) as client:
        emulator.script_song(SONG, "generating, success")
        emulator.add_job("success", task_id=TASK)
        image = (await client.get_cover_details(TASK)).images[0]
        emulator.requests.clear()
        call, endpoint = CALLS[verb]
        emulator.fault(fault, count=count, rate=1.0, endpoint=endpoint)
        started = loop.time()
        seen = await outcome_of(call(client, image))
        assert loop.time() - started <= WAIT + REQUEST
        return seen + repeated(emulator, endpoint, seen)


def repeated(emulator, endpoint, seen):
    """How often the endpoint was asked, unless once, or as often as time allowed."""
    times = sum(request.endpoint == endpoint for request in emulator.requests)
    until_time_was_up = "Timeout" in seen or "NotFound" in seen
    return "" if times == 1 or until_time_was_up else f", {times} requests"
