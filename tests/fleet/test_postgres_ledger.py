"""The ledger in PostgreSQL: the contract, kills and outages of the server, and hostile input."""

import asyncio
import logging
import os
import runpy
import sys
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
from support.ledger_contract import FAILED, MARKET, PROCESS, SUNO, LedgerContract, LedgerStore
from support.lossy_proxy import lossy_proxy
from support.postgres_server import PASSWORD, needs_postgres

from kie_cover_async import (
    CoverClient,
    CoverDetails,
    CoverFailedError,
    ExponentialSchedule,
    TaskNotFoundError,
)
from kie_cover_async.emulator import CoverEmulator
from kie_cover_async.fleet import PostgresLedger, postgres_ledger
from kie_cover_async.fleet.postgres_schema import MIGRATIONS
from kie_cover_async.jobs import SongJob
from kie_cover_async.ledger import Candidate, SongState

pytestmark = needs_postgres

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CANNOT_BE_USED = "the ledger in PostgreSQL cannot be used: "
SONGS = [f"song-{number}" for number in range(30)]


class TestPostgresLedger(LedgerContract):
    """The contract."""

    @pytest.fixture
    def store(self, database):
        return LedgerStore(
            "support.postgres_ledger:opened",
            f"{database.url} {database.schema}",
            expire=database.expire,
        )


@pytest.fixture
async def opened(database):
    """A function that opens the ledger, as another process would."""
    async with AsyncExitStack() as stack:

        async def opened(url=database.url, **options):
            ledger = PostgresLedger(url, schema=database.schema, **options)
            return await stack.enter_async_context(ledger)

        yield opened


@pytest.fixture
async def ledger(opened):
    ledger = await opened()
    await ledger.want(["s"])
    return ledger


async def persist(call, *arguments):
    """Call until PostgreSQL can be used."""
    while True:
        try:
            return await call(*arguments)
        except OSError:
            await asyncio.sleep(0.02)


async def test_every_change_is_durable(opened, ledger, database, postgres):
    """Claims and ids survive the end of the server, whatever an administrator has set."""
    await ledger.want(["a", "b"])
    assert [list(row) for row in await database.execute("SHOW synchronous_commit")] == [["off"]]
    await ledger.claim("a", SUNO)
    await ledger.claim("b", SUNO)
    await ledger.record_id("b", "t", SUNO)
    postgres.kill()
    postgres.start()
    await persist(ledger.counts)
    other = await opened()
    assert (await other.find("a")).state is SongState.SUBMITTING
    assert (await other.find("b")).task_id == "t"


async def test_methods_raise_while_the_server_is_gone(ledger, postgres, caplog):
    """They work again when it is back; neither errors nor the log show the password."""
    claim = await ledger.claim("s", SUNO)
    postgres.kill()
    calls = [
        lambda: ledger.want(["a"]),
        lambda: ledger.claim("s", SUNO),
        lambda: ledger.release(claim),
        lambda: ledger.record_id("s", "t", SUNO),
        lambda: ledger.start_wait("s", "t"),
        lambda: ledger.find("s"),
        ledger.page,
        ledger.counts,
        lambda: ledger.settle("s", give_up=True),
    ]
    caplog.set_level(logging.DEBUG)
    for call in calls:
        with pytest.raises(OSError, match=CANNOT_BE_USED) as caught:
            await call()
        assert PASSWORD not in f"{caught.value!r} {caught.value.__cause__!r}"
    with pytest.raises(OSError, match=CANNOT_BE_USED):
        await PostgresLedger(postgres.url).__aenter__()
    postgres.start()
    assert (await persist(ledger.record_id, "s", "t", SUNO)).state is SongState.SUBMITTED
    assert PASSWORD not in caplog.text


async def test_a_server_that_does_not_answer_is_an_error(opened, ledger, database, monkeypatch):
    """After a while the call ends, and the next one works."""
    monkeypatch.setattr(postgres_ledger, "_STATEMENT_TIMEOUT", 0.1)
    impatient = await opened()
    connection = await asyncpg.connect(database.url)
    transaction = connection.transaction()
    await transaction.start()
    schema = database.schema.replace('"', '""')
    await connection.execute(f'LOCK TABLE "{schema}".songs')
    for call in (impatient.counts(), impatient.claim("s", SUNO), impatient.find("s")):
        with pytest.raises(OSError, match=f"{CANNOT_BE_USED}TimeoutError"):
            await call
    await transaction.rollback()
    await connection.close()
    assert (await impatient.find("s")).state is SongState.WANTED
    assert await impatient.claim("s", SUNO)


async def test_any_number_of_songs_is_added_in_order(ledger, monkeypatch):
    """By several statements in one transaction."""
    monkeypatch.setattr(postgres_ledger, "_MAX_ROWS", 2)
    assert await ledger.want([*"dcbsda"]) == [*"dcba"]
    assert [song.music_task_id for song in await ledger.page()] == [*"sdcba"]


async def test_a_wrong_password_is_an_error_that_does_not_show_it(postgres):
    """The message is PostgreSQL's own."""
    with pytest.raises(OSError, match="password authentication failed") as caught:
        await PostgresLedger(postgres.url.replace(PASSWORD, "wrong-one")).__aenter__()
    assert "wrong-one" not in str(caught.value)


async def test_songs_are_claimed_once_while_the_server_restarts(
    opened, ledger, postgres, eventually
):
    """Three processes claim and record all songs; the server ends twice in the middle."""
    ledgers = [ledger, await opened(), await opened()]
    await ledger.want(SONGS)
    claims = []

    async def work(each):
        for song in SONGS:
            if (claim := await persist(each.claim, song, SUNO)) is not None:
                claims.append(claim)
                await asyncio.sleep(0.01)
                await persist(each.record_id, song, f"task-of-{song}", SUNO)

    workers = [asyncio.create_task(work(each)) for each in ledgers]
    for count in (8, 16):
        await eventually(lambda: len(claims) >= count)  # noqa: B023 - called in this round
        await asyncio.to_thread(postgres.kill)
        await asyncio.to_thread(postgres.start)
    await asyncio.gather(*workers)
    assert sorted(claim.music_task_id for claim in claims) == sorted(SONGS)
    assert all(song.state is SongState.SUBMITTED for song in await ledger.page(after=1))


async def test_a_claim_whose_answer_is_lost_is_given_back(opened, ledger, postgres):
    """The song was claimed, and nothing was sent: it is wanted again."""
    async with lossy_proxy(postgres.port) as proxy:
        url = postgres.url.replace(str(postgres.port), str(proxy.port))
        async with PostgresLedger(url, schema=ledger._schema) as other:
            proxy.loses = b"COMMIT;"
            with pytest.raises(OSError, match=CANNOT_BE_USED):
                await other.claim("s", SUNO)
            assert (await ledger.find("s")).state is SongState.SUBMITTING
            song = await other.find("s")
            assert (song.state, song.api) == (SongState.WANTED, None)
            assert song.reason.endswith("lost during the claim; nothing was sent")
            assert (await other.claim("s", SUNO)).attempt == 2
            assert not other._lost_claims


async def test_closing_gives_a_claim_back_whose_answer_is_lost(ledger, postgres):
    """It is not in doubt, since nothing was sent."""
    async with lossy_proxy(postgres.port) as proxy:
        url = postgres.url.replace(str(postgres.port), str(proxy.port))
        async with PostgresLedger(url, schema=ledger._schema) as other:
            proxy.loses = b"COMMIT;"
            with pytest.raises(OSError, match=CANNOT_BE_USED):
                await other.claim("s", SUNO)
    assert (await ledger.find("s")).state is SongState.WANTED


async def test_a_cancelled_claim_is_given_back(ledger, database):
    """Whether it was made or not."""
    claiming = asyncio.create_task(ledger.claim("s", SUNO))
    while not claiming.done() and not ledger._lost_claims:
        await asyncio.sleep(0)
        claiming.cancel()
    await asyncio.wait([claiming])
    assert claiming.cancelled()
    assert (await ledger.claim("s", SUNO)) is not None


async def test_processes_create_the_schema_at_the_same_time(database):
    """Two processes open a ledger that does not exist, and each can use it."""
    command = (sys.executable, PROCESS, "support.postgres_ledger:opened")
    argument = f"{database.url} {database.schema}"
    processes = [
        await asyncio.create_subprocess_exec(
            *command, argument, "claim", "a", stdin=PIPE, stdout=PIPE
        )
        for _ in range(2)
    ]
    for process in processes:
        assert (await process.communicate(b""))[0] == b"-\ndone\n"
        assert process.returncode == 0


async def test_many_ledgers_open_at_the_same_time(opened):
    """Each waits until the schema exists."""
    ledgers = await asyncio.gather(*(opened(max_connections=1) for _ in range(8)))
    new = await asyncio.gather(*(ledger.want(["a", "b"]) for ledger in ledgers))
    assert sorted(new) == [[]] * 7 + [["a", "b"]]


async def test_a_schema_of_a_later_version_is_rejected(ledger, opened, database):
    """It is not altered."""
    await database.execute("UPDATE ledger_version SET version = version + 1")
    with pytest.raises(ValueError, match=f"has version {len(MIGRATIONS) + 1}, and this release"):
        await opened()
    assert await database.execute("SELECT FROM songs")


async def test_a_role_without_the_right_to_create_opens_an_existing_schema(ledger, database):
    """It needs its rights on the tables only."""
    role, schema = f"role {database.schema}".replace('"', ""), database.schema.replace('"', '""')
    await database.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{PASSWORD}'")
    await database.execute(f'GRANT USAGE ON SCHEMA "{schema}" TO "{role}"')
    tables = f'IN SCHEMA "{schema}" TO "{role}"'
    await database.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES {tables}")
    url = database.url.replace("//postgres:", f"//{role.replace(' ', '%20')}:")
    async with PostgresLedger(url, schema=database.schema) as other:
        assert await other.want(["a"]) == ["a"]
    with pytest.raises(OSError, match="permission denied"):
        await PostgresLedger(url, schema="new").__aenter__()


async def test_tables_of_another_program_are_left_alone(database, opened):
    """Opening the ledger in their schema is an error, and creates nothing."""
    quoted = database.schema.replace('"', '""')
    await database.execute(f'CREATE SCHEMA "{quoted}"')
    await database.execute("CREATE TABLE songs (title text)")
    with pytest.raises(OSError, match='relation "songs" already exists'):
        await opened()
    assert await database.execute("SELECT to_regclass('tasks') AS found") == [(None,)]


@pytest.mark.parametrize(
    "hostile", ["';DROP/**/TABLE/**/songs;--", "$1", "%s", '"\\', "\\x00", "🎵", "é" * 300]
)
async def test_ids_are_never_read_as_statements(ledger, hostile):
    """Any id without blanks is stored as it is."""
    assert await ledger.want([hostile]) == [hostile]
    assert (await ledger.claim(hostile, SUNO)).music_task_id == hostile
    song = await ledger.record_id(hostile, hostile, SUNO)
    assert (song.music_task_id, song.task_id) == (hostile, hostile)
    await ledger.add_candidate(Candidate(task_id=hostile, api=SUNO, music_task_id=hostile))
    [candidate] = await ledger.candidates(SUNO)
    assert candidate.music_task_id == candidate.task_id == hostile
    await ledger.keep(hostile)
    assert (await ledger.find(hostile)).state is SongState.KEPT


@pytest.mark.parametrize("hostile", ["s\0", "\ud800", "two words", "s" * 5000])
async def test_ids_that_cannot_exist_are_unknown(ledger, hostile):
    """PostgreSQL could not store some of them."""
    assert await ledger.find(hostile) is None
    assert await ledger.claim(hostile, SUNO) is None
    assert await ledger.record_id(hostile, "t", SUNO) is None
    assert not await ledger.start_wait("s", hostile)


async def test_any_reason_is_stored(ledger):
    """It is shortened, and what PostgreSQL cannot store is shown as an escape."""
    claim = await ledger.claim("s", SUNO)
    await ledger.release(claim, SongState.FAILED, "zero \0 and \ud800" + "x" * 1000)
    reason = (await ledger.find("s")).reason
    assert reason.startswith("zero \\x00 and \\ud800xxx")
    await ledger.record_id("s", "t", SUNO, is_confirmed=True)
    await ledger.mark_failed("t", ValueError("\0"))
    assert (await ledger.find("s")).reason == "ValueError: \\x00"


async def test_a_claim_is_in_doubt_after_its_timeout(ledger, opened):
    """By the database's clock; the claimant that is alive after all can still bring the id."""
    claim = await ledger.claim("s", SUNO)
    assert (await ledger.find("s")).state is SongState.SUBMITTING
    other = await opened(claim_timeout=0.001)
    [song] = await other.page()
    assert song.state is SongState.IN_DOUBT
    said = f"process {os.getpid()} on {os.uname().nodename} did not end its submit of the song"
    assert song.reason == f"{said} within 0.001 s"
    assert not await ledger.release(claim)
    assert (await ledger.record_id("s", "t", SUNO)).state is SongState.SUBMITTED


async def test_closing_ends_claims_and_waits(ledger, opened):
    """Songs that it claimed are in doubt immediately, and others may wait for its songs."""
    other = await opened()
    await other.want(["a"])
    await other.claim("a", SUNO)
    await ledger.record_id("s", "t", SUNO)
    assert await other.start_wait("s", "t")
    await other.aclose()
    assert await ledger.start_wait("s", "t")
    song = await ledger.find("a")
    assert song.state is SongState.IN_DOUBT
    assert song.reason.endswith("ended while it submitted the song")


async def test_a_ledger_can_be_opened_again(ledger, database):
    """After it was closed, and not before; its waits are renewed then, too."""
    await ledger.record_id("s", "t", SUNO)
    again = PostgresLedger(database.url, schema=database.schema)
    for _ in range(2):
        async with again:
            with pytest.raises(RuntimeError, match="is open already"):
                await again.__aenter__()
            assert await again.start_wait("s", "t")
            assert again._renewals is not None
        assert await ledger.start_wait("s", "t")
        await ledger.end_wait("s")


async def test_a_wait_that_begins_while_the_ledger_closes_leaves_nothing(opened, ledger):
    """Another process can wait for the song after a minute, and no task stays."""
    await ledger.record_id("s", "t", SUNO)
    other = await opened()
    starting = asyncio.create_task(other.start_wait("s", "t"))
    await asyncio.sleep(0)
    await other.aclose()
    assert await starting
    assert other._renewals is None


async def test_closing_works_without_the_server(database, postgres):
    """It gives up what it cannot say."""
    async with PostgresLedger(database.url, schema=database.schema) as ledger:
        await ledger.want(["s"])
        postgres.kill()
    postgres.start()


async def test_a_wait_is_kept_by_renewing_its_lease(ledger, opened, database):
    """No other process waits as long as the first says that it is alive."""
    await ledger.record_id("s", "t", SUNO)
    waiting = await opened(wait_timeout=1.0)
    assert await waiting.start_wait("s", "t")
    statement = "SELECT alive_until FROM claimants WHERE name = $1"
    [first] = await database.execute(statement, waiting._name)
    while [first] == await database.execute(statement, waiting._name):  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # until the next renewal
    assert not await ledger.start_wait("s", "t")


async def test_a_lease_that_cannot_be_renewed_is_logged_once(
    ledger, opened, postgres, caplog, eventually
):
    """So is its return, and no line shows the password."""
    await ledger.record_id("s", "t", SUNO)
    waiting = await opened(wait_timeout=0.1)
    await waiting.start_wait("s", "t")
    postgres.kill()
    await eventually(lambda: caplog.messages)
    with pytest.raises(OSError, match=CANNOT_BE_USED):
        await waiting._run(waiting._renew)
    # Time for another renewal, which fails silently.
    await asyncio.sleep(0.1)
    postgres.start()
    await eventually(lambda: len(caplog.messages) > 1)
    first, last = caplog.messages
    assert first.startswith(f"other processes may soon wait for the same songs: {CANNOT_BE_USED}")
    assert last == "the ledger in PostgreSQL can be used again"
    assert PASSWORD not in caplog.text


async def test_details_of_a_failed_cover_are_stored(ledger, database):
    """With its API; unless the API does not know the id, which another one may."""
    await ledger.record_id("s", "t", MARKET)
    error = CoverFailedError(details=CoverDetails(task_id="t", success_flag=3))
    await ledger.mark_failed("t", error)
    song = await ledger.find("s")
    assert (song.details, song.api) == (error.details, MARKET)
    await ledger.mark_failed("t", TaskNotFoundError(task_id="t", code=422, msg="none"))
    assert (await ledger.find("s")).api is None
    await ledger.keep("t")
    await ledger.record_id("s", "t", MARKET, is_confirmed=True)
    await ledger.mark_failed("t", FAILED)
    assert (await ledger.find("s")).state is SongState.KEPT
    await database.execute("UPDATE tasks SET details = '{'")
    with pytest.raises(ValueError, match="details of task t in the ledger cannot be read"):
        await ledger.find("s")


async def test_candidates_are_forgotten_after_three_days(ledger, database):
    """They are not returned any more, and the next one that is added removes them."""
    await ledger.add_candidate(Candidate(task_id="t", api=SUNO))
    await database.execute("UPDATE candidates SET added_at = added_at - interval '3 days'")
    assert await ledger.candidates(SUNO) == []
    await ledger.add_candidate(Candidate(task_id="u", api=SUNO))
    assert await database.execute("SELECT task_id FROM candidates") == [("u",)]


async def test_a_long_delay_is_ten_years(ledger):
    """PostgreSQL has no times of any size."""
    await ledger.record_id("s", "t", SUNO)
    assert await ledger.postpone("s", "t", 1e300)
    song = await ledger.find("s")
    assert (song.due_at - song.changed_at).days == 3650


async def test_changes_of_the_same_ids_never_deadlock(ledger, opened):
    """Three ledgers change three songs with the same ids, all at the same time."""
    ledgers = [ledger, await opened(), await opened()]
    songs, tasks = ["a", "b", "c"], ["t", "u", "v"]
    await ledger.want(songs)

    async def change(each, number):
        song, task = songs[number % 3], tasks[number // 3]
        await each.record_id(song, task, SUNO)
        await each.start_wait(song, task)
        await each.mark_in_doubt(song, task, "why", is_wrong=number % 2 == 0)
        await each.settle(song, task_id=task, api=SUNO)
        await each.mark_failed(task, FAILED)
        await each.page()
        await each.keep(task)

    await asyncio.gather(*(change(each, number) for each in ledgers for number in range(9)))
    assert (await ledger.counts())[SongState.KEPT] == 3


class MemoryImages:
    """An image store in memory."""

    def __init__(self):
        self.kept = {}

    async def save(self, client, details):
        self.kept[details.task_id] = details.images

    async def locate(self, task_id):
        return self.kept.get(task_id, ())


async def test_jobs_run_unchanged_over_postgresql(opened, ledger):
    """Two processes run the same songs: each is submitted once, and both see it kept."""
    images = MemoryImages()
    schedule = ExponentialSchedule(initial_delay=0.02, max_delay=0.05)
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(CoverEmulator(generation_time=0.05))
        jobs = []
        for each in (ledger, await opened()):
            client = CoverClient("key", base_url=emulator.url, schedule=schedule)
            await stack.enter_async_context(client)
            job = SongJob(
                client=client, ledger=each, images=images, callback_url="https://example.com/c"
            )
            jobs.append(job)
        songs = ["a", "b", "s"]
        await ledger.want(songs)
        outcomes = await asyncio.gather(*(job.run(song) for job in jobs for song in songs))
        submits = [each for each in emulator.requests if "generate" in each.path]
    assert len(submits) == 3
    assert all(outcome.ok and len(outcome.images) == 2 for outcome in outcomes)


async def test_the_example_lists_songs_in_doubt(database, ledger, monkeypatch, capsys):
    """It adds songs, counts them, and names those that a person must settle."""
    claim = await ledger.claim("s", SUNO)
    await ledger.release(claim, SongState.IN_DOUBT, "no answer came")
    monkeypatch.setenv("DATABASE_URL", database.url)
    example = runpy.run_path(str(EXAMPLES / "postgres_ledger.py"))
    await example["main"](["a", "s"], schema=database.schema)
    assert (
        capsys.readouterr().out
        == "1 new\nin doubt: s, since no answer came\n1 wanted\n1 in_doubt\n"
    )
