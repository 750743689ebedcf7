"""Cancelling an archive's methods at every await, and what must not be left."""

import asyncio
import threading
from pathlib import Path

import pytest
from support.cancellation import InterruptedAt, interrupted_at_each, leaked_state

from kie_cover_async.archive import CoverArchive
from kie_cover_async.archive.threads import _THREADS as THREADS
from kie_cover_async.emulator import Fault

OURS = "kie-cover-archive"


def own_threads():
    return [each for each in threading.enumerate() if each.name.startswith(OURS)]


def open_files():
    """How many descriptors this process has."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


def left_behind(archive, *, folder=None):
    """Whatever is still to be found of a call that has ended."""
    saver = archive._saver
    return {
        "half written": len([*(folder or archive.folder).glob(".*.part")]),
        "places": saver._places._value - archive._max_concurrent_downloads,
        "turns": sum(lock.locked() for lock in saver._turns.values()),
        "users": saver.threads._users,
        "notes": sum(not note.answer.done() for note in saver.threads._notes._waiting),
    }


async def settled(archive):
    """The threads have done what they had begun when somebody was cancelled: they all meet."""
    threads, meeting = archive._saver.threads, threading.Barrier(THREADS)
    await asyncio.gather(*[threads.begin(meeting.wait) for _ in range(THREADS)])
    await threads.ask(lambda _: None)


async def cancelled(wait, moment, coroutine, *others):
    """The coroutine in a task of its own, cancelled there if it waits so often; and what came of
    it and of the others."""
    interruption = InterruptedAt(wait, moment, coroutine)
    tasks = [asyncio.create_task(each) for each in (interruption.run(), *others)]
    outcome, *results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError) == interruption.interrupted, outcome
    return interruption, results


def no_trouble(emulator):
    pass


def trouble(emulator):
    emulator.fault(Fault.answer(404), endpoint="image", count=1)
    emulator.fault(Fault.reset(midway=True), endpoint="image", count=1)
    emulator.fault(Fault.truncated_json(), endpoint="image", count=1)


@pytest.mark.parametrize("strike", [no_trouble, trouble])
async def test_a_save(emulator, client, archive, cover, strike):
    """A save is cancelled anywhere: nothing is left of it, and the next one has the cover."""

    async def begin(moment, wait):
        details = await cover()
        strike(emulator)
        saving, _ = await cancelled(wait, moment, archive.save(client, details))
        emulator.clear_faults()
        await settled(archive)
        assert not any(left_behind(archive).values()), left_behind(archive)
        assert not any(leaked_state(client).values()), leaked_state(client)
        assert (await archive.save(client, details)).state == "saved"
        return saving

    await interrupted_at_each(begin)
    assert (await archive.verify()).ok


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_save_that_is_shared(emulator, client, archive, cover, is_first):
    """Of two saves of a cover one is cancelled anywhere; the other has it, each image once."""

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
        await settled(archive)
        assert not any(left_behind(archive).values()), left_behind(archive)
        return saving

    await interrupted_at_each(begin)
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
async def test_another_call(client, archive, cover, tmp_path, call):
    """Any other method is cancelled anywhere: it leaves nothing, and can be called again."""
    await archive.save(client, await cover("an-id"))
    # SQLite keeps the descriptor of a second connection for the next one, as long as it has locks.
    await archive.backup(tmp_path / "first backup")
    before = open_files()

    async def begin(moment, wait):
        calling, _ = await cancelled(wait, moment, call(archive, tmp_path))
        await settled(archive)
        assert not any(left_behind(archive, folder=tmp_path).values())
        assert open_files() == before
        await call(archive, tmp_path)
        return calling

    await interrupted_at_each(begin)
    assert [each.task_id for each in await archive.saved()] == ["an-id"]


async def all_gone(until, files):
    await until(lambda: not own_threads() and open_files() == files)


async def test_entering(tmp_path, until):
    """Opening is cancelled anywhere: no thread and no file is left, and it can be opened."""
    before = open_files()

    async def begin(moment, wait):
        archive = CoverArchive(tmp_path / f"{moment} {wait}")
        opening, _ = await cancelled(wait, moment, archive.__aenter__())
        await archive.aclose()
        await all_gone(until, before)
        async with archive:
            await archive.add(["an-id"])
        await all_gone(until, before)
        return opening

    await interrupted_at_each(begin)


async def test_entering_that_is_cancelled_twice(tmp_path, until):
    """Whoever does not even wait until what was opened is given back leaves nothing either."""
    before, archive = open_files(), CoverArchive(tmp_path)
    opening = asyncio.create_task(archive.__aenter__())
    for _ in range(2):
        await asyncio.sleep(0)
        opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await all_gone(until, before)


async def test_leaving(emulator, client, cover, tmp_path, until):
    """Closing is cancelled anywhere: a running save comes to its end, and then all is closed."""
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
        await until(lambda: not own_threads())
        assert not [*tmp_path.glob(".*.part")]
        return closing

    await interrupted_at_each(begin)
    await client.aclose()
    async with CoverArchive(tmp_path) as archive:
        assert (await archive.verify()).ok
    await until(lambda: open_files() <= before)


async def received(body):
    return [piece async for piece in body]


async def test_a_save_in_a_folder_that_was_opened_again(emulator, client, cover, opened):
    """A save that an abandoned closing has left running does not hold the next opening up."""
    archive = await opened()
    details = await cover("slow")
    emulator.fault(Fault.slow(0.1), endpoint="image", count=2)
    saving = asyncio.create_task(archive.save(client, details))
    await asyncio.sleep(0)
    closing = asyncio.create_task(archive.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    async with archive:
        await archive.save(client, await cover("quick"))
    assert not saving.done()
    assert (await saving).state == "saved"
    async with archive:
        assert [each.task_id for each in await archive.saved()] == ["slow", "quick"]
