"""Many covers are read some at a time, and whoever saves has the record in between."""

import asyncio
import csv
import json
from datetime import timedelta
from threading import Event

import pytest

from kie_cover_async.archive.pages import Pages
from kie_cover_async.archive.record import Record

IDS = [f"{number:032}" for number in range(1001)]


def ids(covers):
    return [cover.task_id for cover in covers]


async def test_more_than_a_page(archive):
    """Each cover is listed once, as it was added, and the soonest first where that is asked for."""
    await archive.add(IDS)
    assert ids(await archive.pending()) == IDS
    assert ids(await archive.expiring(timedelta(days=15))) == IDS
    assert await archive.failed() == await archive.saved() == []


async def test_an_export_of_more_than_a_page(archive, tmp_path):
    """It has every cover once, and one head."""
    await archive.add(IDS)
    assert await archive.export(tmp_path / "out.csv") == len(IDS)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["task_id"] for row in csv.DictReader(file)] == IDS
    assert await archive.export(tmp_path / "out.jsonl") == len(IDS)
    lines = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["task_id"] for line in lines] == IDS


async def test_an_export_of_nothing(archive, tmp_path):
    """It is a file without covers, and not no file."""
    assert await archive.export(tmp_path / "out.jsonl") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert await archive.export(tmp_path / "out.csv") == 0
    assert (tmp_path / "out.csv").read_bytes().startswith(b"task_id,")


async def test_what_changes_between_two_pages(archive):
    """It may be seen as it was or as it is, or not at all; nothing is listed twice."""
    await archive.add(["a", "b", "c"])
    pages = Pages(archive._saver.threads, "state = 'pending'", size=1)
    seen = ids(await anext(pages))
    await archive.mark_failed("a", OSError())
    await archive.mark_failed("b", OSError())
    await archive.mark_pending(["a"])
    await archive.add(["d"])
    assert seen + [task_id async for page in pages for task_id in ids(page)] == ["a", "c", "d"]


@pytest.fixture
def listings_end(monkeypatch):
    """Until it is set, whoever has read a page is given the same one again."""
    end, page, most = Event(), Record.page, [*range(100_000)]

    def again(record, *which, after, size):
        most.pop()
        return page(record, *which, after=after if end.is_set() else 0, size=size)

    monkeypatch.setattr(Record, "page", again)
    return end


def exporting(archive):
    return archive.export(archive.folder / "out.csv")


LISTINGS = {
    "pending": lambda archive: archive.pending(),
    "failed": lambda archive: archive.failed(),
    "covers": lambda archive: archive.saved(),
    "expiring": lambda archive: archive.expiring(timedelta(days=15)),
    "verify": lambda archive: archive.verify(),
    "export": exporting,
}


@pytest.fixture(params=LISTINGS.values(), ids=LISTINGS)
async def listing(request, client, archive, cover, listings_end):
    """A listing that goes on and on, of one cover at least."""
    await archive.save(client, await cover("saved"))
    await archive.mark_failed("failed", OSError())
    await archive.add(["pending"])
    listing = asyncio.create_task(request.param(archive))
    await asyncio.sleep(0)
    return listing


async def test_a_save_gets_through(client, archive, cover, listing, listings_end):
    """However long a listing takes, a save that begins after it is done before it."""
    saved = await archive.save(client, await cover("new"))
    assert saved.state == "saved"
    assert not listing.done()
    listings_end.set()
    assert await listing


async def test_closing_waits_for_a_listing(archive, listing, listings_end):
    """It is brought to its end, and has what it asked for."""
    closing = asyncio.create_task(archive.aclose())
    await asyncio.sleep(0)
    listings_end.set()
    await closing
    assert listing.done()
    assert await listing
