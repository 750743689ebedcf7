"""Changes of the database that several tasks submit at the same time."""

import asyncio
import sqlite3

import pytest

from kie_cover_async.archive import executors


@pytest.fixture
def commit(archive):
    return archive._saver.executors.batcher.submit


@pytest.fixture
async def statements(archive):
    """The statements that SQLite executes."""
    executed = []
    await archive._saver.executors.query(
        lambda database: database._connection.set_trace_callback(executed.append)
    )
    return executed


def adding(task_id):
    def add(database):
        database.execute(
            "INSERT INTO tasks (task_id, state, added_at) VALUES (?, 'saved', 0)", task_id
        )
        return task_id

    return add


async def saved_ids(archive):
    return [cover.task_id for cover in await archive.saved()]


async def test_concurrent_changes_share_a_transaction(archive, commit, statements):
    """All but the first change are in one transaction, and each gets its own result."""
    ids = [f"{number}" for number in range(20)]
    assert await asyncio.gather(*[commit(adding(task_id)) for task_id in ids]) == ids
    assert statements.count("COMMIT") == 2
    assert await saved_ids(archive) == ids


async def test_a_transaction_has_at_most_64_changes(commit, statements):
    """Other processes get the database between two batches."""
    await asyncio.gather(*[commit(adding(f"{number}")) for number in range(1 + 64 + 64 + 1)])
    assert statements.count("COMMIT") == 4


async def test_a_failing_change_leaves_the_others_committed(archive, commit):
    """Only the change that fails gets the error."""
    ids = ["a", "b", "a", "c"]
    outcomes = await asyncio.gather(*[commit(adding(each)) for each in ids], return_exceptions=True)
    [error] = [each for each in outcomes if isinstance(each, Exception)]
    assert "UNIQUE constraint failed" in str(error)
    assert isinstance(error.__cause__, sqlite3.IntegrityError)
    assert outcomes[:2] + outcomes[3:] == ["a", "b", "c"]
    assert await saved_ids(archive) == ["a", "b", "c"]


async def test_a_change_cancelled_in_the_queue_is_not_made(archive, commit):
    """A queued change is dropped when its task is cancelled."""
    changes = [asyncio.create_task(commit(adding(each))) for each in "abc"]
    await asyncio.sleep(0)
    changes[1].cancel()
    await asyncio.wait(changes)
    assert await saved_ids(archive) == ["a", "c"]


async def test_a_change_cancelled_during_its_commit_is_made(archive, commit):
    """A commit that has started ends, and the next changes are committed after it."""
    changing = asyncio.create_task(commit(adding("a")))
    await asyncio.sleep(0)
    changing.cancel()
    await asyncio.wait([changing])
    assert await commit(adding("b")) == "b"
    assert await saved_ids(archive) == ["a", "b"]


async def test_a_queue_whose_changes_are_all_cancelled(archive, commit, eventually):
    """An empty batch does not block later changes."""
    batcher = archive._saver.executors.batcher
    changes = [asyncio.create_task(commit(adding(each))) for each in "abc"]
    await changes[0]
    for change in changes[1:]:
        change.cancel()
    await eventually(lambda: not batcher._is_busy)
    assert await commit(adding("d")) == "d"
    assert await saved_ids(archive) == ["a", "d"]


async def test_a_batch_flushes_the_folder_once(archive, commit, monkeypatch):
    """One fsync of the folder serves all changes of a batch, and precedes them."""
    syncs = []
    monkeypatch.setattr(executors, "sync_folder", syncs.append)
    await asyncio.gather(
        commit(adding("first")),
        *[commit(lambda _: len(syncs), names_changed=True) for _ in range(5)],
    )
    assert syncs == [archive.folder]
    assert await commit(lambda _: len(syncs)) == 1


async def test_nothing_is_committed_if_the_folder_cannot_be_flushed(archive, commit, monkeypatch):
    """Each change of the batch gets an error of its own, and the disk is asked only once."""
    refused = []

    def refuse(folder):
        refused.append(folder)
        raise OSError("the disk is broken")

    monkeypatch.setattr(executors, "sync_folder", refuse)
    outcomes = await asyncio.gather(
        commit(adding("a")),
        *[commit(adding(each), names_changed=True) for each in "bc"],
        return_exceptions=True,
    )
    assert outcomes[0] == "a"
    assert [str(each) for each in outcomes[1:]] == ["the disk is broken"] * 2
    assert outcomes[1] is not outcomes[2]
    assert refused == [archive.folder]
    assert await saved_ids(archive) == ["a"]


async def test_an_error_has_no_context_from_other_changes(commit):
    """An error leads to what failed in its own change only."""

    def fail(database):
        raise ValueError

    outcomes = await asyncio.gather(*[commit(fail) for _ in range(3)], return_exceptions=True)
    assert [each.__context__ for each in outcomes] == [None] * 3


async def test_sequential_changes_are_committed_without_delay(commit, statements):
    """Only changes that are queued during a commit wait for the batch interval."""
    loop = asyncio.get_running_loop()
    for number in range(5):
        await commit(adding(f"{number}"))
        assert not [each for each in loop._scheduled if not each.cancelled()]
    assert statements.count("COMMIT") == 5


async def test_changes_fail_while_the_interpreter_shuts_down(archive, commit, monkeypatch):
    """If no thread takes work any more, every waiting task gets the error."""
    first = asyncio.create_task(commit(adding("busy")))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(commit(adding(each))) for each in "ab"]
    await asyncio.sleep(0)

    def refuse(changes):
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(archive._saver.executors.batcher, "_commit", refuse)
    outcomes = await asyncio.gather(first, *waiting, commit(adding("c")), return_exceptions=True)
    assert outcomes[0] == "busy"
    assert all("after shutdown" in str(each) for each in outcomes[1:])
    monkeypatch.undo()
    assert await commit(adding("later")) == "later"
