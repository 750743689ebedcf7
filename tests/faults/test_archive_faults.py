"""Every fault of the emulator, and what saving an image makes of it, as docs/reliability.md has it.

A fault strikes the image itself, or the fresh link for one whose first link is refused.
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
STRUCK = {"the image": "image", "the fresh link": "download-url"}
COLUMNS = {
    f"{struck}, {often}": (endpoint, count)
    for struck, endpoint in STRUCK.items()
    for often, count in (("once", 1), ("for good", None))
}
NO_FIELDS = "has no fields"
# Of two requests for the image and one for a link, each with four tries of at most 10 s.
LONGEST = 240.0


def test_the_table_is_whole():
    """Every kind of fault has a row, and strikes both, once and for good."""
    assert kinds_of_faults(ROWS) == all_kinds_of_faults()
    assert list(ROWS[0]) == ["fault", *COLUMNS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["fault"].strip("`"))
async def test_a_row(instant_time, tmp_path, row):
    """Saving makes of this fault what the page says."""
    fault = fault_of(row.pop("fault"))
    async with CoverEmulator() as emulator, CoverArchive(tmp_path) as archive:
        seen = {column: await cell(emulator, archive, fault, *COLUMNS[column]) for column in row}
    assert seen == row


async def cell(emulator, archive, fault, endpoint, count):
    """What comes of one image; then that it is here, whole and noted, or nothing of it is."""
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
    await check_what_is_there(archive, job, is_saved=seen == "value")
    return seen + repeated(emulator, endpoint)


async def check_what_is_there(archive, job, *, is_saved):
    known = await archive.find(job)
    assert known.state == ("saved" if is_saved else "pending")
    assert [*archive.folder.glob(f"{job}*")] == [image.path for image in known.images]
    assert len(known.images) == is_saved
    assert not [*archive.folder.glob(".*.part")]
    assert (await archive.verify()).ok


def repeated(emulator, endpoint):
    """How often the endpoint was asked, unless once, and whether for a fresh link, too."""
    times = sum(request.endpoint == endpoint for request in emulator.requests)
    was_renewed = endpoint == "image" and any(
        request.endpoint == "download-url" for request in emulator.requests
    )
    words = ["" if times == 1 else f", {times} requests", ", a fresh link" if was_renewed else ""]
    return "".join(words)
