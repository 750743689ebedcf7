"""Copies of the record, and reading it as a plain file while an archive is open."""

import asyncio
import shutil
import sqlite3
import sys
from contextlib import closing

import pytest
from attrs import evolve

from kie_cover_async.archive.covers import add
from kie_cover_async.archive.database import ArchiveDatabase

NAME = "covers.sqlite3"
ADDING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
add = "INSERT INTO tasks (task_id, state, added_at) VALUES (?, 'pending', 1e9)"
connection.execute(add, sys.argv[2:])
connection.commit()
connection.close()
"""


async def another_process_adds(archive, task_id):
    """Add an id in another process, which opens the record only for that."""
    record = archive.folder / NAME
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ADDING, record, task_id)
    assert await process.wait() == 0


def ids(covers):
    return [cover.task_id for cover in covers]


async def test_a_record_that_was_read_as_a_file_loses_no_ids(opened):
    """A plain read drops SQLite's locks; the archive notices, and does not overwrite what another
    process has added since."""
    archive = await opened()
    await archive.add(["ours"])
    (archive.folder / NAME).read_bytes()
    await another_process_adds(archive, "theirs")
    says = (
        r"covers\.sqlite3-wal was removed, .* while the archive was open; open it again, .*backup"
    )
    with pytest.raises(OSError, match=says):
        await archive.add(["late"])
    await archive.aclose()
    assert ids(await (await opened()).pending()) == ["ours", "theirs"]


async def test_a_backup_keeps_the_locks(opened, tmp_path):
    """After a backup another process may add an id, and the archive continues."""
    archive = await opened()
    await archive.add(["ours"])
    await archive.backup(tmp_path / "backup")
    await another_process_adds(archive, "theirs")
    assert await archive.add(["late"]) == ["late"]
    await archive.aclose()
    assert ids(await (await opened()).pending()) == ["ours", "theirs", "late"]


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "removed"])
async def test_a_file_of_the_record_that_is_removed_or_replaced(archive, suffix, is_replaced):
    """Every call raises an error that names the file, and reads and writes nothing."""
    await archive.add(["a"])
    if is_replaced:
        (archive.folder / "other").write_bytes(b"")
        (archive.folder / "other").replace(archive.folder / (NAME + suffix))
    else:
        (archive.folder / (NAME + suffix)).unlink()
    for call in (archive.add(["b"]), archive.pending(), archive.backup(archive.folder / "backup")):
        with pytest.raises(
            OSError, match=f"its file {NAME}{suffix} was removed, moved or replaced"
        ):
            await call
    assert not (archive.folder / "backup").exists()


def test_a_file_that_is_removed_while_a_change_waits_for_the_lock(tmp_path):
    """A change checks the files again once it has the lock: the process that held it may have
    removed them, if it saw no other process."""
    with closing(ArchiveDatabase(tmp_path)) as database:
        (tmp_path / f"{NAME}-wal").unlink()
        with pytest.raises(sqlite3.OperationalError, match=f"its file {NAME}-wal was removed"):
            add(database, ["a"])


async def test_a_backup_is_a_complete_record(client, archive, opened, cover, tmp_path):
    """With copies of the images it is an archive of everything that was recorded before."""
    saved = await archive.save(client, await cover("a"))
    await archive.add(["b"])
    folder = tmp_path / "copy"
    folder.mkdir()
    await archive.backup(str(folder / NAME))
    await archive.add(["late"])
    for image in saved.images:
        shutil.copy(image.path, folder)
    copy = await opened(folder)
    images = tuple(evolve(each, path=folder / each.path.name) for each in saved.images)
    assert await copy.saved() == [evolve(saved, images=images)]
    assert ids(await copy.pending()) == ["b"]
    assert (await copy.verify()).ok


async def test_a_backup_is_one_file(archive, tmp_path):
    """It needs no other file, and no other file is left next to it."""
    folder = tmp_path / "copy"
    folder.mkdir()
    await archive.backup(folder / "backup")
    assert [path.name for path in folder.iterdir()] == ["backup"]
    with closing(sqlite3.connect(folder / "backup")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


async def test_a_backup_while_ids_are_added(archive, opened, tmp_path):
    """The copy is of one moment: each addition is in it completely or not at all."""
    adding = [archive.add([f"{number}-{n}" for n in range(20)]) for number in range(20)]
    folder = tmp_path / "copy"
    folder.mkdir()
    await asyncio.gather(*adding[:10], archive.backup(folder / NAME), *adding[10:])
    known = ids(await (await opened(folder)).pending())
    assert len(known) % 20 == 0
    assert known == ids(await archive.pending())[: len(known)]


@pytest.mark.parametrize("is_dangling", [False, True], ids=["a file", "a link to nothing"])
async def test_a_backup_replaces_no_file(archive, tmp_path, is_dangling):
    """The existing file or link stays, and the error names it."""
    target = tmp_path / "backup"
    if is_dangling:
        target.symlink_to(tmp_path / "nothing")
    else:
        target.write_text("mine")
    with pytest.raises(FileExistsError, match=r"a backup does not replace a file: .*/backup"):
        await archive.backup(target)
    assert target.is_symlink() if is_dangling else target.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"covers", "backup"}


async def test_a_backup_does_not_replace_the_record(archive):
    """The record itself is refused like any other existing file."""
    with pytest.raises(FileExistsError):
        await archive.backup(archive.folder / NAME)
    assert await archive.add(["a"]) == ["a"]


async def test_a_backup_into_a_missing_folder(archive, tmp_path):
    """The error names the record and the target."""
    says = rf"covers\.sqlite3 cannot be copied to {tmp_path}/nowhere/backup: unable to open"
    with pytest.raises(OSError, match=says):
        await archive.backup(tmp_path / "nowhere" / "backup")


async def test_a_backup_on_a_full_disk(archive, tmp_path, small_disk):
    """No incomplete copy is left, and the archive continues."""
    await archive.add([f"{number:0100}" for number in range(1000)])
    with small_disk(), pytest.raises(OSError, match=r"cannot be copied to .*backup: "):
        await archive.backup(tmp_path / "backup")
    assert {path.name for path in tmp_path.iterdir()} == {"covers"}
    await archive.backup(tmp_path / "backup")
    assert await archive.add(["a"]) == ["a"]


@pytest.mark.parametrize("path", ["", None, b"backup"])
async def test_an_invalid_backup_path(archive, path):
    """The error names the argument."""
    with pytest.raises(TypeError, match="path must be a path, not"):
        await archive.backup(path)
