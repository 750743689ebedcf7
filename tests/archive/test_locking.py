"""Waiting while another program has the record or the lock file locked."""

import asyncio
import sqlite3
import threading

import pytest

from kie_cover_async.archive import CoverArchive, locking


@pytest.fixture
def lock():
    """Lock a database as another program would, until the connection is closed."""
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
def warned(monkeypatch, caplog, eventually):
    """Wait until the log has a warning that names the file."""
    monkeypatch.setattr(locking, "_WARN_AFTER", 0.0)

    async def warned(path):
        said = f"waiting for {path}, which another program has locked"
        await eventually(lambda: said in caplog.messages)

    return warned


def test_the_warning_is_given_once(tmp_path, lock, monkeypatch, caplog):
    """The log names the file once, however many attempts fail."""
    monkeypatch.setattr(locking, "_WARN_AFTER", 0.0)
    path, failed = tmp_path / "database", []
    other, ours = lock(path), sqlite3.connect(path, timeout=0, isolation_level=None)

    def attempt():
        if len(failed) == 3:
            other.close()
        failed.append(True)
        return ours.execute("BEGIN IMMEDIATE")

    locking.retry_while_locked(path, attempt, lambda: True)
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
    """Waiting ends after 30 seconds, here sooner, with an error that names the file."""
    monkeypatch.setattr(locking, "_MAX_WAIT", 0.01)
    lock(archive.folder / "covers.sqlite3")
    with pytest.raises(OSError, match=r"/covers\.sqlite3 cannot be used: database is locked$"):
        await archive.add(["an-id"])


async def test_closing_does_not_wait_for_a_cancelled_change(opened, lock, warned):
    """A cancelled change stops waiting for the lock, so that the archive can be closed."""
    archive = await opened()
    lock(archive.folder / "covers.sqlite3")
    adding = asyncio.create_task(archive.add(["an-id"]))
    await warned(archive.folder / "covers.sqlite3")
    adding.cancel()
    async with asyncio.timeout(10):
        await archive.aclose()


async def test_closing_waits_for_a_change_that_waits_for_a_lock(opened, lock, warned):
    """The change is made before the archive is closed."""
    archive = await opened()
    other = lock(archive.folder / "covers.sqlite3")
    adding = asyncio.create_task(archive.add(["an-id"]))
    await warned(archive.folder / "covers.sqlite3")
    closing = asyncio.create_task(archive.aclose())
    await asyncio.sleep(0)
    other.close()
    assert await adding == ["an-id"]
    await closing


async def test_the_lock_file_is_a_database_without_tables(archive):
    """`.in-use` is an SQLite file that is used only for its locks."""
    # Reading a database as a plain file drops the locks of the process on it.
    await archive.aclose()
    lock_file = archive.folder / ".in-use"
    assert lock_file.read_bytes().startswith(b"SQLite format 3\0")
    connection = sqlite3.connect(lock_file)
    assert connection.execute("SELECT * FROM sqlite_master").fetchall() == []
    connection.close()


@pytest.mark.parametrize("name", [".in-use", "covers.sqlite3"])
async def test_opening_a_locked_folder_can_be_cancelled(tmp_path, lock, warned, eventually, name):
    """A warning names the locked file; after cancellation the thread ends soon, too."""
    lock(tmp_path / name)
    opening = asyncio.create_task(CoverArchive(tmp_path).__aenter__())
    await warned(tmp_path / name)
    opening.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([opening])
    assert opening.cancelled()
    await eventually(lambda: not [each for each in threading.enumerate() if "archive" in each.name])
