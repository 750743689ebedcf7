"""Callbacks to a run: before, after and instead of the answer to a submit."""

import asyncio
import json

import pytest
from support.songs import submits

from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.jobs import stream


@pytest.fixture
def inbox():
    return CallbackInbox(fallback_poll_interval=0.05)


@pytest.fixture
async def run(begin, inbox):
    return await begin(inbox=inbox)


async def endless():
    """Songs that may still come."""
    yield await asyncio.Event().wait()


def call_back(inbox, task_id, song=None):
    inbox.receive({}, json.dumps({"data": {"taskId": task_id}}), song)


@pytest.fixture
async def doubtful(emulator, run):
    """The ids of the jobs of two songs in doubt."""
    emulator.fault(Fault.reset(), endpoint="submit", count=2)
    assert await run.states(["a", "b"]) == {"a": "in_doubt", "b": "in_doubt"}
    return dict(emulator._service.songs)


async def test_callback_instead_of_the_answer_ends_the_doubt(emulator, run, inbox, eventually):
    """A song whose answer was lost is kept in the same run, after one submit."""
    emulator.fault(Fault.reset(), endpoint="submit")
    running = asyncio.create_task(run.outcomes(["a"], inbox=inbox))
    await eventually(lambda: "a" in emulator._service.songs)
    await asyncio.sleep(0.1)
    assert await run.state("a") == "in_doubt"
    call_back(inbox, emulator._service.songs["a"])
    assert (await running)["a"].ok
    assert submits(emulator) == ["a"]


async def test_callback_after_the_answer_ends_the_wait(emulator, begin, eventually):
    """The wait polls when it comes, long before the next poll is due."""
    inbox = CallbackInbox(fallback_poll_interval=60.0)
    run = await begin(inbox=inbox)
    emulator.script_song("a", CoverScript(statuses=["generating", "success"]))
    running = asyncio.create_task(run.outcomes(["a"], inbox=inbox))
    await eventually(lambda: len(emulator.requests) == 2)
    call_back(inbox, emulator._service.songs["a"])
    assert (await running)["a"].ok
    assert submits(emulator) == ["a"]


async def test_callback_before_the_answer_changes_nothing(emulator, run, inbox, eventually):
    """If the callback overtakes the answer, the song is kept once."""
    emulator.script_song("a", CoverScript(statuses=["success"]))
    emulator.fault(Fault.slow(0.3), endpoint="submit")
    running = asyncio.create_task(run.outcomes(["a"], inbox=inbox))
    await eventually(lambda: "a" in emulator._service.songs)
    call_back(inbox, emulator._service.songs["a"])
    assert (await running)["a"].ok
    assert submits(emulator) == ["a"]


async def test_callback_that_came_before_the_run_is_confirmed(emulator, run, inbox):
    """A song in doubt that is not in the input is kept if its callback came before the run."""
    emulator.fault(Fault.reset(), endpoint="submit")
    assert await run.states(["a"]) == {"a": "in_doubt"}
    call_back(inbox, emulator._service.songs["a"])
    assert await run.states(["b"], inbox=inbox) == {"a": "kept", "b": "kept"}
    assert submits(emulator) == ["a", "b"]


async def test_callback_that_was_stored_before_a_kill_is_confirmed(
    emulator, run, inbox, doubtful, eventually
):
    """A run that ends between the answer to a callback and its poll leaves it to the next run."""
    emulator.fault(Fault.stall(), endpoint="poll", rate=1.0)
    async with run.stream(endless(), inbox=inbox) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await eventually(lambda: inbox._unknown_listeners)
        await inbox.receive_and_store({}, {"data": {"taskId": doubtful["a"]}})
        waiting.cancel()
    emulator.clear_faults()
    assert await run.states([]) == {"a": "kept"}
    assert await run.ledger.candidates(run.client.api) == []


async def test_callback_that_cannot_be_stored_is_received_again(
    run, inbox, doubtful, eventually, monkeypatch
):
    """The error reaches the sender, and the repetition ends the doubt."""
    body = {"data": {"taskId": doubtful["a"]}}

    async def fail(_):
        raise OSError("the disk is full")

    async with run.stream(endless(), inbox=inbox) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await eventually(lambda: inbox._unknown_listeners)
        with monkeypatch.context() as patch:
            patch.setattr(run.ledger, "add_candidate", fail)
            with pytest.raises(OSError, match="the disk is full"):
                await inbox.receive_and_store({}, body)
        assert await run.state("a") == "in_doubt"
        await inbox.receive_and_store({}, body)
        assert (await waiting).ok


async def test_too_many_callbacks_are_refused(emulator, run, inbox, eventually, monkeypatch):
    """While as many as allowed wait for their polls, a further one must be repeated."""
    monkeypatch.setattr(stream, "_MAX_CONFIRMATIONS", 1)
    emulator.fault(Fault.stall(), endpoint="poll", rate=1.0)
    async with run.stream(endless(), inbox=inbox) as running:
        waiting = asyncio.ensure_future(anext(running))
        await eventually(lambda: inbox._unknown_listeners)
        await inbox.receive_and_store({}, {"data": {"taskId": "x"}})
        with pytest.raises(OSError, match="too many callbacks are waiting"):
            await inbox.receive_and_store({}, {"data": {"taskId": "y"}})
        waiting.cancel()
    assert [each.task_id for each in await run.ledger.candidates(run.client.api)] == ["x"]


async def test_callback_that_cannot_be_confirmed_is_logged(emulator, run, inbox, caplog):
    """A callback with an id that the API does not know is logged, and ends nothing."""
    call_back(inbox, "0" * 32)
    assert await run.states(["a"], inbox=inbox) == {"a": "kept"}
    assert f"the callback for cover {'0' * 32} could not be confirmed" in caplog.text


async def test_callback_for_a_stranger_is_ignored(emulator, run, inbox):
    """A callback for a song that is not in the ledger changes nothing."""
    call_back(inbox, emulator.add_job("success", music_task_id="stranger"))
    assert await run.states(["a"], inbox=inbox) == {"a": "kept"}


async def test_doubt_ends_with_its_time(emulator, run, inbox, monkeypatch):
    """If no callback comes in time, the song is yielded in doubt."""
    monkeypatch.setattr(stream, "_CALLBACK_TIMEOUT", 0.2)
    emulator.fault(Fault.reset(accepted=False), endpoint="submit")
    assert await run.states(["a"], inbox=inbox) == {"a": "in_doubt"}


async def test_stream_that_ends_stops_receiving(emulator, run, inbox, eventually):
    """A run that is left early polls no callback any more."""
    emulator.script_song("a", CoverScript(end="never"))
    emulator.fault(Fault.stall(), endpoint="poll", rate=1.0)
    async with run.stream(["a"], inbox=inbox) as running:
        waiting = asyncio.ensure_future(anext(running))
        await eventually(lambda: submits(emulator))
        call_back(inbox, "0" * 32)
        await eventually(lambda: emulator.poll_count("0" * 32))
        waiting.cancel()
    call_back(inbox, "1" * 32)
    await asyncio.sleep(0.05)
    assert emulator.poll_count("1" * 32) == 0


async def test_callback_at_the_songs_own_url_is_enough_without_a_parent(
    emulator, run, inbox, doubtful
):
    """If the record names no parent, the song of the URL is kept; a plain callback is not."""
    emulator.fault(Fault.remove("data.parentTaskId"), endpoint="poll", rate=1.0)
    call_back(inbox, doubtful["a"], "a")
    call_back(inbox, doubtful["b"])
    assert await run.states([], inbox=inbox) == {"a": "kept"}
    assert await run.state("b") == "in_doubt"


async def test_parent_of_the_record_wins_over_the_song_of_the_url(emulator, run, inbox, doubtful):
    """A callback at the URL of another song settles its own, and the other stays as it is."""
    before = await run.ledger.find("b")
    call_back(inbox, doubtful["a"], "b")
    assert await run.states([], inbox=inbox) == {"a": "kept"}
    assert await run.ledger.find("b") == before


async def test_callback_alone_changes_no_state(emulator, run, inbox, doubtful, eventually):
    """Until a poll has confirmed it, the song stays in doubt."""
    emulator.fault(Fault.stall(), endpoint="poll", rate=1.0)
    call_back(inbox, doubtful["a"], "a")
    async with run.stream([], inbox=inbox) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await eventually(lambda: emulator.poll_count(doubtful["a"]))
        assert await run.state("a") == "in_doubt"
        waiting.cancel()


async def test_song_that_is_next_has_one_outcome(emulator, run, inbox, doubtful, eventually):
    """A callback that ends the doubt about a song just before its turn leaves it in its turn."""
    emulator.script_song("first", CoverScript(end="never"))
    songs = ["first", "a"]
    running = asyncio.create_task(run.outcomes(songs, inbox=inbox, max_running_jobs=1))
    await eventually(lambda: "first" in emulator._service.songs)
    call_back(inbox, doubtful["a"])
    while await run.state("a") != "submitted":  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)
    emulator._service.jobs[emulator._service.songs["first"]].script = CoverScript()
    outcomes = await running
    assert outcomes["first"].ok
    assert outcomes["a"].ok
