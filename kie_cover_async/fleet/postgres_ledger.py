"""`PostgresLedger`: the songs of many processes and hosts, in a schema of a PostgreSQL database.

Its statements are those of the archive's ledger. Transactions that concern ids take an advisory
lock, so that they see each other's changes and never deadlock.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from secrets import token_hex, token_urlsafe
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import frozen

from kie_cover_async.api import structure_details, unstructure_details
from kie_cover_async.errors import InvalidResponseError, TaskNotFoundError
from kie_cover_async.ledger import (
    Api,
    Candidate,
    Claim,
    Song,
    SongState,
    Trouble,
    describe_claimant,
    new_claimant,
    require_settleable,
    validate_decision,
    validate_release,
)
from kie_cover_async.models import CoverDetails
from kie_cover_async.validation import short_repr, validate_number, validate_task_id

from .postgres_schema import MIGRATIONS, NO_WAIT

if TYPE_CHECKING:
    from asyncpg import Connection, Pool, Record

T = TypeVar("T")

_log = logging.getLogger(__name__)

_SCHEMES = ("postgresql://", "postgres://")
_HINT = (
    "a ledger in PostgreSQL needs asyncpg: install the extra `fleet` of kie_cover_async, "
    "or pip install 'asyncpg>=0.30'"
)
_UNREADABLE_URL = "url is not one that asyncpg can read (it is not shown here)"
_NOT_TOLD = "the connection to PostgreSQL was lost during the claim; nothing was sent"
# Seconds for a connection, for one statement, and for closing all connections.
_CONNECT_TIMEOUT, _STATEMENT_TIMEOUT, _CLOSE_TIMEOUT = 10.0, 30.0, 5.0
# How many rows one statement adds, so that any number of songs can be added in time.
_MAX_ROWS = 10_000
# A lease is renewed so many times before it would end.
_RENEWALS = 3
# PostgreSQL truncates longer names.
_MAX_NAME_BYTES = 63
# The ids of a song are in one index, whose entries have at most 2,704 bytes.
_MAX_ID_BYTES = 600
_MAX_REASON_LENGTH = 500
_MAX_DELAY = 10 * 365 * 86_400.0
_CANDIDATE_RETENTION = "interval '3 days'"


_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('kie_cover_async ' || $1::text, 0))"
_HAS_SCHEMA = "SELECT FROM pg_namespace WHERE nspname = $1"
_HAS_VERSION = "SELECT to_regclass($1 || '.ledger_version') IS NOT NULL"
_VERSION = "SELECT version FROM ledger_version"
_SET_VERSION = "UPDATE ledger_version SET version = $1"

# The first id of a song that may still succeed.
_OPEN_ID = """
    SELECT task_id FROM song_tasks JOIN tasks USING (task_id)
    WHERE music_task_id = songs.music_task_id AND NOT is_wrong AND tasks.state <> 'failed'
    ORDER BY song_tasks.number LIMIT 1
"""
# An id has its API in its own row.
_SONGS = """
SELECT songs.*, tasks.route AS task_route, tasks.origin AS task_origin, tasks.details, ARRAY(
    SELECT song_tasks.task_id FROM song_tasks
    WHERE song_tasks.music_task_id = songs.music_task_id
        AND song_tasks.task_id IS DISTINCT FROM songs.task_id
    ORDER BY song_tasks.number
) AS other_ids
FROM songs LEFT JOIN tasks ON tasks.task_id = songs.task_id
"""
_SONG = f"{_SONGS} WHERE songs.music_task_id = $1"
_WANT = """
INSERT INTO songs (music_task_id) SELECT id FROM unnest($1::text[]) WITH ORDINALITY AS ids (id, n)
ORDER BY n ON CONFLICT DO NOTHING RETURNING music_task_id
"""
_CLAIM = """
UPDATE songs SET state = 'submitting', route = $2, origin = $3, claimed_by = $4, claim_key = $5,
    claimed_at = now(), attempt = attempt + 1, reason = NULL, changed_at = now()
WHERE music_task_id = $1 AND state = 'wanted' RETURNING attempt
"""
# A wanted song runs on any client, and what is known of its ids is in `song_tasks`.
_FORGET_ID = "task_id = NULL, route = NULL, origin = NULL"
_RELEASE_WANTED = f"""
UPDATE songs SET state = 'wanted', reason = $1, {_FORGET_ID}, changed_at = now()
"""  # noqa: S608 - constants, as in all statements here
_RELEASE = "UPDATE songs SET state = $5, reason = $1, changed_at = now()"
_WHERE_SAME_CLAIM = """
WHERE music_task_id = $2 AND state = 'submitting' AND claimed_by = $3 AND attempt = $4
"""
_GIVE_BACK = f"{_RELEASE_WANTED} WHERE claim_key = ANY($2::text[]) AND state = 'submitting'"
# A row that is locked is changing.
_OVERDUE_CLAIMS = """
SELECT position, claimed_by FROM songs
WHERE state = 'submitting' AND claimed_at < now() - make_interval(secs => $1)
ORDER BY position FOR UPDATE SKIP LOCKED
"""
_DOUBT_CLAIM = """
UPDATE songs SET state = 'in_doubt', reason = $2, changed_at = now() WHERE position = $1
"""
_DOUBT_CLAIMS_OF = """
UPDATE songs SET state = 'in_doubt', reason = $2, changed_at = now()
WHERE state = 'submitting' AND claimed_by = $1
"""
_IS_KNOWN = "SELECT FROM songs WHERE music_task_id = $1"
_ADD_TASK = """
INSERT INTO tasks (task_id, route, origin) VALUES ($1, $2, $3)
ON CONFLICT (task_id) DO UPDATE SET route = excluded.route, origin = excluded.origin
WHERE tasks.route IS NULL
"""
_LINK = "INSERT INTO song_tasks (music_task_id, task_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_CONFIRM_LINK = "UPDATE song_tasks SET is_wrong = false WHERE music_task_id = $1 AND task_id = $2"
_CONFIRM_TASK = """
WITH confirmed AS (
    UPDATE tasks SET state = 'pending', error = NULL WHERE task_id = $1 AND state = 'failed'
    RETURNING task_id
)
UPDATE songs SET state = 'submitted', due_at = NULL, reason = NULL, changed_at = now()
WHERE task_id IN (SELECT task_id FROM confirmed) AND state = 'failed'
"""
_SUBMITTED = f"""
UPDATE songs SET state = 'submitted', task_id = $2, {NO_WAIT}, reason = NULL, changed_at = now()
WHERE music_task_id = $1 AND state IN ('wanted', 'submitting', 'in_doubt', 'failed') AND EXISTS (
    SELECT FROM song_tasks JOIN tasks USING (task_id)
    WHERE music_task_id = $1 AND task_id = $2 AND NOT is_wrong AND tasks.state <> 'failed'
)
"""  # noqa: S608
_SAVE_TASK = """
INSERT INTO tasks (task_id, state) VALUES ($1, 'saved')
ON CONFLICT (task_id) DO UPDATE SET state = 'saved', error = NULL
"""
_KEEP = f"""
UPDATE songs SET state = 'kept', task_id = $1, {NO_WAIT}, reason = NULL, changed_at = now()
WHERE state <> 'kept' AND EXISTS (SELECT FROM tasks WHERE task_id = $1 AND state = 'saved')
    AND music_task_id IN (
        SELECT music_task_id FROM song_tasks WHERE task_id = $1 AND NOT is_wrong
    )
"""  # noqa: S608
_FAIL_TASK = """
INSERT INTO tasks (task_id, state, error) VALUES ($1, 'failed', $2)
ON CONFLICT (task_id) DO UPDATE SET state = 'failed', error = excluded.error
WHERE tasks.state <> 'saved' RETURNING task_id
"""
_FAIL = f"""
UPDATE songs SET state = CASE WHEN ({_OPEN_ID}) IS NULL THEN 'failed' ELSE state END,
    task_id = coalesce(({_OPEN_ID}), task_id), {NO_WAIT}, reason = $2, changed_at = now()
WHERE task_id = $1 AND state = 'submitted'
"""  # noqa: S608
_FORGET_API = "UPDATE tasks SET route = NULL, origin = NULL WHERE task_id = $1"
_SET_DETAILS = "UPDATE tasks SET details = $2 WHERE task_id = $1"
_WHERE_SUBMITTED = "WHERE music_task_id = $1 AND task_id = $2 AND state = 'submitted'"
_RENEW = """
INSERT INTO claimants (name, alive_until) VALUES ($1, now() + make_interval(secs => $2))
ON CONFLICT (name) DO UPDATE SET alive_until = excluded.alive_until
"""
_FORGET_CLAIMANT = "DELETE FROM claimants WHERE name = $1"
_FORGET_DEAD_CLAIMANTS = "DELETE FROM claimants WHERE alive_until < now()"
_LOCK_SUBMITTED = f"SELECT FROM songs {_WHERE_SUBMITTED} FOR UPDATE"
_START_WAIT = f"""
UPDATE songs SET waited_by = $3 {_WHERE_SUBMITTED} AND (waited_by IS NULL OR waited_by = $3
    OR NOT EXISTS (SELECT FROM claimants WHERE name = waited_by AND alive_until >= now()))
"""  # noqa: S608
_END_WAIT = "UPDATE songs SET waited_by = NULL WHERE music_task_id = $1 AND waited_by = $2"
_POSTPONE = f"""
UPDATE songs SET due_at = now() + make_interval(secs => $3), waited_by = NULL, trouble = $4,
    trouble_count = CASE WHEN trouble = $4 THEN trouble_count ELSE 0 END + 1,
    trouble_since = CASE WHEN trouble = $4 THEN trouble_since ELSE now() END
{_WHERE_SUBMITTED}
"""  # noqa: S608
_DOUBT = f"""
UPDATE songs SET state = 'in_doubt', {NO_WAIT}, reason = $3, changed_at = now() {_WHERE_SUBMITTED}
"""  # noqa: S608
_MARK_WRONG = "UPDATE song_tasks SET is_wrong = true WHERE music_task_id = $1 AND task_id = $2"
_NEXT_ID = f"""
UPDATE songs SET task_id = ({_OPEN_ID}),
    state = CASE WHEN ({_OPEN_ID}) IS NULL THEN 'in_doubt' ELSE 'submitted' END
WHERE music_task_id = $1
"""  # noqa: S608
_GIVE_UP = """
UPDATE songs SET state = 'failed', reason = 'given up', changed_at = now()
WHERE music_task_id = $1
"""
_SUBMIT_AGAIN = f"""
UPDATE songs SET state = 'wanted', reason = NULL, {_FORGET_ID}, changed_at = now()
WHERE music_task_id = $1
"""  # noqa: S608
_COUNTS = "SELECT state, count(*) FROM songs GROUP BY state"
_SECRETS = "SELECT secret FROM callback_secrets ORDER BY number DESC"
_ADD_SECRET = "INSERT INTO callback_secrets (secret) VALUES ($1)"  # noqa: S105 - no secret
_CANDIDATES = f"""
SELECT task_id, music_task_id FROM candidates
WHERE route = $1 AND origin = $2 AND added_at > now() - {_CANDIDATE_RETENTION} ORDER BY number
"""  # noqa: S608
_ADD_CANDIDATE = """
INSERT INTO candidates (task_id, music_task_id, route, origin) VALUES ($1, $2, $3, $4)
ON CONFLICT (task_id, music_task_id, route, origin) DO UPDATE SET added_at = now()
"""
_EXPIRE_CANDIDATES = f"DELETE FROM candidates WHERE added_at <= now() - {_CANDIDATE_RETENTION}"  # noqa: S608
_REMOVE_CANDIDATE = """
DELETE FROM candidates WHERE task_id = $1 AND music_task_id = $2 AND route = $3 AND origin = $4
"""


@frozen
class _Transaction:
    """Executes statements in one transaction."""

    _connection: "Connection"

    async def fetch(self, statement: str, *values: Any) -> "list[Record]":
        rows: list[Record] = await self._connection.fetch(statement, *map(_encodable, values))
        return rows

    async def execute(self, statement: str, *values: Any) -> None:
        await self._connection.execute(statement, *map(_encodable, values))

    async def changes(self, statement: str, *values: Any) -> bool:
        """Execute one statement, and return whether it changed a row."""
        status = await self._connection.execute(statement, *map(_encodable, values))
        return not status.endswith(" 0")


class PostgresLedger:
    """A `Ledger` in PostgreSQL 13 or later, which any number of processes and hosts share.

    Use it as an async context manager. Opening it creates its tables, or upgrades those of an
    earlier version; several processes may do that at the same time. The role needs the right to
    create the schema, or a schema of its own.

    If PostgreSQL cannot be reached, every method raises an `OSError`, and works again once it can.
    A change whose commit was not confirmed may have been made or not. A claim of this kind is given
    back by the next call that can be.

    Args:
        url: As libpq reads it: `postgresql://user:password@host/database?sslmode=verify-full`. It
            is never shown.
        schema: The schema of the tables.
        claim_timeout: Seconds after which a song is in doubt whose submit has not ended, since the
            claimant is dead; well above the client's `submit_timeout`.
        wait_timeout: Seconds after which another process may wait for a song, if this one does not
            say any more that it is alive; well above any stall of an event loop.
        max_connections: How many connections are open at most.

    Raises:
        ImportError: asyncpg is not installed.
        ValueError: The URL or the schema's name cannot be used.
        OSError: On opening: PostgreSQL cannot be reached, or it refuses the user.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "kie_cover",
        claim_timeout: float = 900.0,
        wait_timeout: float = 60.0,
        max_connections: int = 4,
    ) -> None:
        self._url, self._schema = _check_url(url), _check_schema(schema)
        validate_number("claim_timeout", claim_timeout, above=0, below=_MAX_DELAY)
        validate_number("wait_timeout", wait_timeout, above=0, below=_MAX_DELAY)
        validate_number("max_connections", max_connections, at_least=1, whole=True)
        self._claim_timeout, self._wait_timeout = float(claim_timeout), float(wait_timeout)
        self._max_connections = max_connections
        self._name = new_claimant()
        self._pool: Pool | None = None
        self._renewals: asyncio.Task[None] | None = None
        self._is_lease_renewed = True
        # The keys of claims that were perhaps committed, and that no caller has.
        self._lost_claims: set[str] = set()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…, schema={self._schema!r})"

    async def __aenter__(self) -> Self:
        import asyncpg  # noqa: PLC0415 - an extra

        if self._pool is not None:
            raise RuntimeError(f"{self!r} is open already")
        pool = self._pool = asyncpg.create_pool(
            self._url,
            # A number of connections that the pool kept open would fill the log in an outage.
            min_size=0,
            max_size=self._max_connections,
            timeout=_CONNECT_TIMEOUT,
            command_timeout=_STATEMENT_TIMEOUT,
            server_settings={
                "application_name": "kie_cover_async",
                "search_path": _quote(self._schema),
                # An administrator may have turned it off for the database or the role.
                "synchronous_commit": "on",
            },
        )
        try:
            await _connect(pool)
            await self._run(self._migrate, is_serial=True)
        except BaseException:
            self._pool = None
            await _close(pool)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections.

        Other processes may then wait for the songs for which this ledger waited. Songs that are
        still claimed by it are in doubt.
        """
        # From now on no call begins.
        pool, self._pool = self._pool, None
        if pool is None:
            return
        renewals, self._renewals = self._renewals, None
        try:
            if renewals is not None:
                renewals.cancel()
                await asyncio.wait([renewals])
            with suppress(OSError):
                await self._run_in(pool, self._say_farewell, is_serial=True)
        finally:
            await _close(pool)

    async def want(self, music_task_ids: Iterable[str]) -> list[str]:
        """Add songs as wanted; see `Ledger`."""
        ids = [_check_id("music_task_ids", each) for each in music_task_ids]

        # Serial: a page after a position must not miss a lower one that is committed later.
        async def want(transaction: _Transaction) -> list[str]:
            new: set[str] = set()
            for first in range(0, len(ids), _MAX_ROWS):
                rows = await transaction.fetch(_WANT, ids[first : first + _MAX_ROWS])
                new.update(song for (song,) in rows)
            return [each for each in dict.fromkeys(ids) if each in new]

        return await self._run(want, is_serial=True)

    async def claim(self, music_task_id: str, api: Api) -> Claim | None:
        """Make a wanted song submitting; see `Ledger`."""
        await self._give_back_lost_claims()
        key = token_hex(16)
        values = (music_task_id, api.route, api.origin, self._name, key)
        try:
            rows = await self._run(lambda transaction: transaction.fetch(_CLAIM, *values))
        except BaseException:
            self._lost_claims.add(key)
            raise
        for (attempt,) in rows:
            return Claim(music_task_id=music_task_id, claimed_by=self._name, attempt=attempt)
        return None

    async def release(
        self, claim: Claim, state: SongState = SongState.WANTED, reason: str | None = None
    ) -> bool:
        """End a claim without an id; see `Ledger`."""
        validate_release(state)
        said = None if reason is None else _shorten(reason)
        values: list[Any] = [said, claim.music_task_id, claim.claimed_by, claim.attempt]
        statement = _RELEASE_WANTED
        if state is not SongState.WANTED:
            statement = _RELEASE
            values.append(state)
        return await self._run(
            lambda transaction: transaction.changes(f"{statement} {_WHERE_SAME_CLAIM}", *values)
        )

    async def record_id(
        self, music_task_id: str, task_id: str, api: Api, *, is_confirmed: bool = False
    ) -> Song | None:
        """Store an id of this song; see `Ledger`."""
        _check_id("task_id", task_id)

        async def record(transaction: _Transaction) -> Song | None:
            if not await transaction.fetch(_IS_KNOWN, music_task_id):
                return None
            await _record_id(transaction, music_task_id, task_id, api, is_confirmed)
            return await _find(transaction, music_task_id)

        return await self._run(record, is_serial=True)

    async def start_wait(self, music_task_id: str, task_id: str) -> bool:
        """Note that this process waits for a song's id; see `Ledger`."""

        async def start(transaction: _Transaction) -> bool:
            await self._renew(transaction)
            row = music_task_id, task_id
            # The next statement sees the lease of a process that held this lock.
            await transaction.execute(_LOCK_SUBMITTED, *row)
            return await transaction.changes(_START_WAIT, *row, self._name)

        is_started = await self._run(start)
        if self._renewals is None and self._pool is not None:
            self._renewals = asyncio.create_task(self._keep_lease())
        return is_started

    async def end_wait(self, music_task_id: str) -> None:
        """Let another process wait for the song; see `Ledger`."""
        await self._run(
            lambda transaction: transaction.execute(_END_WAIT, music_task_id, self._name)
        )

    async def postpone(
        self,
        music_task_id: str,
        task_id: str,
        delay: float,
        trouble: Trouble = Trouble.UNFINISHED,
    ) -> bool:
        """Make a submitted song due in so many seconds, at most ten years; see `Ledger`."""
        validate_number("delay", delay, at_least=0)
        values = (music_task_id, task_id, float(min(delay, _MAX_DELAY)), trouble)
        return await self._run(lambda transaction: transaction.changes(_POSTPONE, *values))

    async def mark_in_doubt(
        self, music_task_id: str, task_id: str, reason: str, *, is_wrong: bool = False
    ) -> bool:
        """Put a song in doubt that is submitted under this id; see `Ledger`."""

        async def mark(transaction: _Transaction) -> bool:
            said = _shorten(reason)
            is_marked = await transaction.changes(_DOUBT, music_task_id, task_id, said)
            if is_marked and is_wrong:
                await transaction.execute(_MARK_WRONG, music_task_id, task_id)
                await transaction.execute(_NEXT_ID, music_task_id)
            return is_marked

        return await self._run(mark, is_serial=True)

    async def mark_failed(self, task_id: str, error: Exception) -> None:
        """Record that there will be no cover of this id; see `Ledger`."""
        if not _is_storable(task_id):
            return
        said = _shorten(f"{type(error).__name__}: {error}")
        details = getattr(error, "details", None)

        async def mark(transaction: _Transaction) -> None:
            if not await transaction.fetch(_FAIL_TASK, task_id, said):
                return
            await transaction.execute(_FAIL, task_id, said)
            if isinstance(error, TaskNotFoundError):
                # Another API may have issued it.
                await transaction.execute(_FORGET_API, task_id)
            if isinstance(details, CoverDetails) and details.task_id == task_id:
                text = json.dumps(unstructure_details(details))
                await transaction.execute(_SET_DETAILS, task_id, text)

        await self._run(mark, is_serial=True)

    async def keep(self, task_id: str) -> None:
        """Make a song kept; the caller has stored all images of this id. See `Ledger`."""
        if not _is_storable(task_id):
            return

        async def keep(transaction: _Transaction) -> None:
            await transaction.execute(_SAVE_TASK, task_id)
            await transaction.execute(_KEEP, task_id)

        await self._run(keep, is_serial=True)

    async def find(self, music_task_id: str) -> Song | None:
        """Return the song; see `Ledger`."""
        await self._give_back_lost_claims()

        async def find(transaction: _Transaction) -> Song | None:
            song = await _find(transaction, music_task_id)
            if song is None or song.state is not SongState.SUBMITTING:
                return song
            await self._doubt_overdue_claims(transaction)
            return await _find(transaction, music_task_id)

        return await self._run(find)

    async def page(
        self, state: SongState | None = None, *, after: int = 0, limit: int = 500, due: bool = False
    ) -> list[Song]:
        """Return songs by ascending position; see `Ledger`."""
        await self._give_back_lost_claims()
        conditions = ["position > $1"]
        values: list[Any] = [after, limit]
        if state is not None:
            conditions.append("songs.state = $3")
            values.append(state)
        if due:
            conditions.append("coalesce(due_at, now()) <= now()")
        statement = f"{_SONGS} WHERE {' AND '.join(conditions)} ORDER BY position LIMIT $2"

        async def page(transaction: _Transaction) -> list[Song]:
            await self._doubt_overdue_claims(transaction)
            return [_parse_song(row) for row in await transaction.fetch(statement, *values)]

        return await self._run(page)

    async def counts(self) -> Mapping[SongState, int]:
        """Return how many songs are in each state; see `Ledger`."""
        rows = await self._run(lambda transaction: transaction.fetch(_COUNTS))
        return dict.fromkeys(SongState, 0) | {SongState(state): count for state, count in rows}

    async def callback_secrets(self) -> tuple[str, ...]:
        """Return the secrets of the songs' callback URLs, the newest first; see `Ledger`."""

        async def read(transaction: _Transaction) -> tuple[str, ...]:
            rows = await transaction.fetch(_SECRETS)
            return tuple(secret for (secret,) in rows) or (await _add_secret(transaction),)

        return await self._run(read, is_serial=True)

    async def rotate_callback_secret(self) -> str:
        """Create a secret for new callback URLs; see `Ledger`."""
        return await self._run(_add_secret, is_serial=True)

    async def add_candidate(self, candidate: Candidate) -> None:
        """Store an id that a callback has named; see `Ledger`."""
        _check_id("candidate.task_id", candidate.task_id)
        if candidate.music_task_id is not None:
            _check_id("candidate.music_task_id", candidate.music_task_id)

        async def add(transaction: _Transaction) -> None:
            await transaction.execute(_EXPIRE_CANDIDATES)
            await transaction.execute(_ADD_CANDIDATE, *_key(candidate))

        await self._run(add, is_serial=True)

    async def candidates(self, api: Api) -> list[Candidate]:
        """Return the candidates of this API; see `Ledger`."""
        rows = await self._run(
            lambda transaction: transaction.fetch(_CANDIDATES, api.route, api.origin)
        )
        return [Candidate(task_id=task, music_task_id=song or None, api=api) for task, song in rows]

    async def remove_candidate(self, candidate: Candidate) -> None:
        """Forget a candidate; see `Ledger`."""
        key = _key(candidate)
        await self._run(lambda transaction: transaction.execute(_REMOVE_CANDIDATE, *key))

    async def settle(
        self,
        music_task_id: str,
        *,
        task_id: str | None = None,
        api: Api | None = None,
        submit_again: bool = False,
        give_up: bool = False,
    ) -> Song:
        """Do what a person decided; see `Ledger`."""
        validate_decision(task_id, api, submit_again=submit_again, give_up=give_up)
        if task_id is not None:
            _check_id("task_id", task_id)
        await self._give_back_lost_claims()

        async def settle(transaction: _Transaction) -> Song:
            await self._doubt_overdue_claims(transaction)
            song = await _find(transaction, music_task_id, " FOR UPDATE OF songs")
            require_settleable(music_task_id, song, submit_again=submit_again, give_up=give_up)
            if task_id is not None and api is not None:
                await _record_id(transaction, music_task_id, task_id, api, is_confirmed=True)
            elif give_up:
                await transaction.execute(_GIVE_UP, music_task_id)
            else:
                await transaction.execute(_SUBMIT_AGAIN, music_task_id)
            [row] = await transaction.fetch(_SONG, music_task_id)
            return _parse_song(row)

        return await self._run(settle, is_serial=True)

    async def _run(
        self, function: Callable[[_Transaction], Awaitable[T]], *, is_serial: bool = False
    ) -> T:
        """Run a function in a transaction; `is_serial` lets one of these run at a time."""
        if self._pool is None:
            raise RuntimeError(f"{self!r} is not open: use `async with`")
        return await self._run_in(self._pool, function, is_serial=is_serial)

    async def _run_in(
        self, pool: "Pool", function: Callable[[_Transaction], Awaitable[T]], *, is_serial: bool
    ) -> T:
        with _database_errors():
            async with (
                pool.acquire(timeout=_CONNECT_TIMEOUT) as connection,
                connection.transaction(isolation="read_committed"),
            ):
                transaction = _Transaction(connection)
                if is_serial:
                    await transaction.execute(_LOCK, self._schema)
                return await function(transaction)

    async def _migrate(self, transaction: _Transaction) -> None:
        """Create the schema, or upgrade that of an earlier version."""
        if not await transaction.fetch(_HAS_SCHEMA, self._schema):
            await transaction.execute(f"CREATE SCHEMA {_quote(self._schema)}")
        version = 0
        [[has_version]] = await transaction.fetch(_HAS_VERSION, _quote(self._schema))
        if has_version:
            [[version]] = await transaction.fetch(_VERSION)
        if version > len(MIGRATIONS):
            raise ValueError(
                f"schema {self._schema} was written by a later version of kie_cover_async: "
                f"it has version {version}, and this release reads up to {len(MIGRATIONS)}"
            )
        for migration in MIGRATIONS[version:]:
            await transaction.execute(migration)
        if version < len(MIGRATIONS):
            await transaction.execute(_SET_VERSION, len(MIGRATIONS))
        await transaction.execute(_FORGET_DEAD_CLAIMANTS)

    async def _give_back_lost_claims(self) -> None:
        """Make songs wanted that this ledger claimed without being told."""
        if keys := [*self._lost_claims]:
            await self._run(lambda transaction: transaction.execute(_GIVE_BACK, _NOT_TOLD, keys))
            self._lost_claims.difference_update(keys)

    async def _doubt_overdue_claims(self, transaction: _Transaction) -> None:
        for position, name in await transaction.fetch(_OVERDUE_CLAIMS, self._claim_timeout):
            said = f"did not end its submit of the song within {self._claim_timeout:g} s"
            await transaction.execute(_DOUBT_CLAIM, position, f"{describe_claimant(name)} {said}")

    async def _say_farewell(self, transaction: _Transaction) -> None:
        await transaction.execute(_GIVE_BACK, _NOT_TOLD, [*self._lost_claims])
        said = f"{describe_claimant(self._name)} ended while it submitted the song"
        await transaction.execute(_DOUBT_CLAIMS_OF, self._name, said)
        await transaction.execute(_FORGET_CLAIMANT, self._name)

    async def _renew(self, transaction: _Transaction) -> None:
        await transaction.execute(_RENEW, self._name, self._wait_timeout)

    async def _keep_lease(self) -> None:
        """Renew the lease of this ledger's waits, until it is cancelled."""
        while True:
            await asyncio.sleep(self._wait_timeout / _RENEWALS)
            try:
                await self._run(self._renew)
            except OSError as error:
                if self._is_lease_renewed:
                    _log.warning("other processes may soon wait for the same songs: %s", error)
                self._is_lease_renewed = False
            else:
                if not self._is_lease_renewed:
                    _log.warning("the ledger in PostgreSQL can be used again")
                self._is_lease_renewed = True


async def _connect(pool: "Pool") -> None:
    """Connect for the first time, which is when asyncpg reads the URL."""
    with _database_errors():
        try:
            await pool
            async with pool.acquire(timeout=_CONNECT_TIMEOUT):
                pass
        except OSError:
            # That a certificate cannot be verified is a `ValueError` as well.
            raise
        except ValueError:
            raise ValueError(_UNREADABLE_URL) from None


async def _close(pool: "Pool") -> None:
    try:
        with suppress(OSError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await pool.close()
    finally:
        pool.terminate()


def _check_url(url: str) -> str:
    """Return the URL of a PostgreSQL server."""
    try:
        import asyncpg  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise ImportError(_HINT) from error
    if not isinstance(url, str) or not url.startswith(_SCHEMES):
        # A URL may have a password, so only its beginning is shown.
        begin = short_repr(url.partition(":")[0] if isinstance(url, str) else type(url).__name__)
        raise ValueError(f"url must begin with {' or '.join(_SCHEMES)}: {begin}")
    return url


def _check_schema(schema: str) -> str:
    is_usable = (
        isinstance(schema, str)
        and schema.isprintable()
        and 0 < len(schema.encode()) <= _MAX_NAME_BYTES
        and not schema.startswith("pg_")
    )
    if not is_usable:
        raise ValueError(
            f"schema must be a printable text of 1 to {_MAX_NAME_BYTES} bytes that does not begin "
            f"with pg_, not {short_repr(schema)}"
        )
    return schema


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def _database_errors() -> Iterator[None]:
    """Turn the errors of asyncpg into an `OSError`."""
    import asyncpg  # noqa: PLC0415 - an extra

    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"the ledger in PostgreSQL cannot be used: {reason}") from error


def _check_id(name: str, value: str) -> str:
    """Return an id that can be stored."""
    if len(validate_task_id(name, value).encode()) > _MAX_ID_BYTES:
        expected = f"an id of at most {_MAX_ID_BYTES} bytes"
        raise ValueError(f"{name} must be {expected}, not {short_repr(value)}")
    return value


def _is_storable(task_id: str) -> bool:
    """Return whether there can be a row of this id."""
    return _encodable(task_id) == task_id and len(task_id.encode()) <= _MAX_ID_BYTES


def _encodable(value: Any) -> Any:
    """Return a text with line breaks for what PostgreSQL cannot store, and other values as is.

    No id has line breaks, so none is found for such a text.
    """
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "replace").decode().replace("\0", "\n")


def _shorten(reason: str) -> str:
    text = reason[:_MAX_REASON_LENGTH].encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00")


async def _add_secret(transaction: _Transaction) -> str:
    secret = token_urlsafe(32)
    await transaction.execute(_ADD_SECRET, secret)
    return secret


async def _record_id(
    transaction: _Transaction, music_task_id: str, task_id: str, api: Api, is_confirmed: bool
) -> None:
    await transaction.execute(_ADD_TASK, task_id, api.route, api.origin)
    await transaction.execute(_LINK, music_task_id, task_id)
    if is_confirmed:
        await transaction.execute(_CONFIRM_LINK, music_task_id, task_id)
        await transaction.execute(_CONFIRM_TASK, task_id)
    await transaction.execute(_SUBMITTED, music_task_id, task_id)
    # The images may have been kept before the id was known to be of this song.
    await transaction.execute(_KEEP, task_id)


async def _find(transaction: _Transaction, music_task_id: str, lock: str = "") -> Song | None:
    for row in await transaction.fetch(f"{_SONG}{lock}", music_task_id):
        return _parse_song(row)
    return None


def _parse_song(row: "Record") -> Song:
    """Return what a row of `songs` says, with its id's row of `tasks`."""
    facts = dict(row)
    for column in ("waited_by", "claim_key"):
        del facts[column]
    own_api = facts.pop("route"), facts.pop("origin")
    task_api = facts.pop("task_route"), facts.pop("task_origin")
    trouble, details = facts.pop("trouble"), facts.pop("details")
    return Song(
        **facts | {"state": SongState(facts["state"]), "other_ids": tuple(facts["other_ids"])},
        trouble=None if trouble is None else Trouble(trouble),
        api=_parse_api(*task_api) or _parse_api(*own_api),
        details=None if details is None else _parse_details(facts["task_id"], details),
    )


def _parse_api(route: str | None, origin: str | None) -> Api | None:
    return None if route is None or origin is None else Api(route=route, origin=origin)


def _parse_details(task_id: str, text: str) -> CoverDetails:
    try:
        return structure_details(json.loads(text))
    except (ValueError, RecursionError, InvalidResponseError):
        raise ValueError(f"details of task {task_id} in the ledger cannot be read") from None


def _key(candidate: Candidate) -> tuple[str, ...]:
    api = candidate.api
    return candidate.task_id, candidate.music_task_id or "", api.route, api.origin
