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
from kie_cover_async.emulator import CoverScript, Fault
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


async def let_time_pass(run, **duration):
    """Move every time of the ledger into the past."""
    seconds = timedelta(**duration).total_seconds()
    columns = "claimed_at", "due_at", "trouble_since", "added_at", "changed_at"
    moved = ", ".join(f"{column} = {column} - {seconds}" for column in columns)
    await run.archive._query(lambda database: database.changes(f"UPDATE songs SET {moved}"))  # noqa: S608


async def delay_after_run(run, **settings):
    """The time until the song is due again after one more run."""
    song = (await run.outcomes(**settings))["a"].song
    assert song.state is SongState.SUBMITTED
    return round((song.due_at - datetime.now(UTC)) / timedelta(minutes=1))


async def test_unfinished_cover_is_postponed_for_longer_each_time(emulator, run):
    """The song is due in 15 minutes, then in twice the time, and in six hours at most."""
    await submitted(run, emulator, script=CoverScript(end="never"))
    delays = [await delay_after_run(run, timeout=0) for _ in range(7)]
    assert delays == [15, 30, 60, 120, 240, 360, 360]


@pytest.fixture
def without_grace(run, monkeypatch):
    """The run ends a wait at the first answer that there is no record."""
    wait = run.client.wait_for_cover
    monkeypatch.setattr(
        run.client, "wait_for_cover", lambda *a, **k: wait(*a, not_found_grace=0, **k)
    )


@pytest.mark.usefixtures("without_grace")
async def test_missing_id_is_a_doubt_after_a_day(run):
    """An id without a record is polled by later runs, and is in doubt after 24 hours of that."""
    await run.ledger.want(["a"])
    await run.ledger.record_id("a", "0" * 32, run.client.api)
    assert await delay_after_run(run) == 15
    await let_time_pass(run, hours=23)
    assert await delay_after_run(run) == 30
    await let_time_pass(run, hours=1)
    outcome = (await run.outcomes())["a"]
    assert isinstance(outcome.error, TaskNotFoundError)
    assert outcome.song.state is SongState.IN_DOUBT
    assert outcome.song.reason == f"there was no record of cover {'0' * 32} for 24 hours"


@pytest.mark.usefixtures("without_grace")
async def test_record_that_was_seen_is_missing_only_since_then(emulator, run):
    """The 24 hours begin again after a poll that has found the record."""
    task_id = await submitted(run, emulator, script=CoverScript(end="never"))
    missing = Fault.answer(200, {"code": 422, "msg": "recordInfo is null"})
    for _ in range(2):
        emulator.fault(missing, endpoint="poll")
        assert await delay_after_run(run) == 15
        await let_time_pass(run, hours=30)
        assert await delay_after_run(run, timeout=0) == 15
    assert (await run.ledger.find("a")).task_id == task_id


async def expire(run):
    """Run until the images are found to be gone for an hour, and return the last outcome."""
    for _ in range(2):
        assert await delay_after_run(run) == 30
        await let_time_pass(run, minutes=30)
    return (await run.outcomes())["a"]


@pytest.mark.parametrize("status", [403, 404, 410, 200])
async def test_images_that_are_gone_for_an_hour_fail_the_song(emulator, run, status):
    """The third time, an hour after the first, the song has failed; 200 is without a byte."""
    emulator.fault(Fault.answer(status, ""), endpoint="image", rate=1.0)
    await submitted(run, emulator, script="success")
    outcome = await expire(run)
    assert outcome.song.state is SongState.FAILED
    assert isinstance(outcome.error, DownloadError)
    assert "images expired: " in outcome.song.reason
    assert any(each.endpoint == "download-url" for each in emulator.requests)


async def test_images_that_are_gone_three_times_within_an_hour_are_tried_again(emulator, run):
    """A user who starts several runs soon after each other gives up nothing."""
    emulator.fault(Fault.answer(404), endpoint="image", rate=1.0)
    await submitted(run, emulator, script="success")
    assert [await delay_after_run(run) for _ in range(4)] == [30] * 4
    emulator.clear_faults()
    assert await run.states() == {"a": "kept"}


async def test_other_trouble_between_starts_the_hour_again(emulator, run):
    """A host that fails otherwise has not said that the images are gone."""
    await submitted(run, emulator, script="success")
    for status, delay in ((404, 30), (404, 30), (500, 15), (404, 30), (404, 30)):
        emulator.clear_faults()
        emulator.fault(Fault.answer(status), endpoint="image", rate=1.0)
        assert await delay_after_run(run) == delay
        await let_time_pass(run, minutes=31)
    assert (await run.outcomes())["a"].song.state is SongState.FAILED


async def test_images_kept_before_stay_when_the_others_are_gone(emulator, run):
    """The song has failed, and its outcome has the image that was saved."""
    await submitted(run, emulator, script="success")
    emulator.fault(Fault.answer(404), endpoint="image", after=1, rate=1.0)
    outcome = await expire(run)
    assert outcome.song.state is SongState.FAILED
    assert len(outcome.images) == 1


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
