"""A person names the id of a song."""

import pytest
from support.songs import submits

from kie_cover_async import TaskNotFoundError
from kie_cover_async.emulator import Fault
from kie_cover_async.jobs import settle_song
from kie_cover_async.ledger import SettlementError


@pytest.fixture
async def task_id(emulator, run):
    """The id of the song `a`, which is in doubt."""
    emulator.fault(Fault.reset(), endpoint="submit")
    assert await run.states(["a"]) == {"a": "in_doubt"}
    return emulator._service.songs["a"]


@pytest.mark.parametrize("has_parent", [True, False])
async def test_id_of_the_song_ends_the_doubt(emulator, run, task_id, has_parent):
    """After one poll the song is submitted, and the next run keeps it."""
    if not has_parent:
        emulator.fault(Fault.remove("data.parentTaskId"), endpoint="poll", rate=1.0)
    song = await settle_song(run.client, run.archive, "a", task_id=task_id)
    assert (song.state, song.task_id, song.api) == ("submitted", task_id, run.client.api)
    assert emulator.poll_count(task_id) == 1
    assert await run.states() == {"a": "kept"}
    assert submits(emulator) == ["a"]


async def test_id_of_another_song_changes_nothing(emulator, run, task_id):
    """The error names the other song."""
    before = await run.ledger.find("a")
    other = emulator.add_job(music_task_id="b")
    with pytest.raises(SettlementError, match=f"cover {other} belongs to another song, b"):
        await settle_song(run.client, run.archive, "a", task_id=other)
    assert await run.ledger.find("a") == before


async def test_failed_id_changes_nothing(emulator, run, task_id):
    """The song can be submitted again, or given up."""
    failed = emulator.add_job("failure", music_task_id="unused")
    emulator._service.jobs[failed].music_task_id = "a"
    with pytest.raises(SettlementError, match=f"cover {failed} has failed"):
        await settle_song(run.client, run.archive, "a", task_id=failed)
    assert await run.state("a") == "in_doubt"


async def test_unknown_id_changes_nothing(run, task_id):
    """The API has no record of it."""
    with pytest.raises(TaskNotFoundError):
        await settle_song(run.client, run.archive, "a", task_id="0" * 32)
    assert await run.state("a") == "in_doubt"
