"""Crashes, cancellations and full disks: no song is submitted twice, and none is lost."""

import asyncio
import json
import math
import time

import pytest
from support.cancellation import CancelledAt, cancel_at_each_await, leaked_state
from support.songs import CALLBACK, refuse, submits

from kie_cover_async import AuthenticationError, RateLimiter
from kie_cover_async.emulator import Fault
from kie_cover_async.jobs import make_covers, submit
from kie_cover_async.jobs.submit import SubmitAttempt
from kie_cover_async.transport import limits


class Crash(BaseException):
    """The process ends here."""


class CrashPlan:
    """Crash at the step with this number; whatever the dead process does later fails, too."""

    def __init__(self, at):
        self.at, self.steps = at, 0

    @property
    def has_crashed(self):
        return self.steps > self.at

    def step(self):
        self.steps += 1
        if self.has_crashed:
            raise Crash


class Crashing:
    """An archive or a ledger, of which each call is a step before it and one after it."""

    def __init__(self, target, plan):
        self._target, self._plan = target, plan

    @property
    def ledger(self):
        return Crashing(self._target.ledger, self._plan)

    def __getattr__(self, name):
        async def call(*args, **settings):
            self._plan.step()
            result = await getattr(self._target, name)(*args, **settings)
            self._plan.step()
            return result

        return call


class Failing:
    """A ledger of which one method fails so many times before it works."""

    def __init__(self, ledger, method, failures):
        self._ledger, self._method, self._failures = ledger, method, failures
        self.calls = 0

    def __getattr__(self, name):
        return getattr(self._ledger, name) if name != self._method else self._call

    async def _call(self, *args, **settings):
        self.calls += 1
        if self.calls <= self._failures:
            raise OSError("the disk is full")
        return await getattr(self._ledger, self._method)(*args, **settings)


async def crash(run, song, at):
    """Run a song until the step with this number; return whether that step was reached."""
    plan = CrashPlan(at)
    stream = make_covers(run.client, Crashing(run.archive, plan), [song], callback_url=CALLBACK)
    try:
        async with asyncio.timeout(10):
            [_ async for _ in stream]
    except Crash:
        pass
    await stream.aclose()
    await run.archive.aclose()
    return plan.has_crashed


async def test_crash_at_any_step_loses_and_repeats_nothing(emulator, begin):
    """A song is kept by the next run, or in doubt if the crash came between claim and id."""
    ends = []
    is_reached = True
    while is_reached:
        song = f"song-{len(ends)}"
        is_reached = await crash(await begin(), song, len(ends))
        ends.append((await (await begin()).states([song]))[song])
        accepted = submits(emulator).count(song)
        assert accepted == 1 or (accepted == 0 and ends[-1] == "in_doubt"), ends
    doubts = [n for n, state in enumerate(ends) if state == "in_doubt"]
    assert len(ends) > 12
    assert {*ends} == {"kept", "in_doubt"}
    # After the claim was committed, and before the id was.
    assert len(doubts) == 2
    assert doubts[1] - doubts[0] == 1


@pytest.mark.parametrize("method", ["run", "_claim"])
async def test_cancellation_within_a_submit_loses_nothing(emulator, begin, monkeypatch, method):
    """A job that is cancelled at any await of its submit gives the claim back, or has the id."""
    original = getattr(SubmitAttempt, method)
    run = await begin()
    songs = []

    async def run_cancelled(moment, wait):
        songs.append(song := f"song-{len(songs)}")
        await run.ledger.want([song])
        task = asyncio.create_task(run.job().run(song))

        class OuterCancelledAt(CancelledAt):
            def _interrupt(self, _, awaited):
                super()._interrupt(task, awaited)

        points = []

        def interrupted(attempt):
            points.append(OuterCancelledAt(wait, moment, original(attempt)))
            return points[-1].run()

        monkeypatch.setattr(SubmitAttempt, method, interrupted)
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        monkeypatch.setattr(SubmitAttempt, method, original)
        assert isinstance(outcome, asyncio.CancelledError) == points[0].interrupted, outcome
        assert not any(leaked_state(run.client).values()), leaked_state(run.client)
        received = submits(emulator).count(song)
        states = ("wanted",) if not received else ("submitted", "kept")
        assert await run.state(song) in states
        assert (await run.states([song]))[song] == "kept"
        assert submits(emulator).count(song) == 1
        return points[0]

    await cancel_at_each_await(run_cancelled, at_least=1)


async def test_cancelled_job_leaves_nothing(emulator, run):
    """A job that is cancelled at any of its own awaits leaves a song that the next run keeps."""
    songs = []

    async def run_cancelled(moment, wait):
        songs.append(song := f"song-{len(songs)}")
        await run.ledger.want([song])
        cancelled = CancelledAt(wait, moment, run.job().run(song))
        [outcome] = await asyncio.gather(cancelled.run(), return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError) == cancelled.interrupted, outcome
        assert not any(leaked_state(run.client).values()), leaked_state(run.client)
        assert await run.state(song) in ("wanted", "submitted", "kept")
        assert (await run.states([song]))[song] == "kept"
        assert submits(emulator).count(song) == 1
        return cancelled

    await cancel_at_each_await(run_cancelled, at_least=5)


async def test_second_cancellation_abandons_the_submit(emulator, run, eventually):
    """A submit that does not end is in doubt after the second cancellation."""
    emulator.fault(Fault.stall(), endpoint="submit")
    await run.ledger.want(["a"])
    task = asyncio.create_task(run.job().run("a"))
    await eventually(lambda: submits(emulator))
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    assert await run.state("a") == "submitting"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await run.ledger.find("a")
    assert found.state == "in_doubt"
    assert found.reason == "CancelledError during the submit"


async def interrupt(emulator, run, eventually, times):
    """Cancel a run of five songs in the middle of its submits; return the songs that were sent."""
    songs = [f"song-{n}" for n in range(5)]

    async def consume():
        async with run.stream(songs, max_running_jobs=3) as stream:
            await anext(stream)

    task = asyncio.create_task(consume())
    await eventually(lambda: len(submits(emulator)) == 3)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.02)
    with pytest.raises(asyncio.CancelledError):
        await task
    return songs, set(submits(emulator))


async def test_run_that_is_cancelled_once_keeps_all_ids(emulator, begin, eventually):
    """Submits in flight are answered, no other song is claimed, and the next run keeps all."""
    run = await begin()
    emulator.fault(Fault.slow(0.2), endpoint="submit", rate=1.0)
    songs, sent = await interrupt(emulator, run, eventually, 1)
    states = {song: await run.state(song) for song in songs}
    assert {song for song in songs if states[song] == "submitted"} == sent
    assert len(sent) == 3
    assert {*states.values()} <= {"submitted", "wanted", None}
    assert await run.states(songs) == dict.fromkeys(songs, "kept")
    assert sorted(submits(emulator)) == songs


async def test_run_that_is_cancelled_twice_leaves_doubts(emulator, begin, eventually):
    """Submits in flight are abandoned, and no run submits their songs again."""
    run = await begin()
    emulator.fault(Fault.stall(), endpoint="submit", count=3)
    songs, sent = await interrupt(emulator, run, eventually, 2)
    assert {song for song in songs if await run.state(song) == "in_doubt"} == sent
    states = await run.states(songs)
    assert states == {song: "in_doubt" if song in sent else "kept" for song in songs}
    assert sorted(submits(emulator)) == songs


async def test_full_disk_in_the_middle_of_a_run(emulator, begin, monkeypatch):
    """The run ends with the error; the next one submits no song twice, and loses none."""
    monkeypatch.setattr(submit, "_MIN_PAUSE", 0.02)
    run = await begin()
    songs = [f"{number:040}" for number in range(60)]
    await run.ledger.want(songs)

    def limit_pages(database):
        [used] = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {used + 3}").fetchone()

    await run.archive._query(limit_pages)
    with pytest.raises(OSError, match="disk is full"):
        await run.outcomes(songs)
    before = submits(emulator)
    assert 0 < len(before) < len(songs)
    await run.archive.aclose()
    states = await (await begin()).states(songs)
    assert set(states.values()) <= {"kept", "in_doubt"}
    assert all(song in before for song in songs if states[song] == "in_doubt")
    assert sorted(submits(emulator)) == songs


async def test_client_closed_during_a_submit_leaves_a_doubt(emulator, run, eventually):
    """If the client is closed before the answer came, the song is in doubt."""
    emulator.fault(Fault.stall(), endpoint="submit")
    task = asyncio.create_task(run.outcomes(["a"]))
    await eventually(lambda: submits(emulator))
    await run.client.aclose()
    await asyncio.gather(task, return_exceptions=True)
    assert await run.state("a") == "in_doubt"


@pytest.mark.parametrize("clock", ["loop", "wall"])
async def test_claim_that_is_too_old_is_given_back(emulator, run, monkeypatch, clock):
    """If the process was frozen after the claim, nothing is sent, and the song is wanted."""
    claims = []

    class Slow(Failing):
        async def _call(self, *args):
            claim = await self._ledger.claim(*args)
            claims.append(claim)
            if len(claims) == 1 and clock == "loop":
                time.sleep(0.1)  # noqa: ASYNC251 - the process is frozen
            elif len(claims) == 1:
                monkeypatch.setattr(time, "time", lambda now=time.time: now() + 60)
            return claim

    monkeypatch.setattr(submit, "_MAX_CLAIM_AGE", 0.08 if clock == "loop" else 30.0)
    await run.ledger.want(["a"])
    outcome = await run.job(Slow(run.ledger, "claim", 0)).run("a")
    assert outcome.song.attempt == len(claims) == 2
    assert submits(emulator) == ["a"]


class Expiry:
    """The time when a slot is old, which is now at the first check after `is_old` was set."""

    is_old = False

    def get(self):
        was_old, self.is_old = self.is_old, False
        return -math.inf if was_old else math.inf


@pytest.mark.parametrize("slow_claims", [1, 3, 9])
async def test_old_slot_is_not_used(emulator, run, monkeypatch, slow_claims):
    """After a slow claim the song is given back and queues again, three times at most."""
    expiry = Expiry()
    monkeypatch.setattr(submit, "SLOT_EXPIRES_AT", expiry)

    class Slow(Failing):
        async def _call(self, *args):
            self.calls += 1
            claim = await self._ledger.claim(*args)
            expiry.is_old = self.calls <= slow_claims
            return claim

    ledger = Slow(run.ledger, "claim", 0)
    await run.ledger.want(["a"])
    outcome = await run.job(ledger).run("a")
    assert outcome.ok
    assert ledger.calls == outcome.song.attempt == min(slow_claims, 3) + 1
    assert submits(emulator) == ["a"]


async def test_slow_connection_uses_up_no_claim(emulator, run, monkeypatch):
    """If the slot is old before the claim, the song stays wanted until the last attempt."""
    monkeypatch.setattr("kie_cover_async.transport.transport.MIN_SLOT_AGE", -1.0)
    outcome = (await run.outcomes(["a"]))["a"]
    assert (outcome.ok, outcome.song.attempt) == (True, 1)
    assert submits(emulator) == ["a"]


@pytest.mark.parametrize(("limit", "age"), [((1, 5.0), 5.0), ((100, 1.0), 0.5)])
async def test_slot_is_old_after_an_interval_or_half_a_second(begin, limit, age):
    """The longer of both counts, from when the slot was taken."""
    number, per = limit
    run = await begin(submit_rate_limiter=RateLimiter(number, per=per))
    expiries, now = [], asyncio.get_running_loop().time
    begun_at = now()
    await run.client.generate_cover(
        "a",
        callback_url=CALLBACK,
        on_sending=lambda: expiries.append(limits.SLOT_EXPIRES_AT.get()),
    )
    assert begun_at + age <= expiries[0] <= now() + age


async def test_id_that_cannot_be_stored_is_logged_and_stored_later(
    emulator, run, monkeypatch, caplog, eventually
):
    """While the disk is full no other song is claimed; then the id is stored."""
    monkeypatch.setattr(submit, "_MIN_PAUSE", 0.02)
    ledger = Failing(run.ledger, "record_id", 2)
    await run.ledger.want(["a", "b"])
    job = run.job(ledger)
    first = asyncio.create_task(job.run("a"))
    await eventually(lambda: ledger.calls)
    second = asyncio.create_task(job.run("b"))
    assert [each.ok for each in await asyncio.gather(first, second)] == [True, True]
    assert ledger.calls == 4
    assert submits(emulator) == ["a", "b"]
    line = json.loads(caplog.records[0].getMessage().partition(": ")[2])
    assert line["song"] == "a"
    assert line["taskId"] == (await run.ledger.find("a")).task_id


async def test_refusal_of_another_song_does_not_abandon_an_id(run, monkeypatch, eventually):
    """A run that is stopped while an id cannot be stored still stores it."""
    monkeypatch.setattr(submit, "_MIN_PAUSE", 0.02)
    ledger = Failing(run.ledger, "record_id", 3)
    await run.ledger.want(["a"])
    job = run.job(ledger)
    task = asyncio.create_task(job.run("a"))
    await eventually(lambda: ledger.calls)
    job.submits.stop(AuthenticationError(code=401))
    assert (await task).ok


async def test_id_that_cannot_be_stored_at_the_end_is_logged(run, monkeypatch, caplog, eventually):
    """A job that is cancelled while the disk is full raises its error, and the id is logged."""
    monkeypatch.setattr(submit, "_MIN_PAUSE", 0.02)
    ledger = Failing(run.ledger, "record_id", 99)
    await run.ledger.want(["a"])
    task = asyncio.create_task(run.job(ledger).run("a"))
    await eventually(lambda: ledger.calls == 2)
    task.cancel()
    with pytest.raises(OSError, match="the disk is full"):
        await task
    assert await run.state("a") == "in_doubt"
    assert '"song": "a"' in caplog.text


class Blocked:
    """A ledger of which one method waits until it may run."""

    def __init__(self, ledger, method):
        self._ledger, self._method = ledger, method
        self.is_reached, self.may_run = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name):
        return getattr(self._ledger, name) if name != self._method else self._call

    async def _call(self, *args, **settings):
        self.is_reached.set()
        await self.may_run.wait()
        return await getattr(self._ledger, self._method)(*args, **settings)


async def test_cancelling_does_not_stop_the_end_of_a_claim(emulator, run, eventually):
    """A claim that is being given back does not stay until this process ends."""
    refuse(emulator, 429)
    ledger = Blocked(run.ledger, "release")
    await run.ledger.want(["a"])
    task = asyncio.create_task(run.job(ledger).run("a"))
    await ledger.is_reached.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.wait([task], timeout=0.01)
    ledger.may_run.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        while await run.state("a") != "wanted":  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


async def test_cancelling_while_an_error_is_noted_ends_the_wait(emulator, begin):
    """Another process can wait for the song, although this one lives."""
    run, other = await begin(), await begin()
    task_id = emulator.add_job("generating", music_task_id="a")
    await run.ledger.want(["a"])
    await run.ledger.record_id("a", task_id, run.client.api)
    ledger = Blocked(run.ledger, "postpone")
    task = asyncio.create_task(run.job(ledger, timeout=0).run("a"))
    await ledger.is_reached.wait()
    task.cancel()
    await asyncio.wait([task])
    assert await other.ledger.start_wait("a", task_id)


async def test_claim_that_cannot_be_stored_sends_nothing(emulator, run):
    """If the claim cannot be committed, the error is raised, and nothing was sent."""
    await run.ledger.want(["a"])
    with pytest.raises(OSError, match="the disk is full"):
        await run.job(Failing(run.ledger, "claim", 1)).run("a")
    assert submits(emulator) == []
    assert await run.state("a") == "wanted"


async def test_song_must_be_in_the_ledger(run):
    """A job runs songs of the ledger only."""
    with pytest.raises(LookupError, match="song a is not in the ledger"):
        await run.job().run("a")


async def test_song_is_not_claimed_while_an_id_is_not_stored(begin, emulator, monkeypatch):
    """A submit that was queued when the disk became full is not sent before it has space."""
    monkeypatch.setattr(submit, "_MIN_PAUSE", 0.05)
    run = await begin(max_concurrent_submits=1)
    ledger = Failing(run.ledger, "record_id", 1)
    await run.ledger.want(["a", "b"])
    job = run.job(ledger)
    outcomes = await asyncio.gather(job.run("a"), job.run("b"))
    assert [each.ok for each in outcomes] == [True, True]
    assert [each.song.attempt for each in outcomes] == [1, 1]
    assert submits(emulator) == ["a", "b"]


async def test_nothing_is_submitted_after_a_stop(emulator, run):
    """A submit that begins when the run was stopped returns the error that stopped it."""
    job = run.job()
    job.stop(error := AuthenticationError(code=401))
    assert await job.submits.submit("a", CALLBACK) is error
    assert not emulator.requests
