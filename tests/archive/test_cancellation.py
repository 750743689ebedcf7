"""Cancellation of the archive's methods at every await."""

import asyncio
import threading
from pathlib import Path

import pytest
from support.cancellation import CancelledAt, cancel_at_each_await, leaked_state

from kie_cover_async.archive import CoverArchive
from kie_cover_async.archive.executors import _FILE_THREADS as FILE_THREADS
from kie_cover_async.emulator import Fault


def archive_threads():
    return [each for each in threading.enumerate() if each.name.startswith("kie-cover-archive")]


def open_files():
    """Return the number of open descriptors of this process."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


def archive_leaks(archive, *, folder=None):
    """Return what calls that have ended left in the archive."""
    saver = archive._saver
    queue = saver.executors.batcher._queue
    return {
        "part files": len([*(folder or archive.folder).glob(".*.part")]),
        "download slots": saver._download_slots._value - archive._max_concurrent_downloads,
        "cover locks": sum(lock.locked() for lock in saver._cover_locks.values()),
        "users": saver.executors._users,
        "changes": sum(not change.result.done() for change in queue),
    }


async def threads_are_idle(archive):
    """Wait until every thread has ended what it did when a task was cancelled."""
    executors, barrier = archive._saver.executors, threading.Barrier(FILE_THREADS)
    await asyncio.gather(*[executors.on_files(barrier.wait) for _ in range(FILE_THREADS)])
    await executors.query(lambda _: None)


async def cancelled(wait, moment, coroutine, *others):
    """Run the coroutine in a task, and cancel it at this await, if it has so many.

    Return the interruption, and the results of the other coroutines.
    """
    interruption = CancelledAt(wait, moment, coroutine)
    tasks = [asyncio.create_task(each) for each in (interruption.run(), *others)]
    outcome, *results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError) == interruption.interrupted, outcome
    return interruption, results


def no_faults(emulator):
    pass


def faults(emulator):
    emulator.fault(Fault.answer(404), endpoint="image", count=1)
    emulator.fault(Fault.reset(midway=True), endpoint="image", count=1)
    emulator.fault(Fault.truncated_json(), endpoint="image", count=1)


@pytest.mark.parametrize("add_faults", [no_faults, faults])
async def test_a_cancelled_save_leaves_nothing(emulator, client, archive, cover, add_faults):
    """After a save is cancelled at any await, the next one saves the cover."""

    async def begin(moment, wait):
        details = await cover()
        add_faults(emulator)
        saving, _ = await cancelled(wait, moment, archive.save(client, details))
        emulator.clear_faults()
        await threads_are_idle(archive)
        assert not any(archive_leaks(archive).values()), archive_leaks(archive)
        assert not any(leaked_state(client).values()), leaked_state(client)
        assert (await archive.save(client, details)).state == "saved"
        return saving

    await cancel_at_each_await(begin)
    assert (await archive.verify()).ok


@pytest.mark.parametrize("is_first", [True, False])
async def test_cancelling_one_of_two_saves_of_a_cover(emulator, client, archive, cover, is_first):
    """The other save gets the cover, whichever of the two is cancelled, at any await."""

    async def begin(moment, wait):
        details = await cover()
        saves = [archive.save(client, details) for _ in range(2)]
        if is_first:
            saving, [saved] = await cancelled(wait, moment, *saves)
        else:
            other = asyncio.create_task(saves[0])
            await asyncio.sleep(0)
            saving, _ = await cancelled(wait, moment, saves[1])
            saved = await other
        assert saved.state == "saved"
        await threads_are_idle(archive)
        assert not any(archive_leaks(archive).values()), archive_leaks(archive)
        return saving

    await cancel_at_each_await(begin)
    assert (await archive.verify()).ok


async def adding(archive, folder):
    await archive.add([f"added-{number}" for number in range(3)])


async def verifying(archive, folder):
    await archive.verify()


async def exporting(archive, folder):
    await archive.export(folder / "covers.jsonl")


async def backing_up(archive, folder):
    (folder / "backup").unlink(missing_ok=True)
    await archive.backup(folder / "backup")


async def failing(archive, folder):
    await archive.mark_failed("failed", OSError("the disk is full"))
    await archive.mark_pending()


async def listing(archive, folder):
    for method in (archive.pending, archive.failed, archive.saved, archive.expiring):
        await method()
    await archive.find("an-id")


@pytest.mark.parametrize("call", [adding, verifying, exporting, backing_up, failing, listing])
async def test_a_cancelled_call_leaves_nothing(client, archive, cover, tmp_path, call):
    """After any other method is cancelled at any await, it can be called again."""
    await archive.save(client, await cover("an-id"))
    # While SQLite holds locks, it keeps the descriptor of a second connection for the next one.
    await archive.backup(tmp_path / "first backup")
    before = open_files()

    async def begin(moment, wait):
        calling, _ = await cancelled(wait, moment, call(archive, tmp_path))
        await threads_are_idle(archive)
        assert not any(archive_leaks(archive, folder=tmp_path).values())
        assert open_files() == before
        await call(archive, tmp_path)
        return calling

    await cancel_at_each_await(begin)
    assert [each.task_id for each in await archive.saved()] == ["an-id"]


async def everything_is_closed(eventually, files):
    await eventually(lambda: not archive_threads() and open_files() == files)


async def test_cancelled_opening_leaves_nothing(tmp_path, eventually):
    """After opening is cancelled at any await, no thread or file is left, and opening succeeds."""
    before = open_files()

    async def begin(moment, wait):
        archive = CoverArchive(tmp_path / f"{moment} {wait}")
        opening, _ = await cancelled(wait, moment, archive.__aenter__())
        await archive.aclose()
        await everything_is_closed(eventually, before)
        async with archive:
            await archive.add(["an-id"])
        await everything_is_closed(eventually, before)
        return opening

    await cancel_at_each_await(begin)


async def test_opening_that_is_cancelled_twice_leaves_nothing(tmp_path, eventually):
    """The second cancellation ends the wait for the clean-up, and the clean-up continues."""
    before, archive = open_files(), CoverArchive(tmp_path)
    opening = asyncio.create_task(archive.__aenter__())
    for _ in range(2):
        await asyncio.sleep(0)
        opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await everything_is_closed(eventually, before)


async def test_cancelled_closing_completes_running_saves(
    emulator, client, cover, tmp_path, eventually
):
    """After closing is cancelled at any await, a running save ends, and all is closed then."""
    await client.downloader.fetch((await cover()).images[0], received)
    before = open_files()

    async def begin(moment, wait):
        archive = CoverArchive(tmp_path)
        await archive.__aenter__()
        details = await cover()
        emulator.fault(Fault.slow(0.02), endpoint="image", count=2)
        saving = asyncio.create_task(archive.save(client, details))
        await asyncio.sleep(0)
        closing, _ = await cancelled(wait, moment, archive.aclose())
        saved = await saving
        assert saved.state == "saved"
        await eventually(lambda: not archive_threads())
        assert not [*tmp_path.glob(".*.part")]
        return closing

    await cancel_at_each_await(begin)
    await client.aclose()
    async with CoverArchive(tmp_path) as archive:
        assert (await archive.verify()).ok
    await eventually(lambda: open_files() <= before)


async def received(body):
    return [piece async for piece in body]


async def test_a_folder_is_opened_again_while_an_old_save_runs(
    emulator, client, cover, opened, eventually
):
    """A save that a cancelled closing left running does not delay the next opening."""
    archive = await opened()
    details = await cover("slow")
    emulator.fault(Fault.slow(1.0), endpoint="image", count=2)
    saving = asyncio.create_task(archive.save(client, details))
    await eventually(lambda: len(emulator.requests) == 2)
    closing = asyncio.create_task(archive.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    async with archive:
        await archive.save(client, await cover("quick"))
    assert not saving.done()
    assert (await saving).state == "saved"
    async with archive:
        assert [each.task_id for each in await archive.saved()] == ["slow", "quick"]
