"""What every implementation of `Ledger` must do: a class of tests to inherit from.

A subclass has a fixture `store`, an object with the attributes of `LedgerStore`.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from pkgutil import resolve_name

import pytest
from attrs import frozen

from kie_cover_async.errors import CoverFailedError
from kie_cover_async.ledger import (
    Api,
    Candidate,
    Claim,
    Ledger,
    SettlementError,
    Song,
    SongState,
    Trouble,
)
from kie_cover_async.models import CoverDetails

PROCESS = Path(__file__).with_name("ledger_process.py")
SUNO = Api(route="suno", origin="https://api.kie.ai")
MARKET = Api(route="market", origin="https://api.example.com")
FAILED = CoverFailedError(details=CoverDetails(task_id="t", success_flag=3))
WANTED, SUBMITTING, SUBMITTED, IN_DOUBT, GIVEN_UP, KEPT = SongState


def all_but(*states: SongState) -> list[SongState]:
    return [state for state in SongState if state not in states]


async def _nothing(*_: str) -> None:
    """Leave everything as it is."""


@frozen
class LedgerStore:
    """A place for a ledger: `opener`, as `module:function`, opens it by `argument`.

    `store_images` puts the images of an id where `keep` expects them, and `expire` makes the time
    pass after which a process that says nothing counts as dead.
    """

    opener: str
    argument: str
    store_images: Callable[[str], Awaitable[None]] = _nothing
    expire: Callable[[], Awaitable[None]] = _nothing


class LedgerContract:
    """The tests of every ledger."""

    @pytest.fixture
    async def opened(self, store: LedgerStore) -> AsyncIterator[Callable[[], Awaitable[Ledger]]]:
        async with AsyncExitStack() as stack:
            yield lambda: stack.enter_async_context(resolve_name(store.opener)(store.argument))

    @pytest.fixture
    async def ledger(self, opened: Callable[[], Awaitable[Ledger]]) -> Ledger:
        return await opened()

    @pytest.fixture
    async def start(self, store: LedgerStore) -> AsyncIterator[Callable[..., Awaitable[Process]]]:
        """A function that starts `ledger_process.py`."""
        running = []

        async def start(*arguments: str) -> Process:
            command = (sys.executable, PROCESS, store.opener, store.argument, *arguments)
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
            running.append(process)
            return process

        yield start
        for process in running:
            await process.communicate(b"")

    @pytest.fixture
    def in_state(self, ledger, store):
        """A function that creates the song `s` in a state; with an id, that is `t`."""

        async def in_state(state: SongState) -> Claim | None:
            await ledger.want(["s"])
            claim = None if state is WANTED else await ledger.claim("s", SUNO)
            if state in {IN_DOUBT, GIVEN_UP}:
                await ledger.release(claim, state, "why")
            if state in {SUBMITTED, KEPT}:
                await ledger.record_id("s", "t", SUNO)
            if state is KEPT:
                await store.store_images("t")
                await ledger.keep("t")
            assert (await ledger.find("s")).state is state
            return claim

        return in_state

    async def test_a_new_song_is_wanted(self, ledger):
        """A song that is given twice is one row, and `want` returns the new ones in order."""
        assert await ledger.want(["b", "a", "b"]) == ["b", "a"]
        assert await ledger.want(iter(["a", "c"])) == ["c"]
        song = await ledger.find("b")
        expected = Song(
            music_task_id="b",
            position=song.position,
            state=WANTED,
            added_at=song.added_at,
            changed_at=song.changed_at,
        )
        assert song == expected
        assert await ledger.find("unknown") is None

    @pytest.mark.parametrize("state", SongState)
    async def test_a_known_song_stays_as_it_is(self, ledger, in_state, state):
        """`want` changes no row."""
        await in_state(state)
        before = await ledger.find("s")
        assert await ledger.want(["s"]) == []
        assert await ledger.find("s") == before

    async def test_a_claim_says_which_api_and_who(self, ledger, in_state):
        """The row has the claim, and the route and origin of its client."""
        claim = await in_state(SUBMITTING)
        song = await ledger.find("s")
        assert (song.claimed_by, song.attempt, song.api) == (claim.claimed_by, 1, SUNO)
        assert claim.attempt == 1
        assert song.claimed_at == song.changed_at

    @pytest.mark.parametrize("state", all_but(WANTED))
    async def test_only_a_wanted_song_is_claimed(self, ledger, opened, in_state, state):
        """Neither this ledger nor another one claims a song in another state."""
        await in_state(state)
        before = await ledger.find("s")
        assert await ledger.claim("s", MARKET) is None
        assert await (await opened()).claim("s", MARKET) is None
        assert await ledger.claim("unknown", MARKET) is None
        assert await ledger.find("s") == before

    async def test_a_released_song_is_wanted_on_any_api(self, ledger, in_state):
        """Route and origin are cleared, and the next claim has the next attempt."""
        claim = await in_state(SUBMITTING)
        assert await ledger.release(claim, reason="429")
        song = await ledger.find("s")
        assert (song.state, song.api, song.reason) == (WANTED, None, "429")
        assert (await ledger.claim("s", MARKET)).attempt == 2
        assert (await ledger.find("s")).api == MARKET

    @pytest.mark.parametrize("state", [GIVEN_UP, IN_DOUBT])
    async def test_a_claim_ends_with_a_reason(self, ledger, in_state, state):
        """A refused song fails, and one that may have been accepted is in doubt."""
        claim = await in_state(SUBMITTING)
        assert await ledger.release(claim, state, "422: no such song")
        song = await ledger.find("s")
        assert (song.state, song.reason, song.api) == (state, "422: no such song", SUNO)

    async def test_only_the_same_claim_is_released(self, ledger, opened, in_state):
        """A claim that was released, or whose song has an id, changes nothing."""
        first = await in_state(SUBMITTING)
        assert await ledger.release(first)
        second = await (await opened()).claim("s", SUNO)
        for state in (WANTED, GIVEN_UP, IN_DOUBT):
            assert not await ledger.release(first, state)
        assert (await ledger.find("s")).state is SUBMITTING
        await ledger.record_id("s", "t", SUNO)
        assert not await ledger.release(second, IN_DOUBT)
        assert (await ledger.find("s")).state is SUBMITTED

    async def test_a_claim_is_released_to_three_states(self, ledger, in_state):
        """Any other state is an error."""
        claim = await in_state(SUBMITTING)
        with pytest.raises(ValueError, match="state must be one of wanted, failed, in_doubt"):
            await ledger.release(claim, KEPT)

    @pytest.mark.parametrize("state", all_but(SUBMITTED, KEPT))
    async def test_an_id_makes_a_song_submitted(self, ledger, in_state, state):
        """No claim is needed: the answer may be late, or a callback may bring it."""
        await in_state(state)
        song = await ledger.record_id("s", "t", MARKET)
        assert song == await ledger.find("s")
        assert (song.state, song.task_id, song.other_ids) == (SUBMITTED, "t", ())
        assert (song.api, song.reason) == (MARKET, None)

    @pytest.mark.parametrize("state", [SUBMITTED, KEPT])
    async def test_a_second_id_is_stored_and_changes_nothing_else(self, ledger, in_state, state):
        """The same id again is a no-op, and another one goes to `other_ids`."""
        await in_state(state)
        before = await ledger.find("s")
        assert await ledger.record_id("s", "t", SUNO) == before
        after = await ledger.record_id("s", "u", MARKET)
        assert (after.state, after.task_id, after.other_ids) == (state, "t", ("u",))
        assert after.api == SUNO

    async def test_an_id_of_an_unknown_song_is_not_stored(self, ledger):
        """The ledger has no row for it."""
        assert await ledger.record_id("unknown", "t", SUNO) is None
        assert await ledger.page() == []

    async def test_a_failed_id_changes_nothing_unless_it_is_confirmed(self, ledger, in_state):
        """A poll that shows success makes the song submitted again."""
        await in_state(SUBMITTED)
        await ledger.mark_failed("t", FAILED)
        before = await ledger.find("s")
        assert await ledger.record_id("s", "t", SUNO) == before
        assert before.state is GIVEN_UP
        assert (await ledger.record_id("s", "t", SUNO, is_confirmed=True)).state is SUBMITTED

    async def test_a_song_fails_if_every_id_failed(self, ledger, in_state):
        """The song waits for the next id that is not known to have failed."""
        await in_state(SUBMITTED)
        await ledger.record_id("s", "u", MARKET)
        await ledger.mark_failed("t", FAILED)
        song = await ledger.find("s")
        assert (song.state, song.task_id, song.other_ids) == (SUBMITTED, "u", ("t",))
        assert song.api == MARKET
        await ledger.mark_failed("u", FAILED)
        song = await ledger.find("s")
        assert (song.state, song.task_id) == (GIVEN_UP, "u")
        assert song.reason.startswith("CoverFailedError: ")

    async def test_another_id_that_fails_changes_no_song(self, ledger, in_state):
        """The song waits for its own id."""
        await in_state(SUBMITTED)
        await ledger.record_id("s", "u", SUNO)
        await ledger.mark_failed("u", FAILED)
        await ledger.mark_failed("of no song", FAILED)
        assert (await ledger.find("s")).task_id == "t"

    async def test_an_id_that_is_not_there_puts_the_song_in_doubt(self, ledger, in_state):
        """The same id, when it appears, makes it submitted again."""
        await in_state(SUBMITTED)
        assert await ledger.mark_in_doubt("s", "t", "not there for 24 h")
        song = await ledger.find("s")
        assert (song.state, song.task_id, song.reason) == (IN_DOUBT, "t", "not there for 24 h")
        assert not await ledger.mark_in_doubt("s", "t", "again")
        assert (await ledger.record_id("s", "t", SUNO)).state is SUBMITTED

    async def test_a_wrong_id_puts_the_song_in_doubt(self, ledger, in_state, store):
        """It goes to `other_ids`, and neither it nor its images become the song's."""
        await in_state(SUBMITTED)
        assert await ledger.mark_in_doubt("s", "t", "of another song", is_wrong=True)
        song = await ledger.find("s")
        assert (song.state, song.task_id, song.other_ids) == (IN_DOUBT, None, ("t",))
        assert await ledger.record_id("s", "t", SUNO) == song
        await store.store_images("t")
        await ledger.keep("t")
        assert await ledger.find("s") == song
        assert (await ledger.record_id("s", "u", SUNO)).state is SUBMITTED
        assert (await ledger.record_id("s", "t", SUNO, is_confirmed=True)).state is KEPT

    async def test_a_song_with_a_wrong_id_waits_for_another_one(self, ledger, in_state):
        """The other id may still succeed."""
        await in_state(SUBMITTED)
        await ledger.record_id("s", "u", MARKET)
        assert not await ledger.mark_in_doubt("s", "u", "not the current one")
        assert await ledger.mark_in_doubt("s", "t", "of another song", is_wrong=True)
        song = await ledger.find("s")
        assert (song.state, song.task_id, song.other_ids) == (SUBMITTED, "u", ("t",))

    @pytest.mark.parametrize("state", all_but(SUBMITTED))
    async def test_only_a_submitted_song_is_put_in_doubt_or_postponed(
        self, ledger, in_state, state
    ):
        """Any other song stays as it is."""
        await in_state(state)
        before = await ledger.find("s")
        assert not await ledger.mark_in_doubt("s", "t", "why", is_wrong=True)
        assert not await ledger.postpone("s", "t", 1.0)
        await ledger.mark_failed("t", FAILED)
        assert await ledger.find("s") == before

    async def test_a_postponed_song_is_not_due(self, ledger, in_state):
        """It stays submitted, and a list of due songs omits it until its time."""
        await in_state(SUBMITTED)
        assert await ledger.postpone("s", "t", 900.0)
        song = await ledger.find("s")
        assert 890 < (song.due_at - song.changed_at).total_seconds() < 910
        assert await ledger.page(SUBMITTED, due=True) == []
        assert await ledger.page(SUBMITTED) == [song]
        assert await ledger.postpone("s", "t", 0.0)
        assert len(await ledger.page(SUBMITTED, due=True)) == 1

    async def test_trouble_is_counted_while_it_stays_the_same(self, ledger, in_state):
        """Another trouble starts the count and the time again, and a new wait forgets it."""
        await in_state(SUBMITTED)
        for trouble, count in ((Trouble.GONE, 1), (Trouble.GONE, 2), (Trouble.MISSING, 1)):
            before = await ledger.find("s")
            assert await ledger.postpone("s", "t", 1.0, trouble)
            song = await ledger.find("s")
            assert (song.trouble, song.trouble_count) == (trouble, count)
            assert (song.trouble_since == before.trouble_since) == (count == 2)
        await ledger.mark_in_doubt("s", "t", "why")
        song = await ledger.record_id("s", "t", SUNO)
        assert (song.trouble, song.trouble_count, song.trouble_since) == (None, 0, None)

    async def test_one_process_waits_for_a_song(self, ledger, opened, in_state):
        """Another one can wait once the first does not any more, or the song is postponed."""
        await in_state(SUBMITTED)
        other = await opened()
        for end in (ledger.end_wait("s"), ledger.postpone("s", "t", 0.0)):
            assert await ledger.start_wait("s", "t")
            assert await ledger.start_wait("s", "t")
            assert not await other.start_wait("s", "t")
            await other.end_wait("s")
            assert not await other.start_wait("s", "t")
            await end
            assert await other.start_wait("s", "t")
            assert not await ledger.start_wait("s", "t")
            await other.end_wait("s")

    async def test_another_id_of_a_song_can_be_waited_for(self, ledger, opened, in_state):
        """The wait for an id ends when the song gets another one, or has failed."""
        await in_state(SUBMITTED)
        other = await opened()
        await ledger.record_id("s", "u", SUNO)
        await ledger.start_wait("s", "t")
        assert not await other.start_wait("s", "u")
        await ledger.mark_failed("t", FAILED)
        assert await other.start_wait("s", "u")
        await other.mark_in_doubt("s", "u", "not there")
        await ledger.record_id("s", "u", SUNO)
        assert await ledger.start_wait("s", "u")

    @pytest.mark.parametrize("state", all_but(SUBMITTED))
    async def test_only_a_submitted_song_is_waited_for(self, ledger, in_state, state):
        """Nor is another id, or an unknown song."""
        await in_state(state)
        assert not await ledger.start_wait("s", "t")
        assert not await ledger.start_wait("unknown", "t")

    async def test_the_wait_of_a_dead_process_is_taken_over(self, ledger, start, store):
        """Until it is killed, no other process waits."""
        await ledger.want(["a"])
        process = await start("wait", "a")
        assert await process.stdout.readline() == b"a\n"
        assert not await ledger.start_wait("a", "task-of-a")
        process.kill()
        await process.wait()
        await store.expire()
        assert await ledger.start_wait("a", "task-of-a")

    async def test_a_song_is_kept_once_all_images_are_stored(self, ledger, in_state, store):
        """It is not postponed any more."""
        await in_state(SUBMITTED)
        await ledger.postpone("s", "t", 900.0)
        await store.store_images("t")
        await ledger.keep("t")
        song = await ledger.find("s")
        assert (song.state, song.task_id, song.due_at) == (KEPT, "t", None)

    async def test_pages_are_in_the_order_of_addition(self, ledger):
        """Each song is on one page, whether all or those in one state are listed."""
        songs = [f"{number}" for number in range(7)]
        await ledger.want(songs)
        await ledger.claim("3", SUNO)
        for state, expected in ((None, songs), (WANTED, [*"012456"]), (SUBMITTING, ["3"])):
            found, after = [], 0
            while page := await ledger.page(state, after=after, limit=2):
                assert len(page) <= 2
                found += [song.music_task_id for song in page]
                after = page[-1].position
            assert found == expected

    async def test_songs_are_counted_by_state(self, ledger, opened):
        """Every state has a number, and songs of other processes are included."""
        assert await ledger.counts() == dict.fromkeys(SongState, 0)
        await (await opened()).want(["a", "b", "c"])
        await ledger.claim("b", SUNO)
        assert await ledger.counts() == dict.fromkeys(SongState, 0) | {WANTED: 2, SUBMITTING: 1}

    async def test_callback_secrets_stay(self, ledger, opened):
        """The first one is created when it is needed, and every process has the same ones."""
        [secret] = await ledger.callback_secrets()
        assert len(secret) >= 32
        other = await opened()
        assert await other.callback_secrets() == (secret,)
        newest = await other.rotate_callback_secret()
        assert newest != secret
        assert await ledger.callback_secrets() == (newest, secret)

    @pytest.mark.parametrize("state", SongState)
    async def test_a_candidate_changes_no_song(self, ledger, in_state, state):
        """It is stored until it is removed, for the API that can confirm it."""
        await in_state(state)
        before = await ledger.find("s")
        plain, of_song = (
            Candidate(task_id="u", api=SUNO, music_task_id=song) for song in (None, "s")
        )
        for each in (plain, of_song, plain):
            await ledger.add_candidate(each)
        assert set(await ledger.candidates(SUNO)) == {plain, of_song}
        assert await ledger.candidates(MARKET) == []
        await ledger.remove_candidate(plain)
        assert await ledger.candidates(SUNO) == [of_song]
        assert await ledger.find("s") == before

    @pytest.mark.parametrize("state", all_but(SUBMITTING))
    async def test_a_person_names_the_id(self, ledger, in_state, state):
        """An id that a poll has shown is accepted, even if it failed before."""
        await in_state(state)
        song = await ledger.settle("s", task_id="u", api=MARKET)
        assert song == await ledger.find("s")
        if state in {SUBMITTED, KEPT}:
            assert (song.state, song.task_id, song.other_ids) == (state, "t", ("u",))
        else:
            assert (song.state, song.task_id, song.api) == (SUBMITTED, "u", MARKET)

    @pytest.mark.parametrize(
        ("decision", "states", "becomes"),
        [
            ("submit_again", {IN_DOUBT, GIVEN_UP}, WANTED),
            ("give_up", {IN_DOUBT, WANTED}, GIVEN_UP),
        ],
    )
    @pytest.mark.parametrize("state", all_but(SUBMITTING))
    async def test_a_person_settles_only_some_states(  # noqa: PLR0917 - parameters
        self, ledger, in_state, state, decision, states, becomes
    ):
        """Any other state is an error that names it, and nothing changes."""
        await in_state(state)
        before = await ledger.find("s")
        if state not in states:
            with pytest.raises(
                SettlementError, match=f"song s cannot be settled like this: it is {state}"
            ):
                await ledger.settle("s", **{decision: True})
            assert await ledger.find("s") == before
        else:
            song = await ledger.settle("s", **{decision: True})
            assert song == await ledger.find("s")
            assert song.state is becomes
            assert (song.api is None) == (becomes is WANTED or state is WANTED)

    async def test_earlier_ids_of_a_song_that_is_submitted_again(self, ledger, in_state, store):
        """They stay known, and their images still make the song kept."""
        await in_state(SUBMITTED)
        await ledger.mark_in_doubt("s", "t", "not there")
        song = await ledger.settle("s", submit_again=True)
        assert (song.task_id, song.other_ids) == (None, ("t",))
        await store.store_images("t")
        await ledger.keep("t")
        assert (await ledger.find("s")).state is KEPT

    async def test_a_decision_is_one_of_three(self, ledger, in_state):
        """None, two, or an id without its API is an error."""
        await in_state(IN_DOUBT)
        for decision in ({}, {"give_up": True, "submit_again": True}):
            with pytest.raises(TypeError, match="give one of"):
                await ledger.settle("s", **decision)
        for decision in ({"task_id": "t"}, {"give_up": True, "api": SUNO}):
            with pytest.raises(TypeError, match="api must be given"):
                await ledger.settle("s", **decision)
        with pytest.raises(SettlementError, match="the ledger does not have it"):
            await ledger.settle("unknown", give_up=True)

    async def test_a_song_that_is_being_submitted_is_not_settled(self, ledger, opened, in_state):
        """The error names the host and the process that submits it."""
        await in_state(SUBMITTING)
        says = rf"process {os.getpid()} on {os.uname().nodename} is submitting it; end that"
        for decision in ({"submit_again": True}, {"give_up": True}, {"task_id": "t", "api": SUNO}):
            with pytest.raises(SettlementError, match=says):
                await (await opened()).settle("s", **decision)
        assert (await ledger.find("s")).state is SUBMITTING

    async def test_processes_never_claim_the_same_song(self, ledger, start):
        """Three processes claim forty songs at the same time, each song once."""
        songs = [f"{number}" for number in range(40)]
        await ledger.want(songs)
        processes = [await start(action, *songs) for action in ("record", "record", "wait")]
        claims = []
        for process in processes:
            out = [(await process.stdout.readline()).decode().strip() for _ in songs]
            claims += [song for song in out if song != "-"]
            process.stdin.close()
            assert await process.wait() == 0
        assert sorted(claims) == sorted(songs)

    @pytest.mark.parametrize(("action", "state"), [("claim", IN_DOUBT), ("record", SUBMITTED)])
    async def test_a_kill_loses_no_claim_and_no_id(self, ledger, start, store, action, state):
        """What was returned before the kill is stored, and the claim of the dead is in doubt."""
        await ledger.want(["a", "b"])
        process = await start(action, "a")
        assert await process.stdout.readline() == b"a\n"
        assert (await ledger.find("a")).state is (SUBMITTING if action == "claim" else SUBMITTED)
        process.kill()
        await process.wait()
        await store.expire()
        assert await ledger.claim("a", SUNO) is None
        song = await ledger.find("a")
        assert (song.state, song.attempt, song.api) == (state, 1, MARKET)
        if action == "record":
            assert song.task_id == "task-of-a"
        else:
            assert song.reason.startswith(f"process {process.pid} on ")
