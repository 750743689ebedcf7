"""`SqliteLedger`: the songs in the archive's database.

Its trigger on `tasks` makes a song kept or failed in the transaction that saves or fails its cover.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from secrets import token_urlsafe
from typing import Any, Protocol, TypeVar

from kie_cover_async.ledger import (
    Api,
    Candidate,
    Claim,
    Song,
    SongState,
    Trouble,
    describe_claimant,
    require_settleable,
    validate_decision,
    validate_release,
)
from kie_cover_async.validation import is_one_word, validate_number, validate_task_id

from . import covers
from .covers import parse_api, parse_details, parse_time, require, storable
from .database import COLUMNS, NO_WAIT, NOW, OPEN_ID, ArchiveDatabase
from .locking import is_claimant_alive

T = TypeVar("T")

_MAX_REASON_LENGTH = 500
_STATES, _TROUBLES = {*SongState}, {None, *Trouble}
_COLUMNS = COLUMNS["songs"].removesuffix(", waited_by").split(", ")
# An id has its API in its own row.
_SONGS = f"""
SELECT {", ".join(f"songs.{name}" for name in _COLUMNS)},
    tasks.route, tasks.origin, tasks.details
FROM songs LEFT JOIN tasks ON tasks.task_id = songs.task_id
"""  # noqa: S608 - constants, as in all statements here
_OTHER_IDS = """
SELECT task_id FROM song_tasks WHERE music_task_id = ? AND task_id IS NOT ? ORDER BY rowid
"""
_WANT = f"""
INSERT OR IGNORE INTO songs (music_task_id, state, added_at, changed_at)
VALUES (?, 'wanted', {NOW}, {NOW})
"""  # noqa: S608
_CLAIM = f"""
UPDATE songs SET state = 'submitting', route = ?, origin = ?, claimed_by = ?, claimed_at = {NOW},
    attempt = attempt + 1, reason = NULL, changed_at = {NOW}
WHERE music_task_id = ? AND state = 'wanted'
"""  # noqa: S608
_ATTEMPT = "SELECT attempt FROM songs WHERE music_task_id = ?"
_RELEASE = f"""
UPDATE songs SET state = ?, reason = ?, changed_at = {NOW}
WHERE music_task_id = ? AND state = 'submitting' AND claimed_by = ? AND attempt = ?
"""  # noqa: S608
_CLAIMANTS = "SELECT DISTINCT claimed_by FROM songs WHERE state = 'submitting'"
_DOUBT_CLAIMANT = f"""
UPDATE songs SET state = 'in_doubt', reason = ?, changed_at = {NOW}
WHERE state = 'submitting' AND claimed_by = ?
"""  # noqa: S608
_LINK = "INSERT OR IGNORE INTO song_tasks (music_task_id, task_id) VALUES (?, ?)"
_CONFIRM_LINK = "UPDATE song_tasks SET is_wrong = 0 WHERE music_task_id = ? AND task_id = ?"
_CONFIRM_TASK = (
    "UPDATE tasks SET state = 'pending', error = NULL WHERE task_id = ? AND state = 'failed'"
)
_SUBMITTED = f"""
UPDATE songs SET state = 'submitted', task_id = ?, {NO_WAIT}, reason = NULL,
    changed_at = {NOW}
WHERE music_task_id = ? AND state IN ('wanted', 'submitting', 'in_doubt', 'failed') AND EXISTS (
    SELECT * FROM song_tasks JOIN tasks USING (task_id)
    WHERE music_task_id = ? AND task_id = ? AND NOT is_wrong AND tasks.state != 'failed'
)
"""  # noqa: S608
# The trigger reads the unchanged state again.
_FOLLOW = "UPDATE tasks SET state = state WHERE task_id = ? AND state = 'saved'"
_WHERE_SUBMITTED = "WHERE music_task_id = ? AND task_id = ? AND state = 'submitted'"
_WAITER = f"SELECT waited_by FROM songs {_WHERE_SUBMITTED}"  # noqa: S608
_START_WAIT = f"UPDATE songs SET waited_by = ? {_WHERE_SUBMITTED} AND waited_by IS ?"  # noqa: S608
_END_WAIT = "UPDATE songs SET waited_by = NULL WHERE music_task_id = ? AND waited_by = ?"
_POSTPONE = f"""
UPDATE songs SET due_at = {NOW} + ?, waited_by = NULL, trouble = ?,
    trouble_count = CASE WHEN trouble IS ? THEN trouble_count ELSE 0 END + 1,
    trouble_since = CASE WHEN trouble IS ? THEN trouble_since ELSE {NOW} END
WHERE music_task_id = ? AND task_id = ? AND state = 'submitted'
"""  # noqa: S608
_DOUBT = f"""
UPDATE songs SET state = 'in_doubt', {NO_WAIT}, reason = ?, changed_at = {NOW}
{_WHERE_SUBMITTED}
"""  # noqa: S608
_MARK_WRONG = "UPDATE song_tasks SET is_wrong = 1 WHERE music_task_id = ? AND task_id = ?"
_NEXT_ID = f"""
UPDATE songs SET task_id = ({OPEN_ID}),
    state = CASE WHEN ({OPEN_ID}) IS NULL THEN 'in_doubt' ELSE 'submitted' END
WHERE music_task_id = ?
"""  # noqa: S608
_SETTLE = f"""
UPDATE songs SET state = ?, reason = ?, changed_at = {NOW} WHERE music_task_id = ?
"""  # noqa: S608
# A wanted song runs on any client, and what is known of its ids is in `song_tasks`.
_FORGET_ID = "UPDATE songs SET task_id = NULL, route = NULL, origin = NULL WHERE music_task_id = ?"
_COUNTS = "SELECT state, count(*) FROM songs GROUP BY state"
_SECRETS = "SELECT secret FROM callback_secrets ORDER BY number DESC"
_ADD_SECRET = f"INSERT INTO callback_secrets (secret, added_at) VALUES (?, {NOW})"  # noqa: S608
# Seconds for which a candidate is polled by each run.
_CANDIDATE_RETENTION = 3 * 86_400
_CANDIDATES = f"""
SELECT task_id, nullif(music_task_id, '') FROM candidates
WHERE route = ? AND origin = ? AND added_at > {NOW} - {_CANDIDATE_RETENTION} ORDER BY rowid
"""  # noqa: S608
_ADD_CANDIDATE = f"INSERT OR REPLACE INTO candidates VALUES (?, ?, ?, ?, {NOW})"  # noqa: S608
_EXPIRE_CANDIDATES = f"DELETE FROM candidates WHERE added_at <= {NOW} - {_CANDIDATE_RETENTION}"  # noqa: S608
_REMOVE_CANDIDATE = """
DELETE FROM candidates WHERE task_id = ? AND music_task_id = ? AND route = ? AND origin = ?
"""


class Query(Protocol):
    """Runs a function on the database, in its thread; durably if it commits."""

    def __call__(self, function: Callable[[ArchiveDatabase], T], /) -> Awaitable[T]:
        """Return the function's result."""


class SqliteLedger:
    """The `Ledger` of an archive's folder; `CoverArchive.ledger` returns it.

    Claims and ids that are stored at the same moment share one flush of the disk.

    A claimant is dead if its lock file is unlocked, which the end of its process does.
    """

    def __init__(self, query: Query, commit: Query) -> None:
        self._query, self._commit = query, commit

    async def want(self, music_task_ids: Iterable[str]) -> list[str]:
        """Add songs as wanted; see `Ledger`."""
        ids = [validate_task_id("music_task_ids", each) for each in music_task_ids]

        def want(database: ArchiveDatabase) -> list[str]:
            with database.transaction():
                return [each for each in ids if database.changes(_WANT, each)]

        return await self._query(want)

    async def claim(self, music_task_id: str, api: Api) -> Claim | None:
        """Make a wanted song submitting; see `Ledger`."""

        def claim(database: ArchiveDatabase) -> Claim | None:
            database.claimant.hold()
            name = database.claimant.name
            if not database.changes(_CLAIM, api.route, api.origin, name, music_task_id):
                return None
            [attempt] = database.execute(_ATTEMPT, music_task_id).fetchone()
            return Claim(music_task_id=music_task_id, claimed_by=name, attempt=attempt)

        return await self._commit(claim)

    async def release(
        self, claim: Claim, state: SongState = SongState.WANTED, reason: str | None = None
    ) -> bool:
        """End a claim without an id; see `Ledger`."""
        validate_release(state)
        said = None if reason is None else _shorten(reason)

        def release(database: ArchiveDatabase) -> bool:
            with database.transaction():
                same_claim = (claim.music_task_id, claim.claimed_by, claim.attempt)
                is_released = database.changes(_RELEASE, state, said, *same_claim)
                if is_released and state is SongState.WANTED:
                    database.execute(_FORGET_ID, claim.music_task_id)
                return is_released

        return await self._query(release)

    async def record_id(
        self, music_task_id: str, task_id: str, api: Api, *, is_confirmed: bool = False
    ) -> Song | None:
        """Store an id of this song; see `Ledger`."""
        validate_task_id("task_id", task_id)

        def record(database: ArchiveDatabase) -> Song | None:
            if database.execute(_ATTEMPT, music_task_id).fetchone() is None:
                return None
            _record_id(database, music_task_id, task_id, api, is_confirmed)
            return _read(database, music_task_id)

        return await self._commit(record)

    async def start_wait(self, music_task_id: str, task_id: str) -> bool:
        """Note that this process waits for a song's id; see `Ledger`."""

        def start(database: ArchiveDatabase) -> bool:
            database.claimant.hold()
            own, row = database.claimant.name, (music_task_id, task_id)
            for (other,) in database.execute(_WAITER, *row).fetchall():
                is_free = other is None or not is_claimant_alive(database.folder, str(other))
                return other == own or (is_free and database.changes(_START_WAIT, own, *row, other))
            return False

        return await self._query(start)

    async def end_wait(self, music_task_id: str) -> None:
        """Let another process wait for the song; see `Ledger`."""
        await self._query(
            lambda database: database.changes(_END_WAIT, music_task_id, database.claimant.name)
        )

    async def postpone(
        self,
        music_task_id: str,
        task_id: str,
        delay: float,
        trouble: Trouble = Trouble.UNFINISHED,
    ) -> bool:
        """Make a submitted song due in so many seconds; see `Ledger`."""
        validate_number("delay", delay, at_least=0)
        values = (delay, trouble, trouble, trouble, music_task_id, task_id)
        return await self._query(lambda database: database.changes(_POSTPONE, *values))

    async def mark_in_doubt(
        self, music_task_id: str, task_id: str, reason: str, *, is_wrong: bool = False
    ) -> bool:
        """Put a song in doubt that is submitted under this id; see `Ledger`."""

        def mark(database: ArchiveDatabase) -> bool:
            with database.transaction():
                said = _shorten(reason)
                is_marked = database.changes(_DOUBT, said, music_task_id, task_id)
                if is_marked and is_wrong:
                    database.execute(_MARK_WRONG, music_task_id, task_id)
                    database.execute(_NEXT_ID, music_task_id)
                return is_marked

        return await self._query(mark)

    async def mark_failed(self, task_id: str, error: Exception) -> None:
        """Record that there will be no cover of this id; see `Ledger`."""
        await self._query(lambda database: covers.mark_failed(database, task_id, error))

    async def keep(self, task_id: str) -> None:
        """Do nothing: the archive makes the song kept when it saves the cover; see `Ledger`."""

    async def find(self, music_task_id: str) -> Song | None:
        """Return the song; see `Ledger`."""

        def find(database: ArchiveDatabase) -> Song | None:
            song = _find(database, music_task_id)
            if song is None or song.state is not SongState.SUBMITTING:
                return song
            _doubt_dead_claims(database)
            return _read(database, music_task_id)

        return await self._query(find)

    async def page(
        self, state: SongState | None = None, *, after: int = 0, limit: int = 500, due: bool = False
    ) -> list[Song]:
        """Return songs by ascending position; see `Ledger`."""
        conditions: list[str] = ["position > ?"]
        values: list[Any] = [after, limit]
        if state is not None:
            conditions.append("songs.state = ?")
            values.insert(1, state)
        if due:
            conditions.append(f"coalesce(due_at, 0) <= {NOW}")
        which = f"WHERE {' AND '.join(conditions)} ORDER BY position LIMIT ?"

        def page(database: ArchiveDatabase) -> list[Song]:
            _doubt_dead_claims(database)
            return _select(database, which, *values)

        return await self._query(page)

    async def counts(self) -> Mapping[SongState, int]:
        """Return how many songs are in each state; see `Ledger`."""
        rows = await self._query(lambda database: database.execute(_COUNTS).fetchall())
        return dict.fromkeys(SongState, 0) | {SongState(state): count for state, count in rows}

    async def callback_secrets(self) -> tuple[str, ...]:
        """Return the secrets of the songs' callback URLs, the newest first; see `Ledger`."""

        def read(database: ArchiveDatabase) -> tuple[str, ...]:
            return _secrets(database) or (_add_secret(database),)

        return await self._commit(read)

    async def rotate_callback_secret(self) -> str:
        """Create a secret for new callback URLs; see `Ledger`."""

        return await self._commit(_add_secret)

    async def add_candidate(self, candidate: Candidate) -> None:
        """Store an id that a callback has named; see `Ledger`."""

        def add(database: ArchiveDatabase) -> None:
            database.execute(_EXPIRE_CANDIDATES)
            database.execute(_ADD_CANDIDATE, *_key(candidate))

        await self._commit(add)

    async def candidates(self, api: Api) -> list[Candidate]:
        """Return the candidates of this API; see `Ledger`."""

        def read(database: ArchiveDatabase) -> list[Candidate]:
            rows = database.execute(_CANDIDATES, api.route, api.origin).fetchall()
            for row in rows:
                for column, value in zip(("task_id", "music_task_id"), row, strict=True):
                    require(value is None or is_one_word(value), row[0], column, value)
            return [Candidate(task_id=task, music_task_id=song, api=api) for task, song in rows]

        return await self._query(read)

    async def remove_candidate(self, candidate: Candidate) -> None:
        """Forget a candidate; see `Ledger`."""
        key = _key(candidate)
        await self._query(lambda database: database.changes(_REMOVE_CANDIDATE, *key))

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

        def settle(database: ArchiveDatabase) -> Song:
            _doubt_dead_claims(database)
            song = _find(database, music_task_id)
            require_settleable(music_task_id, song, submit_again=submit_again, give_up=give_up)
            if task_id is not None and api is not None:
                _record_id(database, music_task_id, task_id, api, is_confirmed=True)
            elif give_up:
                database.execute(_SETTLE, SongState.FAILED, "given up", music_task_id)
            else:
                database.execute(_SETTLE, SongState.WANTED, None, music_task_id)
                database.execute(_FORGET_ID, music_task_id)
            return _read(database, music_task_id)

        return await self._commit(settle)


def _doubt_dead_claims(database: ArchiveDatabase) -> None:
    """Put songs in doubt whose claimant has ended without an answer."""
    for (name,) in database.execute(_CLAIMANTS).fetchall():
        if name != database.claimant.name and not is_claimant_alive(database.folder, str(name)):
            said = f"{describe_claimant(str(name))} ended while it submitted the song"
            database.execute(_DOUBT_CLAIMANT, said, name)


def _record_id(
    database: ArchiveDatabase, music_task_id: str, task_id: str, api: Api, is_confirmed: bool
) -> None:
    covers.add_one(database, task_id, api)
    database.execute(_LINK, music_task_id, task_id)
    if is_confirmed:
        database.execute(_CONFIRM_LINK, music_task_id, task_id)
        database.execute(_CONFIRM_TASK, task_id)
    database.execute(_SUBMITTED, task_id, music_task_id, music_task_id, task_id)
    # The archive may have saved the cover before it was known to be of this song.
    database.execute(_FOLLOW, task_id)


def _find(database: ArchiveDatabase, music_task_id: str) -> Song | None:
    return next(iter(_select(database, "WHERE music_task_id = ?", music_task_id)), None)


def _read(database: ArchiveDatabase, music_task_id: str) -> Song:
    [song] = _select(database, "WHERE music_task_id = ?", music_task_id)
    return song


def _select(database: ArchiveDatabase, which: str, *values: Any) -> list[Song]:
    return [
        _parse_song(row, database.execute(_OTHER_IDS, row[1], row[3]).fetchall())
        for row in database.execute(f"{_SONGS} {which}", *values).fetchall()
    ]


def _parse_song(row: Sequence[Any], other_ids: Sequence[tuple[Any]]) -> Song:
    """Return what a row of `songs` says, with its id's row of `tasks`."""
    facts = dict(zip(_COLUMNS, row, strict=False))
    song = facts["music_task_id"]
    require(is_one_word(song), song, "music_task_id", song)
    for column in ("task_id", "reason", "claimed_by"):
        is_text = isinstance(facts[column], (str, type(None)))
        require(is_text, song, column, facts[column])
    require(type(facts["attempt"]) is int, song, "attempt", facts["attempt"])
    require(facts["state"] in _STATES, song, "state", facts["state"])
    require(type(facts["trouble_count"]) is int, song, "trouble_count", facts["trouble_count"])
    require(facts["trouble"] in _TROUBLES, song, "trouble", facts["trouble"])
    for column in ("claimed_at", "due_at", "trouble_since", "added_at", "changed_at"):
        if facts[column] is not None:
            facts[column] = parse_time(song, column, facts[column])
    trouble = facts.pop("trouble")
    own_api, (*task_api, details) = (facts.pop("route"), facts.pop("origin")), row[-3:]
    return Song(
        **facts | {"state": SongState(facts["state"])},
        trouble=None if trouble is None else Trouble(trouble),
        other_ids=tuple(task_id for (task_id,) in other_ids),
        api=parse_api(song, task_api) or parse_api(song, own_api),
        details=None if details is None else parse_details(facts["task_id"], details),
    )


def _key(candidate: Candidate) -> tuple[str, ...]:
    api = candidate.api
    return candidate.task_id, candidate.music_task_id or "", api.route, api.origin


def _secrets(database: ArchiveDatabase) -> tuple[str, ...]:
    secrets = tuple(secret for (secret,) in database.execute(_SECRETS).fetchall())
    for secret in secrets:
        is_usable = isinstance(secret, str) and secret.isprintable()
        require(is_usable, "callback_secrets", "secret", "(not shown here)")
    return secrets


def _add_secret(database: ArchiveDatabase) -> str:
    secret = token_urlsafe(32)
    database.execute(_ADD_SECRET, secret)
    return secret


def _shorten(reason: str) -> str:
    return storable(reason[:_MAX_REASON_LENGTH])
