"""Several archives on one folder, in one process and in several, some of them killed."""

import asyncio
import os
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from kie_cover_async.archive.covers import add, find
from kie_cover_async.archive.database import ArchiveDatabase
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


async def check_saved(opened, folder, covers, parts):
    """Every image is there once, complete and recorded."""
    archive = await opened(folder)
    assert sorted(each.task_id for each in await archive.saved()) == sorted(covers)
    report = await archive.verify()
    assert report.ok
    assert report.checked == 2 * len(covers) == len([*folder.glob("*.png")])
    assert parts() == []


async def test_repeated_kills_lose_no_saved_image(emulator, opened, tmp_path, eventually, parts):
    """After each kill the next process continues: in the end everything is saved, and no image that
    was complete is fetched twice."""
    covers, kills, max_concurrent_downloads = some_covers(emulator, 30), 3, 4
    rng, folder = Random(7), tmp_path / "covers"
    emulator.fault(Fault.slow(0.01), endpoint="image", rate=1.0)
    for _ in range(kills):
        process = await start(emulator, folder, covers)
        target = fetched(emulator).total() + rng.randrange(1, 16)
        await eventually(lambda target=target: fetched(emulator).total() >= target)
        process.kill()
        assert await process.wait() != 0
    last = await start(emulator, folder, covers)
    assert await last.wait() == 0
    assert fetched(emulator).total() - len(fetched(emulator)) <= kills * max_concurrent_downloads
    await check_saved(opened, folder, covers, parts)


async def test_two_processes_save_the_same_covers(emulator, opened, tmp_path, parts):
    """Two processes that save the same covers into one folder at the same time both succeed."""
    covers, folder = some_covers(emulator, 20), tmp_path / "covers"
    both = [await start(emulator, folder, covers) for _ in range(2)]
    assert [await process.wait() for process in both] == [0, 0]
    await check_saved(opened, folder, covers, parts)


async def test_part_files_are_removed_only_if_the_folder_is_unused(
    client, emulator, opened, cover, eventually
):
    """A part file stays while another archive is open, and is removed when none is."""
    emulator.fault(Fault.stall(midway=True), endpoint="image", rate=1.0)
    first, details = await opened(), await cover()
    saving = asyncio.create_task(first.save(client, details))
    # A small image stays in memory until it is complete; this stands for a large one.
    leftover = first.folder / ".0123456789abcdef.part"
    leftover.write_bytes(b"half")
    (first.folder / ".mine.part").write_bytes(b"a user's own")
    (first.folder / ".fedcba9876543210.part").mkdir()
    await eventually(lambda: len(emulator.requests) == 2)
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


def test_the_tables_are_created_once(tmp_path):
    """A process that found no tables uses those that another process created meanwhile."""
    with closing(ArchiveDatabase(tmp_path)) as first, closing(ArchiveDatabase(tmp_path)) as late:
        add(first, ["a"])
        late._upgrade()
        assert find(late, "a").task_id == "a"


async def test_a_new_folder_is_opened_concurrently(opened):
    """All archives use the same record."""
    archives = await asyncio.gather(*[opened() for _ in range(5)])
    await asyncio.gather(*[each.add([str(n)]) for n, each in enumerate(archives)])
    assert len(await archives[0].pending()) == 5
