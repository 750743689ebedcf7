"""Long lists are read page by page, and saves get the database between two pages."""

import asyncio
import csv
import json
from datetime import timedelta
from threading import Event

import pytest

from kie_cover_async.archive.covers import CoverPages

IDS = [f"{number:032}" for number in range(1001)]


def ids(covers):
    return [cover.task_id for cover in covers]


async def test_a_list_of_several_pages(archive):
    """Each cover is listed once: in the order of adding, or of expiry."""
    await archive.add(IDS)
    assert ids(await archive.pending()) == IDS
    assert ids(await archive.expiring(timedelta(days=15))) == IDS
    assert await archive.failed() == await archive.saved() == []


async def test_an_export_of_several_pages(archive, tmp_path):
    """It has every cover once, and one header."""
    await archive.add(IDS)
    assert await archive.export(tmp_path / "out.csv") == len(IDS)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["task_id"] for row in csv.DictReader(file)] == IDS
    assert await archive.export(tmp_path / "out.jsonl") == len(IDS)
    lines = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["task_id"] for line in lines] == IDS


async def test_an_export_of_an_empty_archive(archive, tmp_path):
    """The file is created, without covers."""
    assert await archive.export(tmp_path / "out.jsonl") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert await archive.export(tmp_path / "out.csv") == 0
    assert (tmp_path / "out.csv").read_bytes().startswith(b"task_id,")


async def test_changes_between_two_pages(archive):
    """A change may be included or not, and nothing is listed twice."""
    await archive.add(["a", "b", "c"])
    pages = CoverPages(archive._saver.executors, "state = 'pending'", size=1)
    seen = ids(await anext(pages))
    await archive.mark_failed("a", OSError())
    await archive.mark_failed("b", OSError())
    await archive.mark_pending(["a"])
    await archive.add(["d"])
    assert seen + [task_id async for page in pages for task_id in ids(page)] == ["a", "c", "d"]


@pytest.fixture
def listings_end(monkeypatch):
    """Until this event is set, every listing reads its first page again and again."""
    end, next_page, limit = Event(), CoverPages._next_page, [*range(100_000)]

    def repeat(pages, database):
        limit.pop()
        if not end.is_set():
            pages._after = 0
        return next_page(pages, database)

    monkeypatch.setattr(CoverPages, "_next_page", repeat)
    return end


LISTINGS = {
    "pending": lambda archive: archive.pending(),
    "failed": lambda archive: archive.failed(),
    "saved": lambda archive: archive.saved(),
    "expiring": lambda archive: archive.expiring(timedelta(days=15)),
    "verify": lambda archive: archive.verify(),
    "export": lambda archive: archive.export(archive.folder / "out.csv"),
}


@pytest.fixture(params=LISTINGS.values(), ids=LISTINGS)
async def listing(request, client, archive, cover, listings_end):
    """A listing of at least one cover, which does not end by itself."""
    await archive.save(client, await cover("saved"))
    await archive.mark_failed("failed", OSError())
    await archive.add(["pending"])
    listing = asyncio.create_task(request.param(archive))
    await asyncio.sleep(0)
    return listing


async def test_a_save_does_not_wait_for_a_listing(client, archive, cover, listing, listings_end):
    """A save that begins during a listing ends before it."""
    saved = await archive.save(client, await cover("new"))
    assert saved.state == "saved"
    assert not listing.done()
    listings_end.set()
    assert await listing


async def test_closing_waits_for_a_listing(archive, listing, listings_end):
    """The listing ends, and returns its result."""
    closing = asyncio.create_task(archive.aclose())
    await asyncio.sleep(0)
    listings_end.set()
    await closing
    assert listing.done()
    assert await listing
