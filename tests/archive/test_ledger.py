"""The ledger in the archive's database: the contract, older folders, full disks and lock files."""

import asyncio
import sqlite3
from contextlib import closing
from functools import partial

import pytest
from support.ledger_contract import FAILED, MARKET, SUNO, LedgerContract, LedgerStore

from kie_cover_async import CoverDetails
from kie_cover_async.archive import DamagedRecordError, covers
from kie_cover_async.archive.database import ArchiveDatabase
from kie_cover_async.ledger import Candidate, SettlementError, SongOutcome, SongState


class TestSqliteLedger(LedgerContract):
    """The contract."""

    @pytest.fixture
    def store(self, tmp_path):
        folder = tmp_path / "covers"

        async def store_images(task_id):
            details = CoverDetails(task_id=task_id, success_flag=1)
            with closing(ArchiveDatabase(folder)) as database:
                covers.record_details(database, details)
                covers.record_save(database, details, [], is_complete=True)

        return LedgerStore("support.sqlite_ledger:opened", str(folder), store_images)


@pytest.fixture
async def ledger(archive):
    await archive.ledger.want(["s"])
    return archive.ledger


def lock_files(archive):
    return [*archive.folder.glob(".claimant-*")]


async def test_saving_a_cover_keeps_its_song(client, archive, ledger, cover):
    """`save`, `mark_pending` and a failed repetition change the song with the cover."""
    details = await cover("t", images=1)
    await ledger.record_id("s", "t", MARKET)
    [pending] = await archive.pending()
    assert (pending.task_id, pending.api) == ("t", MARKET)
    saved = await archive.save(client, details)
    song = await archive.find_song("s")
    assert (song.state, song.details, song.api) == ("kept", saved.details, MARKET)
    await archive.mark_pending(["t"])
    assert (await archive.find_song("s")).state is SongState.SUBMITTED
    await archive.save(client, details)
    assert (await archive.find_song("s")).state is SongState.KEPT
    await archive.mark_failed("t", FAILED)
    assert (await archive.find_song("s")).state is SongState.KEPT


async def test_a_cover_that_is_not_saved_keeps_no_song(archive, ledger):
    """`keep` changes nothing: only what the archive has saved is kept."""
    await ledger.record_id("s", "t", SUNO)
    await ledger.keep("t")
    assert (await archive.find_song("s")).state is SongState.SUBMITTED


async def test_a_failed_cover_fails_its_song(archive, ledger):
    """If it is made pending again, its song is submitted again."""
    await ledger.record_id("s", "t", SUNO)
    await archive.mark_failed("t", FAILED)
    assert [(song.state, song.task_id) async for song in archive.songs()] == [("failed", "t")]
    await archive.mark_pending()
    assert (await archive.find_song("s")).state is SongState.SUBMITTED


async def test_a_cover_saved_before_its_song_was_known(client, archive, ledger, cover):
    """The song is kept as soon as the id is stored."""
    await archive.save(client, await cover("t", images=1))
    assert (await ledger.record_id("s", "t", SUNO)).state is SongState.KEPT


async def test_songs_are_listed_by_pages(archive, ledger, monkeypatch):
    """The next page is read when the songs before it were taken."""
    pages, page = [], ledger.page

    async def small(state, *, after):
        pages.append(after)
        return await page(state, after=after, limit=2)

    monkeypatch.setattr(ledger, "page", small)
    await ledger.want(["a", "b"])
    listed = archive.songs(SongState.WANTED)
    assert (await anext(listed)).music_task_id == "s"
    assert pages == [0]
    assert [song.music_task_id async for song in listed] == ["a", "b"]


async def test_pending_ids_have_their_api(archive, opened):
    """It is stored once, for ids of which it was unknown, and no other call replaces it."""
    await archive.add(["old"])
    assert await archive.add(["new", "old"], api=SUNO) == ["new"]
    await archive.add(["new"], api=MARKET)
    assert [(each.task_id, each.api) for each in await archive.pending()] == [
        ("old", SUNO),
        ("new", SUNO),
    ]


async def test_a_saved_cover_has_the_api_of_its_client(client, archive, cover):
    """It issued the id, unless another one is stored."""
    details = await cover("t", images=1)
    await archive.save(client, details)
    assert (await archive.find("t")).api == client.api
    other = await cover("u", images=1)
    await archive.add(["u"], api=MARKET)
    await archive.save(client, other)
    assert (await archive.find("u")).api == MARKET


async def test_an_older_folder_is_upgraded(client, opened, cover):
    """A record of version 1 keeps its covers and gets the ledger; a second opening changes
    nothing."""
    archive = await opened()
    saved = await archive.save(client, await cover("a", images=1))
    await archive.aclose()
    with closing(sqlite3.connect(archive.folder / "covers.sqlite3")) as connection:
        connection.executescript("""
            DROP TABLE songs; DROP TABLE song_tasks; DROP TRIGGER songs_follow_tasks;
            DROP TABLE callback_secrets; DROP TABLE candidates;
            ALTER TABLE tasks DROP COLUMN route; ALTER TABLE tasks DROP COLUMN origin;
            PRAGMA user_version = 1;
        """)
    for _ in range(2):
        archive = await opened()
        assert [each.images for each in await archive.saved()] == [saved.images]
        await archive.ledger.want(["s"])
        assert (await archive.ledger.record_id("s", "a", SUNO)).state is SongState.KEPT
        assert (await archive.verify()).ok
        await archive.aclose()


async def test_a_folder_without_secrets_is_upgraded(opened):
    """A record of version 2 keeps its songs, and gets tables, a column and a trigger."""
    archive = await opened()
    await archive.ledger.want(["s"])
    await archive.aclose()
    with closing(sqlite3.connect(archive.folder / "covers.sqlite3")) as connection:
        connection.executescript("""
            DROP TABLE callback_secrets; DROP TABLE candidates;
            DROP TRIGGER songs_follow_tasks; ALTER TABLE songs DROP COLUMN waited_by;
            ALTER TABLE songs DROP COLUMN trouble; ALTER TABLE songs DROP COLUMN trouble_count;
            ALTER TABLE songs DROP COLUMN trouble_since;
            CREATE TRIGGER songs_follow_tasks AFTER UPDATE OF state ON tasks BEGIN SELECT 1; END;
            PRAGMA user_version = 2;
        """)
    archive = await opened()
    assert len(await archive.ledger.callback_secrets()) == 1
    assert [song.music_task_id async for song in archive.songs()] == ["s"]
    await archive.ledger.record_id("s", "t", SUNO)
    assert await archive.ledger.start_wait("s", "t")
    await archive.mark_failed("t", FAILED)
    assert (await archive.find_song("s")).state is SongState.FAILED


async def test_an_unreadable_secret_is_an_error_that_does_not_show_it(archive, ledger):
    """Any program can write to the file."""
    with closing(sqlite3.connect(archive.folder / "covers.sqlite3")) as connection, connection:
        connection.execute("INSERT INTO callback_secrets VALUES (1, ?, 0)", (b"secret text",))
    with pytest.raises(DamagedRecordError, match=": secret of ") as caught:
        await ledger.callback_secrets()
    assert "secret text" not in str(caught.value)


async def test_candidates_are_forgotten_after_three_days(archive, ledger):
    """They are not returned any more, and the next one that is added removes them."""
    candidate = Candidate(task_id="t", api=SUNO)
    await ledger.add_candidate(candidate)
    with closing(sqlite3.connect(archive.folder / "covers.sqlite3")) as connection:
        with connection:
            connection.execute("UPDATE candidates SET added_at = added_at - 3 * 86400")
        assert await ledger.candidates(SUNO) == []
        await ledger.add_candidate(Candidate(task_id="u", api=SUNO))
        assert connection.execute("SELECT task_id FROM candidates").fetchall() == [("u",)]


@pytest.mark.parametrize("column", ["task_id", "music_task_id"])
async def test_an_unreadable_candidate_is_an_error_that_names_it(archive, ledger, column):
    """Any program can write to the file."""
    await ledger.add_candidate(Candidate(task_id="t", api=SUNO))
    with closing(sqlite3.connect(archive.folder / "covers.sqlite3")) as connection, connection:
        connection.execute(f"UPDATE candidates SET {column} = 'two words'")  # noqa: S608 - ours
    with pytest.raises(DamagedRecordError, match=f": {column} of "):
        await ledger.candidates(SUNO)


async def test_commits_of_claims_and_ids_are_durable(archive, ledger):
    """SQLite flushes the disk before a claim or an id is returned, unlike for other changes."""
    executed = []
    await archive._query(lambda each: each._connection.set_trace_callback(executed.append))
    claim = await ledger.claim("s", SUNO)
    await ledger.release(claim)
    await ledger.record_id("s", "t", SUNO)
    commits = [each for each in executed if each.startswith(("PRAGMA sync", "COMMIT"))]
    full, normal = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"
    assert commits == [full, "COMMIT", normal, "COMMIT", full, "COMMIT", normal]


async def test_claims_of_one_moment_share_a_flush(archive, ledger):
    """The first is committed immediately, the others together; one that fails harms none."""
    await ledger.want(["a", "b", "c"])
    executed = []
    await archive._query(lambda each: each._connection.set_trace_callback(executed.append))
    claims = [ledger.claim(song, SUNO) for song in ("a", "b", "c", "s")]
    assert all(await asyncio.gather(*claims))
    assert executed.count("COMMIT") == 2
    results = await asyncio.gather(
        ledger.record_id("s", "v", SUNO),
        ledger.record_id("a", "t", SUNO),
        ledger.settle("b", give_up=True),
        ledger.record_id("c", "u", SUNO),
        return_exceptions=True,
    )
    assert [type(each).__name__ for each in results] == ["Song", "Song", "SettlementError", "Song"]
    states = {song.music_task_id: song.state.value async for song in archive.songs()}
    assert states == dict.fromkeys("sac", "submitted") | {"b": "submitting"}


async def test_a_full_disk_loses_no_stored_id(archive, ledger):
    """An id that cannot be stored is an error, and can be stored once there is room."""
    await ledger.want([f"{number:032}" for number in range(300)])
    songs = [song.music_task_id async for song in archive.songs()]

    def limit_pages(database, pages):
        [used] = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages or used + 2}").fetchone()

    await archive._query(partial(limit_pages, pages=None))
    stored = []

    async def fill():
        while True:
            song = songs[len(stored)]
            await ledger.record_id(song, f"task-of-{song}", SUNO)
            stored.append(song)

    with pytest.raises(OSError, match="cannot be used: database or disk is full"):
        await fill()
    assert 0 < len(stored) < len(songs)
    submitted = [song.music_task_id async for song in archive.songs(SongState.SUBMITTED)]
    assert submitted == stored
    await archive._query(partial(limit_pages, pages=100_000))
    late = songs[len(stored)]
    assert (await ledger.record_id(late, "late", SUNO)).task_id == "late"


async def test_a_lock_file_exists_from_the_first_claim_to_the_end(opened):
    """A ledger that claims nothing has none, and closing removes it."""
    archive, other = await opened(), await opened()
    await archive.ledger.want(["a", "b"])
    assert lock_files(archive) == []
    await archive.ledger.claim("a", SUNO)
    await archive.ledger.claim("b", SUNO)
    assert len(lock_files(archive)) == 1
    await archive.aclose()
    assert lock_files(archive) == []
    assert [song.state async for song in other.songs()] == ["in_doubt", "in_doubt"]


async def test_lock_files_of_dead_claimants_are_removed(opened):
    """By the process that finds the claimant dead, or by the next that opens the unused folder."""
    archive = await opened()
    await archive.ledger.want(["a", "b"])
    await archive.ledger.claim("a", SUNO)
    [path] = lock_files(archive)
    other = await opened()
    assert (await other.find_song("a")).state is SongState.SUBMITTING
    await archive.aclose()
    path.touch()
    assert (await other.find_song("a")).state is SongState.IN_DOUBT
    assert lock_files(other) == []
    await other.aclose()
    path.touch()
    assert lock_files(await opened()) == []


async def test_a_lock_file_that_cannot_be_opened_is_an_error(opened, tmp_path):
    """A claimant is not taken for dead; the error names the file."""
    archive, other = await opened(), await opened()
    await archive.ledger.want(["a"])
    await archive.ledger.claim("a", SUNO)
    [path] = lock_files(archive)
    await archive.aclose()
    path.mkdir()
    with pytest.raises(OSError, match=rf"{path.name} cannot be used: unable to open"):
        await other.find_song("a")
    path.rmdir()
    assert (await other.find_song("a")).state is SongState.IN_DOUBT


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("music_task_id", "a b"),
        ("task_id", b"t"),
        ("reason", b"bytes"),
        ("claimed_by", b"bytes"),
        ("attempt", "many"),
        ("trouble", "odd"),
        ("trouble_count", "many"),
        ("claimed_at", "now"),
        ("added_at", 1e300),
        ("route", 5.5),
    ],
)
async def test_an_unreadable_song_is_an_error_that_names_it(archive, ledger, column, value):
    """Any program can write to the file."""
    if column == "route":
        value = b"market"
    with closing(sqlite3.connect(archive.folder / "covers.sqlite3")) as connection, connection:
        connection.execute(f"UPDATE songs SET {column} = ?", (value,))  # noqa: S608 - ours
    with pytest.raises(DamagedRecordError, match=f": {column} of "):
        await ledger.page()


async def test_a_song_has_no_other_states(archive, ledger):
    """SQLite refuses them, so that no list omits a song."""
    with (
        closing(sqlite3.connect(archive.folder / "covers.sqlite3")) as connection,
        pytest.raises(sqlite3.IntegrityError, match="CHECK"),
    ):
        connection.execute("UPDATE songs SET state = 'odd'")


async def test_an_outcome_is_ok_if_the_song_is_kept(ledger):
    """Its images are paths or keys."""
    await ledger.want(["s"])
    song = await ledger.find("s")
    assert not SongOutcome(song=song).ok


def test_the_error_of_a_settlement_is_copied_whole():
    """It has two arguments, which pickling keeps."""
    error = SettlementError("s", "it is kept")
    kind, arguments = error.__reduce__()[:2]
    assert str(kind(*arguments)) == str(error) == "song s cannot be settled like this: it is kept"
