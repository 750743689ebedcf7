"""What becomes of a song that has an id: wrong ids, failures, gone images, and callbacks."""

from datetime import UTC, datetime, timedelta

import pytest
from support.songs import submits

from kie_cover_async import (
    AuthenticationError,
    CoverFailedError,
    DownloadError,
    TaskNotFoundError,
)
from kie_cover_async.emulator import Fault
from kie_cover_async.jobs import job
from kie_cover_async.ledger import SongState


async def submitted(run, emulator, song="a", script=None, **settings):
    """Add a song that was submitted by an earlier run, and return its id."""
    await run.ledger.want([song])
    task_id = emulator.add_job(script, **{"music_task_id": song, **settings})
    await run.ledger.record_id(song, task_id, run.client.api)
    return task_id


async def test_failed_cover_fails_the_song(emulator, run):
    """The song has failed with the reason of its cover, and stays so."""
    await submitted(run, emulator, script="failure")
    outcome = (await run.outcomes())["a"]
    assert outcome.song.state is SongState.FAILED
    assert isinstance(outcome.error, CoverFailedError)
    assert "Cover generation failed" in outcome.song.reason
    assert (await run.states(["a"])) == {"a": "failed"}


async def test_next_id_is_waited_for_if_one_has_failed(emulator, run):
    """If a song has another id that may succeed, the same run waits for that one."""
    await submitted(run, emulator, script="failure")
    second = emulator.add_job("success", music_task_id="unused")
    emulator._service.jobs[second].music_task_id = "a"
    await run.ledger.record_id("a", second, run.client.api)
    outcome = (await run.outcomes())["a"]
    assert outcome.ok
    assert outcome.song.task_id == second


@pytest.mark.parametrize("script", ["success", "failure"])
async def test_id_of_another_song_is_a_doubt(emulator, run, script):
    """A record that names another parent is not kept, and the song is in doubt."""
    task_id = await submitted(run, emulator, script=script, music_task_id="b")
    outcome = (await run.outcomes())["a"]
    assert outcome.song.state is SongState.IN_DOUBT
    assert outcome.song.reason == f"cover {task_id} belongs to another song, b"
    assert outcome.song.other_ids == (task_id,)
    assert outcome.images == ()


async def test_record_without_a_parent_is_kept(emulator, run):
    """A record that names no parent is taken for the song's own."""
    emulator.fault(Fault.remove("data.parentTaskId"), endpoint="poll", rate=1.0)
    await submitted(run, emulator, script="success")
    assert await run.states() == {"a": "kept"}


async def test_missing_id_is_postponed(emulator, run, monkeypatch):
    """An id without a record is polled again by a later run, for 24 hours."""
    await run.ledger.want(["a"])
    await run.ledger.record_id("a", "0" * 32, run.client.api)
    poll_once = run.client.wait_for_cover
    monkeypatch.setattr(
        run.client, "wait_for_cover", lambda *a, **k: poll_once(*a, not_found_grace=0, **k)
    )
    outcome = (await run.outcomes())["a"]
    assert outcome.song.state is SongState.SUBMITTED
    assert isinstance(outcome.error, TaskNotFoundError)
    assert outcome.song.due_at > datetime.now(UTC)
    monkeypatch.setattr(job, "_MISSING_AFTER", timedelta(0))
    outcome = (await run.outcomes())["a"]
    assert outcome.song.state is SongState.IN_DOUBT
    assert "no record" in outcome.song.reason


async def test_gone_images_are_tried_again_before_the_song_fails(emulator, run, monkeypatch):
    """Images that the host refuses are fetched again an hour later; then the song has failed."""
    emulator.fault(Fault.answer(404), endpoint="image", rate=1.0)
    await submitted(run, emulator, script="success")
    for _ in range(2):
        outcome = (await run.outcomes())["a"]
        assert outcome.song.state is SongState.SUBMITTED
        assert isinstance(outcome.error, DownloadError)
        delay = outcome.song.due_at - datetime.now(UTC)
        assert timedelta(minutes=59) < delay <= timedelta(hours=1)
    await run.ledger.postpone("a", outcome.song.task_id, 0)
    outcome = (await run.outcomes())["a"]
    assert outcome.song.state is SongState.FAILED
    assert outcome.error.http_status == 404


async def test_record_that_was_saved_is_not_polled_again(emulator, run):
    """After a download that failed, the next run fetches the image without another poll."""
    emulator.fault(Fault.answer(500), endpoint="image", rate=1.0)
    task_id = await submitted(run, emulator, script="success")
    assert await run.states() == {"a": "submitted"}
    polls = emulator.poll_count(task_id)
    emulator.clear_faults()
    assert await run.states() == {"a": "kept"}
    assert emulator.poll_count(task_id) == polls


async def test_refused_key_stops_the_waits(emulator, run):
    """If polls are refused, submitted songs stay so, and the rest is not begun."""
    emulator.fault(Fault.answer(200, {"code": 401, "msg": "no"}), endpoint="poll", rate=1.0)
    for song in "abc":
        await submitted(run, emulator, song)
    stopped, outcomes = await run.until_stopped(max_running_jobs=1)
    assert isinstance(stopped.error, AuthenticationError)
    assert (stopped.wanted, stopped.submitted) == (0, 3)
    assert len(outcomes) == 1


async def test_second_song_of_a_stopped_run_is_not_waited_for(emulator, run):
    """A job that is run after a stop leaves its song as it is."""
    await submitted(run, emulator)
    stopped = run.job()
    stopped.stop(error := AuthenticationError(code=401))
    outcome = await stopped.run("a")
    assert outcome.song.state is SongState.SUBMITTED
    assert outcome.error is error
    assert not emulator.requests


async def test_callback_settles_the_song_of_its_record(emulator, run):
    """The id of a callback is polled once, and stored for the song that its record names."""
    emulator.fault(Fault.reset(), endpoint="submit")
    assert await run.states(["a"]) == {"a": "in_doubt"}
    task_id = emulator._service.songs["a"]
    song = await run.job().confirm(task_id)
    assert (song.state, song.task_id) == (SongState.SUBMITTED, task_id)
    assert await run.states() == {"a": "kept"}
    assert submits(emulator) == ["a"]


async def test_callback_of_an_unknown_song_changes_nothing(emulator, run):
    """A callback for a song that is not in the ledger, or without a parent, is ignored."""
    task_id = emulator.add_job("success", music_task_id="stranger")
    assert await run.job().confirm(task_id) is None
    emulator.fault(Fault.remove("data.parentTaskId"), endpoint="poll")
    assert await run.job().confirm(task_id) is None
    assert await run.ledger.page() == []
