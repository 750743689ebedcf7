"""`max_submits`, and what a view is told while a run goes on."""

from collections import Counter

import pytest
from support.songs import refuse, submits

from kie_cover_async.emulator import CoverScript, Fault

SONGS = [f"song-{n}" for n in range(6)]


@pytest.mark.parametrize("places", [1, 2, 100])
async def test_no_more_new_jobs_than_allowed(emulator, run, places):
    """Songs of the input beyond the limit stay wanted, and their outcomes have no error."""
    outcomes = await run.outcomes(SONGS, max_submits=2, max_running_jobs=places)
    states = Counter(each.song.state.value for each in outcomes.values())
    assert states == {"kept": 2, "wanted": 4}
    assert not any(each.error for each in outcomes.values())
    assert len(submits(emulator)) == 2
    assert (await run.ledger.counts())["wanted"] == 4
    assert await run.states() == {song: "kept" for song in SONGS if not outcomes[song].ok}


async def test_without_input_the_run_ends_at_the_limit(emulator, run):
    """Wanted songs of the ledger that were not read yet have no outcome."""
    await run.ledger.want(SONGS)
    states = await run.states(max_submits=1, max_running_jobs=1)
    assert states == {"song-0": "kept", "song-1": "wanted"}
    assert len(submits(emulator)) == 1


async def test_no_submit_is_allowed(emulator, run):
    """Songs that were submitted before are finished, and the others are noted."""
    await run.ledger.want(["old"])
    await run.ledger.record_id("old", emulator.add_job(music_task_id="old"), run.client.api)
    assert await run.states(["new"], max_submits=0) == {"old": "kept", "new": "wanted"}
    assert submits(emulator) == []


async def test_doubts_count_and_refusals_do_not(emulator, run):
    """A claim that was given back leaves room for another song."""
    refuse(emulator, 422, task_id="song-0")
    refuse(emulator, 429, task_id="song-1", count=1)
    emulator.fault(Fault.reset(), endpoint="submit", task_id="song-2")
    emulator._service.duplicates = "409"
    emulator.add_job(music_task_id="song-3")
    states = await run.states(SONGS, max_submits=3, max_running_jobs=1)
    assert states == {
        "song-0": "failed",
        "song-1": "kept",
        "song-2": "in_doubt",
        "song-3": "kept",
        "song-4": "kept",
        "song-5": "wanted",
    }


async def test_song_waits_while_others_may_use_up_the_limit(emulator, run):
    """A submit that is not accepted leaves its place to a song that waited for it."""
    refuse(emulator, 422, count=1)
    states = await run.states(SONGS[:2], max_submits=1)
    assert Counter(states.values()) == {"failed": 1, "kept": 1}


async def test_updates_are_passed_on(emulator, run):
    """A view gets the details after every poll of a wait."""
    emulator.script_song("a", CoverScript(statuses=["generating", "success"]))
    updates = []
    await run.outcomes(["a"], on_update=updates.append)
    assert [each.state.name for each in updates] == ["GENERATING", "SUCCESS"]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_submits": -1}, ValueError),
        ({"max_submits": 1.5}, TypeError),
        ({"on_update": 1}, TypeError),
    ],
)
async def test_unusable_settings_are_errors(run, settings, error):
    """The error names the setting, before anything is sent."""
    with pytest.raises(error, match=next(iter(settings))):
        run.stream(**settings)
