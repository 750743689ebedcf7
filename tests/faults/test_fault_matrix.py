"""Every fault of the emulator with every method: the outcomes that docs/reliability.md states."""

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
# Seconds: of a wait, and of the longest request before it.
WAIT_TIMEOUT, REQUEST_TIMEOUT = 300.0, 60.0


async def one_of(stream):
    """Return the result of the only outcome of a bulk call."""
    async with stream as outcomes:
        [outcome] = [outcome async for outcome in outcomes]
    return outcome.result()


class Call(NamedTuple):
    """A call, and the endpoint whose requests have the fault and are counted."""

    call: Callable[[CoverClient, str], Awaitable[object]]
    endpoint: str


def poll(client, image):
    return client.get_cover_details(TASK)


def wait(client, image):
    return client.wait_for_cover(TASK, timeout=WAIT_TIMEOUT)


def submit(client, image):
    return client.generate_cover(SONG, callback_url=CALLBACK)


def submit_and_wait(client, image):
    return client.generate_and_wait(SONG, callback_url=CALLBACK, timeout=WAIT_TIMEOUT)


CALLS = {
    "get_cover_details": Call(poll, "poll"),
    "check_covers": Call(lambda client, _: one_of(client.check_covers([TASK])), "poll"),
    "get_credits": Call(lambda client, _: client.get_credits(), "credit"),
    "get_download_url": Call(lambda client, url: client.get_download_url(url), "download-url"),
    "wait_for_cover": Call(wait, "poll"),
    "wait_for_covers": Call(
        lambda client, _: one_of(client.wait_for_covers([TASK], timeout=WAIT_TIMEOUT)),
        "poll",
    ),
    "generate_cover": Call(submit, "submit"),
    "generate_and_wait": Call(submit_and_wait, "submit"),
    "generate_and_wait, fault on its polls": Call(submit_and_wait, "poll"),
}
ENDPOINTS = {"poll": {"record-info", "recordInfo"}, "submit": {"generate", "createTask"}}
# The Market's record may have no id, and its submit answers with two.
ON_MARKET = {
    "`Fault.remove('data.taskId')`": {
        "`get_cover_details`<br>`check_covers`": "value",
        "`wait_for_cover`<br>`wait_for_covers`": "value",
        "`generate_cover`": "value",
        "`generate_and_wait`": "value",
        "`generate_and_wait`, fault on its polls": "value, 2 requests",
    }
}
HEADINGS = {"### A fault that happens once": 1, "### A permanent fault": None}


def rows():
    """Yield each row of each table, and how often its fault happens."""
    for heading, count in HEADINGS.items():
        for row in table(heading):
            yield pytest.param(count, row, id=f"{row['fault'].strip('`')} {count or 'for good'}")


def verbs_of(column):
    return [verb.replace("`", "") for verb in column.split("<br>")]


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_table_is_complete(heading):
    """Every kind of fault has a row, every method of the client a column, and nothing else has."""
    rows = table(heading)
    assert kinds_of_faults(rows) == all_kinds_of_faults()
    verbs = [verb for column in rows[0] if column != "fault" for verb in verbs_of(column)]
    assert verbs == list(CALLS)
    assert {verb.partition(",")[0] for verb in CALLS} == VERBS


@pytest.mark.parametrize(("count", "row"), [*rows()])
async def test_each_method_has_the_documented_outcome(instant_time, route, count, row):
    """With this fault, each method has the outcome that the page states, on either route."""
    stated = {column: outcome for column, outcome in row.items() if column != "fault"}
    fault = row["fault"]
    if route == "market":
        fault = fault.replace("data.successFlag", "data.state")
        stated |= ON_MARKET.get(fault, {})
    fault = fault_of(fault)
    seen = {
        column: " / ".join(
            dict.fromkeys([await cell(fault, count, verb) for verb in verbs_of(column)])
        )
        for column in stated
    }
    assert seen == stated


async def cell(fault, count, verb):
    """Return the outcome of the method, and check that it ends within its timeout."""
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
        assert loop.time() - started <= WAIT_TIMEOUT + REQUEST_TIMEOUT
        return seen + request_count(emulator, endpoint, seen)


def request_count(emulator, endpoint, seen):
    """Return the number of requests, unless it is one, or only the timeout limited it."""
    names = ENDPOINTS.get(endpoint, {endpoint})
    times = sum(request.endpoint in names for request in emulator.requests)
    limited_by_timeout = "Timeout" in seen or "NotFound" in seen
    return "" if times == 1 or limited_by_timeout else f", {times} requests"
