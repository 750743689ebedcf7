"""Changes of the record that many note at the same time."""

import asyncio
import sqlite3

import pytest

from kie_cover_async.archive import threads


@pytest.fixture
async def statements(archive):
    """What SQLite is told."""
    told = []
    await archive._saver.threads.ask(lambda r: r._connection.set_trace_callback(told.append))
    return told


def adding(task_id):
    def add(record):
        record._execute(
            "INSERT INTO tasks (task_id, state, added_at) VALUES (?, 'saved', 0)", task_id
        )
        return task_id

    return add


async def noted(archive):
    return [cover.task_id for cover in await archive.saved()]


async def test_many_at_once(archive, statements):
    """All but the first are in one transaction, and each hears what came of its own."""
    note, ids = archive._saver.threads.note, [f"{number}" for number in range(20)]
    assert await asyncio.gather(*[note(adding(task_id)) for task_id in ids]) == ids
    assert statements.count("COMMIT") == 2
    assert await noted(archive) == ids


async def test_very_many(archive, statements):
    """Nobody else is kept from the record until all are noted: 64 at most are, at a time."""
    note = archive._saver.threads.note
    await asyncio.gather(*[note(adding(f"{number}")) for number in range(1 + 64 + 64 + 1)])
    assert statements.count("COMMIT") == 4


async def test_one_that_fails(archive):
    """It alone hears of it, and the others are noted."""
    note, ids = archive._saver.threads.note, ["a", "b", "a", "c"]
    outcomes = await asyncio.gather(*[note(adding(each)) for each in ids], return_exceptions=True)
    [error] = [each for each in outcomes if isinstance(each, Exception)]
    assert "UNIQUE constraint failed" in str(error)
    assert isinstance(error.__cause__, sqlite3.IntegrityError)
    assert outcomes[:2] + outcomes[3:] == ["a", "b", "c"]
    assert await noted(archive) == ["a", "b", "c"]


async def test_one_that_nobody_waits_for(archive):
    """It is not noted, if that has not begun."""
    notes = [asyncio.create_task(archive._saver.threads.note(adding(each))) for each in "abc"]
    await asyncio.sleep(0)
    notes[1].cancel()
    await asyncio.wait(notes)
    assert await noted(archive) == ["a", "c"]


async def test_one_that_nobody_waits_for_any_more(archive):
    """What has begun ends, and the next ones are noted."""
    note = archive._saver.threads.note
    noting = asyncio.create_task(note(adding("a")))
    await asyncio.sleep(0)
    noting.cancel()
    await asyncio.wait([noting])
    assert await note(adding("b")) == "b"
    assert await noted(archive) == ["a", "b"]


async def test_names_are_made_to_last_together(archive, monkeypatch):
    """One fsync of the folder serves all who are noted together, and comes before."""
    syncs = []
    monkeypatch.setattr(threads, "sync_folder", syncs.append)
    note = archive._saver.threads.note
    await asyncio.gather(
        note(adding("first")), *[note(lambda _: len(syncs), names_changed=True) for _ in range(5)]
    )
    assert syncs == [archive.folder]
    assert await note(lambda _: len(syncs)) == 1


async def test_a_folder_that_cannot_be_flushed(archive, monkeypatch):
    """Nothing is noted of images whose names may not last: each hears it in an error of its own,
    and the disk is not asked again for each of them."""
    refused = []

    def refuse(folder):
        refused.append(folder)
        raise OSError("the disk is broken")

    monkeypatch.setattr(threads, "sync_folder", refuse)
    note = archive._saver.threads.note
    outcomes = await asyncio.gather(
        note(adding("a")),
        *[note(adding(each), names_changed=True) for each in "bc"],
        return_exceptions=True,
    )
    assert outcomes[0] == "a"
    assert [str(each) for each in outcomes[1:]] == ["the disk is broken"] * 2
    assert outcomes[1] is not outcomes[2]
    assert refused == [archive.folder]
    assert await noted(archive) == ["a"]


async def test_a_failure_is_nobody_elses(archive):
    """An error leads to what failed there, and not to what failed for others."""

    def fail(record):
        raise ValueError

    outcomes = await asyncio.gather(
        *[archive._saver.threads.note(fail) for _ in range(3)], return_exceptions=True
    )
    assert [each.__context__ for each in outcomes] == [None] * 3


async def test_one_after_another(archive, statements):
    """Who notes alone is noted at once: the pause is for those who wait together."""
    note, loop = archive._saver.threads.note, asyncio.get_running_loop()
    for number in range(5):
        await note(adding(f"{number}"))
        assert not [each for each in loop._scheduled if not each.cancelled()]
    assert statements.count("COMMIT") == 5


async def test_an_interpreter_that_ends(archive, monkeypatch):
    """Threads take nothing any more then: everybody hears of it, and nobody waits for ever."""
    own = archive._saver.threads
    busy = own.note(adding("busy"))
    first = asyncio.create_task(busy)
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(own.note(adding(each))) for each in "ab"]
    await asyncio.sleep(0)

    def refuse(notes):
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(own._notes, "_write", refuse)
    outcomes = await asyncio.gather(first, *waiting, own.note(adding("c")), return_exceptions=True)
    assert outcomes[0] == "busy"
    assert all("after shutdown" in str(each) for each in outcomes[1:])
    monkeypatch.undo()
    assert await own.note(adding("later")) == "later"


async def test_nobody_waits_any_more(archive, until):
    """Those who waited together may all have gone when it is their turn."""
    own = archive._saver.threads
    notes = [asyncio.create_task(own.note(adding(each))) for each in "abc"]
    await notes[0]
    for note in notes[1:]:
        note.cancel()
    await until(lambda: not own._notes._is_busy)
    assert await own.note(adding("d")) == "d"
    assert await noted(archive) == ["a", "d"]
