"""The outcome of saving an image for every fault of the emulator, as docs/reliability.md lists it.

A fault affects the request for the image, or the one for a fresh link after a refused one.
"""

import asyncio

import pytest
from support.reliability_page import (
    all_kinds_of_faults,
    fault_of,
    kinds_of_faults,
    outcome_of,
    table,
)

from kie_cover_async import CoverClient
from kie_cover_async.archive import CoverArchive
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault

ROWS = table("### A fault on the way to an image")
ENDPOINTS = {"the image": "image", "the fresh link": "download-url"}
COLUMNS = {
    f"{request}, {how_often}": (endpoint, count)
    for request, endpoint in ENDPOINTS.items()
    for how_often, count in (("once", 1), ("for good", None))
}
NO_FIELDS = "has no fields"
# Seconds: two requests for the image and one for a link, each with four attempts of at most 10 s.
LONGEST = 240.0


def test_the_table_is_complete():
    """Every kind of fault has a row, with a column for each request, once and permanently."""
    assert kinds_of_faults(ROWS) == all_kinds_of_faults()
    assert list(ROWS[0]) == ["fault", *COLUMNS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["fault"].strip("`"))
async def test_a_fault_has_the_documented_outcome(instant_time, tmp_path, row):
    """Saving an image under this fault ends as the page says."""
    fault = fault_of(row.pop("fault"))
    async with CoverEmulator() as emulator, CoverArchive(tmp_path) as archive:
        seen = {column: await cell(emulator, archive, fault, *COLUMNS[column]) for column in row}
    assert seen == row


async def cell(emulator, archive, fault, endpoint, count):
    """Save one image under a fault, check the folder and the record, and return the outcome."""
    if endpoint == "image" and fault.path is not None:
        return NO_FIELDS
    loop = asyncio.get_running_loop()
    async with CoverClient("a-key", base_url=emulator.url) as client:
        job = emulator.add_job(CoverScript(statuses=["success"], images=1))
        details = await client.get_cover_details(job)
        emulator.clear_faults()
        emulator.requests.clear()
        if endpoint == "download-url":
            emulator.fault(Fault.answer(403), endpoint="image")
        emulator.fault(fault, count=count, rate=1.0, endpoint=endpoint)
        started = loop.time()
        seen = await outcome_of(archive.save(client, details))
        assert loop.time() - started <= LONGEST
    await check_archive(archive, job, is_saved=seen == "value")
    return seen + repeated(emulator, endpoint)


async def check_archive(archive, job, *, is_saved):
    known = await archive.find(job)
    assert known.state == ("saved" if is_saved else "pending")
    assert [*archive.folder.glob(f"{job}*")] == [image.path for image in known.images]
    assert len(known.images) == is_saved
    assert not [*archive.folder.glob(".*.part")]
    assert (await archive.verify()).ok


def repeated(emulator, endpoint):
    """Return the number of requests unless it is one, and whether a fresh link was requested."""
    times = sum(request.endpoint == endpoint for request in emulator.requests)
    is_renewed = endpoint == "image" and any(
        request.endpoint == "download-url" for request in emulator.requests
    )
    words = ["" if times == 1 else f", {times} requests", ", a fresh link" if is_renewed else ""]
    return "".join(words)
