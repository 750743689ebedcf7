"""What becomes of a song, by the answer to its submit."""

import socket

import pytest
from support.songs import refuse, submits

from kie_cover_async import CoverAlreadyExistsError, TransportError
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault
from kie_cover_async.jobs import RunStoppedError
from kie_cover_async.ledger import SongState

DOUBTFUL = {
    "reset": Fault.reset(),
    "reset, lost": Fault.reset(accepted=False),
    "gateway page": Fault.gateway_page(),
    "500": Fault.server_error(),
    "truncated": Fault.truncated_json(),
    "no id": Fault.remove("data.taskId"),
    "501": Fault.answer(200, {"code": 501, "msg": "failed"}),
}


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 433, 455, 505])
async def test_refusal_of_every_song_stops_the_run(emulator, run, code):
    """The song is wanted again, nothing is marked failed, and one submit was sent."""
    refuse(emulator, code)
    stopped, _ = await run.until_stopped(["a", "b"], max_running_jobs=1)
    assert stopped.error.code == code
    assert submits(emulator) == ["a"]
    assert await run.state("a") == "wanted"


@pytest.mark.parametrize("code", [413, 422, 451])
async def test_refusal_of_this_song_fails_it(emulator, run, code):
    """The song has failed, and others are made."""
    refuse(emulator, code, task_id="a")
    outcomes = await run.outcomes(["a", "b"])
    assert outcomes["a"].song.state is SongState.FAILED
    assert outcomes["a"].error.code == code
    assert str(code) in outcomes["a"].song.reason
    assert outcomes["b"].ok


@pytest.mark.parametrize("code", [405, 429, 430])
async def test_refusal_of_a_moment_is_repeated(emulator, run, code):
    """After too many requests the claim is given back, and the song is submitted again."""
    refuse(emulator, code, count=2)
    assert await run.states(["a"]) == {"a": "kept"}
    assert submits(emulator) == ["a"] * 3
    assert (await run.ledger.find("a")).attempt == 3


@pytest.mark.parametrize("fault", DOUBTFUL.values(), ids=DOUBTFUL)
async def test_answer_that_leaves_it_open_puts_the_song_in_doubt(emulator, run, fault):
    """The song is in doubt immediately, and no run submits it again."""
    emulator.fault(fault, endpoint="submit")
    outcome = (await run.outcomes(["a"]))["a"]
    assert outcome.song.state is SongState.IN_DOUBT
    assert outcome.error.maybe_accepted
    assert outcome.song.reason == str(outcome.error)
    assert await run.states(["a"]) == {"a": "in_doubt"}
    assert submits(emulator) == ["a"]


@pytest.mark.parametrize("code", ["400", "409"])
async def test_existing_cover_is_kept_if_its_id_is_named(emulator, run, code):
    """A song that has a cover already is submitted once, and that cover is kept."""
    emulator._service.duplicates = code
    job = emulator.add_job(music_task_id="a")
    outcome = (await run.outcomes(["a"]))["a"]
    assert outcome.ok
    assert outcome.song.task_id == job
    assert outcome.error is None


async def test_existing_cover_without_its_id_is_a_doubt(emulator, run):
    """A song that has a cover already, of which the id is unknown, is in doubt."""
    refuse(emulator, 409)
    outcome = (await run.outcomes(["a"]))["a"]
    assert outcome.song.state is SongState.IN_DOUBT
    assert isinstance(outcome.error, CoverAlreadyExistsError)


async def test_existing_cover_that_has_failed_fails_the_song(emulator, run):
    """If the only cover of a song has failed, another submit changes nothing."""
    emulator.script_song("a", CoverScript(statuses=["failure"]))
    assert await run.states(["a"]) == {"a": "failed"}
    await run.ledger.settle("a", submit_again=True)
    outcome = (await run.outcomes(["a"]))["a"]
    assert outcome.song.state is SongState.FAILED
    assert "has a cover already" in outcome.song.reason


async def test_three_equal_refusals_stop_the_run(emulator, run):
    """If nothing was accepted, equal refusals mean a wrong model, and no song has failed."""
    refuse(emulator, 422, "model is wrong")
    songs = [f"song-{n}" for n in range(9)]
    with pytest.raises(RunStoppedError, match="model is wrong"):
        await run.outcomes(songs, max_running_jobs=5)
    # Each of the first two refusals frees a place.
    assert 3 <= len(submits(emulator)) <= 5 + 2
    assert {await run.state(song) for song in songs} <= {"wanted", None}


async def test_equal_refusals_after_a_success_fail_their_songs(emulator, run):
    """If a song was accepted in this run, refusals concern their own songs."""
    refuse(emulator, 422, after=1, rate=1.0)
    songs = [f"song-{n}" for n in range(5)]
    states = await run.states(songs, max_running_jobs=1)
    assert states == {"song-0": "kept"} | dict.fromkeys(songs[1:], "failed")


async def test_different_refusals_do_not_stop_the_run(emulator, run):
    """Songs that are refused for different reasons have failed."""
    songs = [f"song-{n}" for n in range(4)]
    for n, song in enumerate(songs):
        refuse(emulator, 422, f"reason {n // 2}", task_id=song)
    assert await run.states(songs, max_running_jobs=1) == dict.fromkeys(songs, "failed")


async def test_refusals_are_taken_back_once(emulator, run):
    """A song that another run has put in doubt since then is not submitted again by itself."""
    refuse(emulator, 422)
    job = run.job()
    await run.ledger.want("abc")
    for song in "abc":
        await job.run(song)
    assert {await run.state(song) for song in "abc"} == {"wanted"}
    claim = await run.ledger.claim("a", run.client.api)
    await run.ledger.release(claim, SongState.IN_DOUBT)
    # As when the answer to a fourth submit comes late.
    await job.submits.take_back_refusals()
    assert await run.state("a") == "in_doubt"


async def test_song_settled_meanwhile_stays_as_it_is(emulator, run):
    """A refused song that a person has settled is not changed when the run stops."""
    refuse(emulator, 422)

    async def songs():
        yield "a"
        yield "b"
        await run.ledger.settle("a", submit_again=True)
        yield "c"

    await run.until_stopped(songs(), max_running_jobs=1)
    assert [await run.state(song) for song in "abc"] == ["wanted"] * 3


async def test_lost_connection_leaves_the_song_wanted(begin):
    """If no connection can be made, the song is wanted, and has the error."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    run = await begin(base_url=f"http://127.0.0.1:{port}")
    outcome = (await run.outcomes(["a"]))["a"]
    assert outcome.song.state is SongState.WANTED
    assert isinstance(outcome.error, TransportError)
    async with CoverEmulator(port=port, generation_time=0.05):
        assert await run.states(["a"]) == {"a": "kept"}


async def test_setup_that_allows_no_connection_stops_the_run(begin, emulator):
    """An address that does not answer in TLS stops the run."""
    run = await begin(base_url=emulator.url.replace("http:", "https:"))
    with pytest.raises(RunStoppedError, match="does not answer in TLS"):
        await run.outcomes(["a"])
    assert await run.state("a") == "wanted"


async def test_refusals_end_queued_submits(emulator, begin):
    """A submit that still queues when the run stops ends without being sent."""
    run = await begin(max_concurrent_submits=1)
    refuse(emulator, 402)
    _, outcomes = await run.until_stopped(["a", "b"])
    assert {each.song.state for each in outcomes.values()} == {SongState.WANTED}
    assert {each.error.code for each in outcomes.values()} == {402}
    assert len(submits(emulator)) == 1
