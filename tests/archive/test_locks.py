"""Waiting while another program has the record, or the mark beside it, locked."""

import asyncio
import sqlite3
import threading

import pytest

from kie_cover_async.archive import CoverArchive, locks


@pytest.fixture
def lock():
    """Locks a database as another program would, and unlocks it when the connection is closed."""
    connections = []

    def lock(path):
        connection = sqlite3.connect(path, isolation_level=None)
        connections.append(connection)
        connection.execute("BEGIN EXCLUSIVE")
        return connection

    yield lock
    for connection in connections:
        connection.close()


@pytest.fixture
def warned(monkeypatch, caplog, until):
    """Returns once the log has a warning that names the file."""
    monkeypatch.setattr(locks, "_SILENCE", 0.0)

    async def warned(path):
        said = f"waiting for {path}, which another program has locked"
        await until(lambda: said in caplog.messages)

    return warned


def test_the_warning_is_given_once(tmp_path, lock, monkeypatch, caplog):
    """However many attempts fail, the log names the file once."""
    monkeypatch.setattr(locks, "_SILENCE", 0.0)
    path, failed = tmp_path / "database", []
    other, ours = lock(path), sqlite3.connect(path, timeout=0, isolation_level=None)

    def attempt():
        if len(failed) == 3:
            other.close()
        failed.append(True)
        return ours.execute("BEGIN IMMEDIATE")

    locks.when_unlocked(path, attempt, lambda: True)
    ours.close()
    assert len(failed) == 4
    assert caplog.messages == [f"waiting for {path}, which another program has locked"]


async def test_a_locked_record_is_named_and_waited_for(archive, lock, warned):
    """A change is made when the other program has unlocked the record."""
    other = lock(archive.folder / "covers.sqlite3")
    adding = asyncio.create_task(archive.add(["an-id"]))
    await warned(archive.folder / "covers.sqlite3")
    other.close()
    assert await adding == ["an-id"]


async def test_a_record_that_stays_locked_is_an_error(archive, lock, monkeypatch):
    """Waiting ends after half a minute, here sooner, with an error that names the file."""
    monkeypatch.setattr(locks, "PATIENCE", 0.01)
    lock(archive.folder / "covers.sqlite3")
    with pytest.raises(OSError, match=r"/covers\.sqlite3 cannot be used: database is locked$"):
        await archive.add(["an-id"])


async def test_closing_does_not_wait_for_a_cancelled_change(opened, lock, warned):
    """A change that nobody waits for any more gives up, so that the archive can be closed."""
    archive = await opened()
    lock(archive.folder / "covers.sqlite3")
    adding = asyncio.create_task(archive.add(["an-id"]))
    await warned(archive.folder / "covers.sqlite3")
    adding.cancel()
    async with asyncio.timeout(10):
        await archive.aclose()


async def test_closing_waits_for_a_change_that_waits(opened, lock, warned):
    """A change that a task still waits for is made before the archive is closed."""
    archive = await opened()
    other = lock(archive.folder / "covers.sqlite3")
    adding = asyncio.create_task(archive.add(["an-id"]))
    await warned(archive.folder / "covers.sqlite3")
    closing = asyncio.create_task(archive.aclose())
    await asyncio.sleep(0)
    other.close()
    assert await adding == ["an-id"]
    await closing


async def test_the_mark_is_a_database_without_tables(archive):
    """`.in-use` is an SQLite file for the sake of its locks, and holds no data."""
    # Reading a database as a plain file takes the process's own locks on it away.
    await archive.aclose()
    mark = archive.folder / ".in-use"
    assert mark.read_bytes().startswith(b"SQLite format 3\0")
    connection = sqlite3.connect(mark)
    assert connection.execute("SELECT * FROM sqlite_master").fetchall() == []
    connection.close()


@pytest.mark.parametrize("name", [".in-use", "covers.sqlite3"])
async def test_opening_a_locked_folder_can_be_cancelled(tmp_path, lock, warned, until, name):
    """Opening names the locked file, and ends soon after it is cancelled, its thread too."""
    lock(tmp_path / name)
    opening = asyncio.create_task(CoverArchive(tmp_path).__aenter__())
    await warned(tmp_path / name)
    opening.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([opening])
    assert opening.cancelled()
    await until(lambda: not [each for each in threading.enumerate() if "archive" in each.name])
