"""`make_covers`: songs in, covers kept, over sockets and on disk."""

import asyncio
from contextlib import aclosing

import pytest
from support.songs import CALLBACK, refuse, submits

from kie_cover_async import (
    ClientClosedError,
    CoverTimeoutError,
    InsufficientCreditsError,
    InvalidTaskIdError,
    OtherApiError,
)
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.ledger import SongState

SONGS = ["a", "b", "c"]


async def test_songs_go_in_and_images_come_out(emulator, run, route):
    """Every song is submitted once, and its two images are in the folder."""
    outcomes = await run.outcomes(SONGS)
    assert sorted(outcomes) == sorted(submits(emulator)) == SONGS
    for outcome in outcomes.values():
        assert outcome.ok
        assert outcome.error is None
        assert len(outcome.images) == 2
        assert all(str(run.archive.folder) in path for path in outcome.images)
    assert (await run.archive.verify()).ok


async def test_kept_songs_yield_immediately(emulator, run):
    """A second run sends nothing, and yields the images that are kept."""
    first = await run.outcomes(SONGS)
    emulator.requests.clear()
    second = await run.outcomes(SONGS)
    assert not emulator.requests
    assert {song: each.images for song, each in second.items()} == {
        song: each.images for song, each in first.items()
    }


async def test_song_that_is_given_twice_has_one_outcome(emulator, run):
    """A song that is given three times is submitted once, and yielded once."""
    assert await run.states(["a", "a", "b", "a"]) == {"a": "kept", "b": "kept"}
    assert sorted(submits(emulator)) == ["a", "b"]


async def test_songs_come_from_an_async_generator(run):
    """An async source is read as the work goes on, and closed at the end."""
    is_closed = False

    async def songs():
        nonlocal is_closed
        try:
            for song in SONGS:
                await asyncio.sleep(0)
                yield song
            await asyncio.Event().wait()
        finally:
            is_closed = True

    async with run.stream(songs()) as stream:
        kept = [(await anext(stream)).song.music_task_id for _ in SONGS]
    assert sorted(kept) == SONGS
    assert is_closed


async def test_songs_come_from_another_async_iterable(run):
    """An async iterable that cannot be closed is read to its end."""

    class Songs:
        def __init__(self):
            self._songs = iter(SONGS)

        def __aiter__(self):
            return self

        async def __anext__(self):
            try:
                return next(self._songs)
            except StopIteration:
                raise StopAsyncIteration from None

    assert await run.states(Songs()) == dict.fromkeys(SONGS, "kept")


async def test_input_is_read_lazily(emulator, run):
    """With two places, no more than a few songs of an endless input are read."""
    drawn = []

    def songs():
        while True:
            drawn.append(f"song-{len(drawn)}")
            yield drawn[-1]

    async with run.stream(songs(), max_running_jobs=2) as stream:
        await anext(stream)
        await asyncio.sleep(0.1)
    assert len(drawn) <= 8
    assert len(submits(emulator)) <= 8


async def test_running_jobs_are_bounded(emulator, run):
    """No more jobs run at the vendor at the same time than there are places."""
    running = most = 0
    for song in (songs := [f"song-{n}" for n in range(12)]):
        emulator.script_song(song, CoverScript(seconds=0.1))
    async for outcome in run.stream(songs, max_running_jobs=3):
        assert outcome.ok
    for request in emulator.requests:
        running += request.endpoint == "generate"
        running -= request.endpoint == "image"
        most = max(most, running)
    assert most <= 3


async def test_input_that_fails_ends_the_run(run):
    """An error of the input is raised from the iteration."""

    def songs():
        yield "a"
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        await run.outcomes(songs())


async def test_invalid_song_is_data(run):
    """An id that cannot be one is reported, and not stored."""
    outcomes = await run.outcomes(["a", "two words"])
    assert outcomes["a"].ok
    assert isinstance(outcomes["two words"].error, InvalidTaskIdError)
    assert outcomes["two words"].song.state is SongState.FAILED
    assert await run.ledger.find("two words") is None


@pytest.mark.parametrize("songs", ["abc", b"de", 5])
async def test_songs_must_be_an_iterable(run, songs):
    """A text is not taken for a sequence of ids."""
    with pytest.raises(TypeError, match="songs must be an iterable of ids"):
        run.stream(songs)


async def test_without_input_all_wanted_songs_are_submitted(run):
    """Songs that the ledger wants are submitted if no input is given."""
    await run.ledger.want(SONGS)
    assert await run.states() == dict.fromkeys(SONGS, "kept")


async def test_wanted_songs_outside_the_input_stay_wanted(emulator, run):
    """A song of an earlier input is not submitted by a run with another one."""
    await run.ledger.want(SONGS)
    assert await run.states(["b"]) == {"b": "kept"}
    assert submits(emulator) == ["b"]
    assert await run.state("a") == await run.state("c") == "wanted"


async def test_submitted_songs_of_the_folder_are_finished(emulator, run):
    """A run with other songs also waits for those that were submitted before it."""
    await run.ledger.want(["old"])
    old = await run.client.generate_cover("old", callback_url=CALLBACK)
    await run.ledger.record_id("old", old, run.client.api)
    assert await run.states(["new"]) == {"old": "kept", "new": "kept"}
    assert submits(emulator) == ["old", "new"]


async def test_submitted_songs_leave_half_of_the_places(emulator, run):
    """While there is input, submitted songs that never end take half of the places at most."""
    old = [f"old-{n}" for n in range(6)]
    await run.ledger.want(old)
    for song in old:
        job = emulator.add_job(CoverScript(end="never"), music_task_id=song)
        await run.ledger.record_id(song, job, run.client.api)

    async def songs():
        for song in SONGS:
            yield song
        await asyncio.Event().wait()

    async with asyncio.timeout(10), run.stream(songs(), max_running_jobs=4) as stream:
        kept = [(await anext(stream)).song.music_task_id for _ in SONGS]
    assert sorted(kept) == SONGS
    polled = {each.task_id for each in emulator.requests if each.endpoint == "record-info"}
    assert len(polled) == 2 + len(SONGS)


async def test_submitted_songs_take_all_places_after_the_input(emulator, run, eventually):
    """If the input has no more, all places serve submitted songs."""
    old = [f"old-{n}" for n in range(4)]
    await run.ledger.want(old)
    for song in old:
        job = emulator.add_job(CoverScript(end="never"), music_task_id=song)
        await run.ledger.record_id(song, job, run.client.api)
    async with asyncio.timeout(10), run.stream([], max_running_jobs=4) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await eventually(lambda: len({each.task_id for each in emulator.requests}) == 4)
        waiting.cancel()


async def test_callback_url_is_made_for_each_song(emulator, run):
    """A function returns the callback URL of each song."""
    await run.outcomes(["a"], callback_url=lambda song: f"{CALLBACK}/{song}")
    [request] = [each for each in emulator.requests if each.endpoint == "generate"]
    assert f'"{CALLBACK}/a"'.encode() in request.body


async def test_missing_callback_url_is_an_error_before_anything_is_sent(emulator, begin):
    """On the suno route a run without a callback URL raises, and its songs stay wanted."""
    run = await begin(route="suno")
    with pytest.raises(ValueError, match="callback_url must be given"):
        await run.outcomes(["a"], callback_url=None)
    assert not emulator.requests
    assert await run.state("a") == "wanted"


async def test_full_disk_ends_the_run_and_loses_nothing(emulator, run, monkeypatch):
    """If an image cannot be written, the error is raised, and the next run keeps the song."""

    async def save(*_):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(run.archive, "save", save)
        with pytest.raises(OSError, match="the disk is full"):
            await run.outcomes(["a"])
    assert await run.state("a") == "submitted"
    assert await run.states() == {"a": "kept"}
    assert submits(emulator) == ["a"]


async def test_song_whose_id_another_route_issued_is_reported_and_left(emulator, begin):
    """A run on the market route leaves a song that was submitted on the suno route."""
    run, other = await begin(route="suno"), await begin(route="market")
    emulator.script_song("a", CoverScript(end="never"))
    await run.outcomes(["a"], timeout=0.1)
    emulator.requests.clear()
    outcome = (await other.outcomes(["a"]))["a"]
    assert not emulator.requests
    assert outcome.song.state is SongState.SUBMITTED
    assert isinstance(outcome.error, OtherApiError)
    assert f"the suno route of {emulator.url}" in str(outcome.error)


async def test_timeout_postpones_and_the_next_run_waits_again(emulator, run):
    """A song whose cover takes too long stays submitted, due later; the next run keeps it."""
    emulator.script_song("a", CoverScript(seconds=0.4))
    outcome = (await run.outcomes(["a"], timeout=0.1))["a"]
    assert isinstance(outcome.error, CoverTimeoutError)
    assert outcome.song.state is SongState.SUBMITTED
    delay = outcome.song.due_at - outcome.song.changed_at
    assert 900 <= delay.total_seconds() < 910
    assert await run.states() == {"a": "kept"}
    assert submits(emulator) == ["a"]


async def test_two_runs_on_one_folder_submit_each_song_once(emulator, begin):
    """Two processes that make the same songs keep all of them, with one submit each."""
    songs = [f"song-{n}" for n in range(20)]
    first, second = await begin(), await begin()
    states = await asyncio.gather(first.states(songs), second.states(songs[::-1]))
    assert states == [dict.fromkeys(songs, "kept")] * 2
    assert sorted(submits(emulator)) == sorted(songs)


async def test_song_of_a_live_process_is_followed_in_the_ledger(emulator, begin):
    """A song that another process is submitting is awaited without any request."""
    first, second = await begin(), await begin()
    await first.ledger.want(["a"])
    assert await first.ledger.claim("a", first.client.api) is not None
    following = asyncio.create_task(second.outcomes(["a"]))
    await asyncio.sleep(0.2)
    assert not emulator.requests
    job = emulator.add_job(CoverScript(statuses=["success"]), music_task_id="a")
    await first.ledger.record_id("a", job, first.client.api)
    assert (await following)["a"].ok
    assert submits(emulator) == []


async def test_song_that_a_live_process_waits_for_is_followed(emulator, begin, eventually):
    """The second process polls nothing; if the first one stops waiting, it takes the wait over."""
    first, second = await begin(), await begin(user_agent="second")
    emulator.script_song("a", CoverScript(end="never"))
    async with first.stream(["a"]) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await eventually(lambda: len(emulator.requests) > 1)
        following = asyncio.create_task(second.outcomes(["a"], timeout=0.1))
        await asyncio.sleep(0.1)
        assert not any("second" in each.headers["User-Agent"] for each in emulator.requests)
        waiting.cancel()
    assert isinstance((await following)["a"].error, CoverTimeoutError)
    assert submits(emulator) == ["a"]


async def test_leaving_the_stream_ends_waits_and_keeps_ids(emulator, run):
    """After the stream is left early, each accepted song has its id; the next run keeps all."""
    songs = [f"song-{n}" for n in range(10)]
    async with aclosing(run.stream(songs)) as stream:
        await anext(stream)
    for song in {*submits(emulator)}:
        assert await run.state(song) in ("submitted", "kept")
    assert await run.states(songs) == dict.fromkeys(songs, "kept")
    assert sorted(submits(emulator)) == sorted(songs)


async def test_closing_lets_a_submit_in_flight_note_its_id(begin, emulator, eventually):
    """A submit that was sent when the stream is closed is answered, and its id is stored."""
    run = await begin()
    emulator.fault(Fault.slow(0.3), endpoint="submit")
    async with run.stream(["a"]) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await eventually(lambda: submits(emulator))
        waiting.cancel()
    assert await run.state("a") == "submitted"


async def test_dropped_stream_leaves_the_ledger_usable(emulator, run, eventually):
    """A stream that is dropped ends by itself, and the next run keeps its song."""
    emulator.script_song("a", CoverScript(seconds=0.2))
    stream = run.stream(["a", "b"])
    await anext(stream)
    del stream
    await eventually(lambda: len(submits(emulator)) == 2)
    assert await run.states(["a", "b"]) == {"a": "kept", "b": "kept"}


async def test_closed_client_ends_the_run(run, emulator, eventually):
    """If the client is closed meanwhile, the iteration raises, and the song stays submitted."""
    emulator.script_song("a", CoverScript(end="never"))
    waiting = asyncio.ensure_future(run.outcomes(["a"]))
    await eventually(lambda: len(emulator.requests) > 1)
    await run.client.aclose()
    with pytest.raises(ClientClosedError):
        await waiting
    assert await run.state("a") == "submitted"


async def test_run_without_credits_stops_and_says_what_is_left(emulator, run):
    """Without credits nothing is marked failed; the next run continues."""
    refuse(emulator, 402)
    await run.ledger.want(SONGS)
    stopped, _ = await run.until_stopped(max_running_jobs=1)
    assert isinstance(stopped.error, InsufficientCreditsError)
    assert "3 songs are left to submit and 0 to wait for: " in str(stopped)
    assert len(submits(emulator)) == 1
    emulator.clear_faults()
    assert await run.states() == dict.fromkeys(SONGS, "kept")


async def test_running_songs_are_finished_before_the_run_stops(emulator, run):
    """If the credits end, songs that were submitted before are still kept."""
    refuse(emulator, 402, after=2, rate=1.0)
    stopped, outcomes = await run.until_stopped(["a", "b", "c", "d"], max_running_jobs=2)
    assert stopped.wanted >= 1
    states = sorted(each.song.state.value for each in outcomes.values())
    assert states[:2] == ["kept", "kept"]
    assert set(states[2:]) == {"wanted"}
