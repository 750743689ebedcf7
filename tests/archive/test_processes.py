"""Several archives on one folder, in one process and in many, alive and dead."""

import asyncio
import os
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from kie_cover_async.archive.record import Record
from kie_cover_async.emulator import CoverScript, Fault

SAVER = Path(__file__).with_name("saver.py")


async def start(emulator, folder, covers):
    environment = {**os.environ, "KIE_API_KEY": "a-key", "KIE_BASE_URL": emulator.url}
    return await asyncio.create_subprocess_exec(
        sys.executable, SAVER, folder, *covers, env=environment
    )


def some_covers(emulator, number):
    return [emulator.add_job(CoverScript(statuses=["success"])) for _ in range(number)]


def fetched(emulator):
    return Counter(request.path for request in emulator.requests if request.endpoint == "image")


async def check(opened, folder, covers, parts):
    """Every image is there once and whole, and the record knows it."""
    archive = await opened(folder)
    assert sorted(each.task_id for each in await archive.saved()) == sorted(covers)
    report = await archive.verify()
    assert report.ok
    assert report.checked == 2 * len(covers) == len([*folder.glob("*.png")])
    assert parts() == []


async def test_killed_again_and_again(emulator, opened, tmp_path, until, parts):
    """Killed at any moment, the next one goes on: all is saved in the end, and nothing that was
    whole is fetched twice."""
    covers, kills, max_concurrent_downloads = some_covers(emulator, 30), 3, 4
    dice, folder = Random(7), tmp_path / "covers"
    emulator.fault(Fault.slow(0.01), endpoint="image", rate=1.0)
    for _ in range(kills):
        process = await start(emulator, folder, covers)
        so_many = fetched(emulator).total() + dice.randrange(1, 16)
        await until(lambda so_many=so_many: fetched(emulator).total() >= so_many)
        process.kill()
        assert await process.wait() != 0
    last = await start(emulator, folder, covers)
    assert await last.wait() == 0
    assert fetched(emulator).total() - len(fetched(emulator)) <= kills * max_concurrent_downloads
    await check(opened, folder, covers, parts)


async def test_two_processes(emulator, opened, tmp_path, parts):
    """Two that save the same covers into one folder at once both end well."""
    covers, folder = some_covers(emulator, 20), tmp_path / "covers"
    both = [await start(emulator, folder, covers) for _ in range(2)]
    assert [await process.wait() for process in both] == [0, 0]
    await check(opened, folder, covers, parts)


async def test_the_living_are_not_swept_away(client, emulator, opened, cover, until):
    """What another archive is writing stays; when nobody else is there, leftovers go."""
    emulator.fault(Fault.stall(midway=True), endpoint="image", rate=1.0)
    first, details = await opened(), await cover()
    saving = asyncio.create_task(first.save(client, details))
    # The first half of so small an image stays in memory: this is what a large one leaves.
    leftover = first.folder / ".0123456789abcdef.part"
    leftover.write_bytes(b"half")
    (first.folder / ".mine.part").write_bytes(b"somebody's own")
    (first.folder / ".fedcba9876543210.part").mkdir()
    await until(lambda: len(emulator.requests) == 2)
    second = await opened()
    await second.add(["a"])
    assert leftover.exists()
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    await first.aclose()
    await second.aclose()
    await opened()
    left = {path.name for path in first.folder.glob(".*.part")}
    assert left == {".mine.part", ".fedcba9876543210.part"}


def test_the_tables_are_made_once(tmp_path):
    """Who found no tables a moment ago, and finds another's now, takes them for what they are."""
    path = tmp_path / "covers.sqlite3"
    with closing(Record(tmp_path)) as record, closing(Record(tmp_path)) as late:
        record.add(["a"])
        late._make(path)
        assert [cover.task_id for cover in late.covers()] == ["a"]


async def test_two_archives_open_a_new_folder_at_once(opened):
    """Both find the same record there."""
    archives = await asyncio.gather(*[opened() for _ in range(5)])
    await asyncio.gather(*[each.add([str(n)]) for n, each in enumerate(archives)])
    assert len(await archives[0].pending()) == 5
