"""The ledger of songs: one row per song says who may submit it, and what came of it.

`Ledger` is the protocol. The row is written before anything is submitted, and no song is submitted
twice unless a person says so.
"""

import os
import socket
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from secrets import token_hex
from typing import Protocol

from attrs import field, frozen

from .errors import KieCoverError
from .models import CoverDetails


class SongState(StrEnum):
    """The state of a song in the ledger.

    `WANTED` may be submitted; `SUBMITTING` is claimed by one process. `SUBMITTED` has an id that is
    waited for. `IN_DOUBT` may have been accepted, under an id that is unknown: only a callback or
    `Ledger.settle` ends that. `KEPT` has all its images.
    """

    WANTED = "wanted"
    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    IN_DOUBT = "in_doubt"
    FAILED = "failed"
    KEPT = "kept"


class Trouble(StrEnum):
    """Why a song is still submitted after it was waited for.

    `UNFINISHED` is a cover that takes longer, or an error that may pass. `MISSING` means that every
    poll found no record of the id, and `GONE` that the images cannot be fetched any more.
    """

    UNFINISHED = "unfinished"
    MISSING = "missing"
    GONE = "gone"


# To which states a claim is released, and from which states a person settles a song.
_RELEASED = (SongState.WANTED, SongState.FAILED, SongState.IN_DOUBT)
_SUBMITTED_AGAIN = {SongState.IN_DOUBT, SongState.FAILED}
_GIVEN_UP = {SongState.IN_DOUBT, SongState.WANTED}


@frozen(kw_only=True)
class Api:
    """The route and the origin of the API that issued an id; no other one knows the id."""

    route: str
    origin: str


@frozen(kw_only=True)
class Claim:
    """The right to submit a song once. A later claim of the same song has a higher `attempt`."""

    music_task_id: str
    claimed_by: str
    attempt: int


@frozen(kw_only=True)
class Song:
    """One row of the ledger.

    `task_id` is the cover's id that is waited for or kept, and `other_ids` are further ids of the
    song. `api` is set while the song is claimed or has an id. `reason` says why the song is in this
    state. If the song was postponed, `trouble` says why, `trouble_count` how often in a row it was
    this trouble, and `trouble_since` since when. `position` grows in the order in which songs were
    added. Times are in UTC.
    """

    music_task_id: str
    position: int
    state: SongState
    task_id: str | None = None
    other_ids: tuple[str, ...] = ()
    api: Api | None = None
    claimed_by: str | None = None
    claimed_at: datetime | None = None
    attempt: int = 0
    due_at: datetime | None = None
    trouble: Trouble | None = None
    trouble_count: int = 0
    trouble_since: datetime | None = None
    reason: str | None = None
    details: CoverDetails | None = None
    added_at: datetime
    changed_at: datetime


@frozen(kw_only=True)
class Candidate:
    """An id that a callback has named, and that no poll has confirmed yet.

    `music_task_id` is the song at whose own URL the callback came, or `None`.
    """

    task_id: str
    api: Api
    music_task_id: str | None = None


@frozen(kw_only=True)
class SongOutcome:
    """What one run knows of a song in the end.

    `images` says where the images are: their paths, or their keys in an object store. `error` is
    the one that this run met; `song.reason` has the words of earlier ones, too.
    """

    song: Song
    images: tuple[str, ...] = ()
    error: KieCoverError | None = field(default=None, eq=False)

    @property
    def ok(self) -> bool:
        """Whether all images are kept."""
        return self.song.state is SongState.KEPT


class SettlementError(ValueError):
    """`Ledger.settle` cannot do this to the song in its present state; nothing was changed."""

    def __init__(self, music_task_id: str, reason: str) -> None:
        super().__init__(music_task_id, reason)
        self.music_task_id: str = music_task_id
        self.reason: str = reason

    def __str__(self) -> str:
        return f"song {self.music_task_id} cannot be settled like this: {self.reason}"


class Ledger(Protocol):
    """Stores songs. Each method is one transaction, by the clock of the store.

    A method whose guard fails changes nothing. A power failure does not undo what `claim`,
    `record_id` and `add_candidate` have returned. `find`, `page` and `settle` first put songs in
    doubt whose claimant is dead.
    """

    async def want(self, music_task_ids: Iterable[str]) -> list[str]:
        """Add songs as wanted, and return those that are new; known ones stay as they are."""

    async def claim(self, music_task_id: str, api: Api) -> Claim | None:
        """Make a wanted song submitting; return `None` if it is not wanted."""

    async def release(
        self, claim: Claim, state: SongState = SongState.WANTED, reason: str | None = None
    ) -> bool:
        """End a claim without an id; return whether the song was still submitting under it.

        Args:
            claim: What `claim` returned.
            state: `WANTED` if the submit was certainly not accepted, `FAILED` if this song was
                refused, `IN_DOUBT` if it may have been accepted.
            reason: Why.
        """

    async def record_id(
        self, music_task_id: str, task_id: str, api: Api, *, is_confirmed: bool = False
    ) -> Song | None:
        """Store an id of this song, from any source, and return the song if it is known.

        A song without an id that may succeed becomes submitted. For a song that is submitted or
        kept, another id is added to `other_ids`. An id that is known to have failed or to belong to
        another song changes nothing, unless `is_confirmed`: a poll shows that it is this song's and
        has not failed.
        """

    async def start_wait(self, music_task_id: str, task_id: str) -> bool:
        """Note that this process waits for a song's id, until `end_wait` or a change.

        Return `False` if another live process does, or if the song is not submitted under this id.
        """

    async def end_wait(self, music_task_id: str) -> None:
        """Let another process wait for the song, since this one does not any more."""

    async def postpone(
        self,
        music_task_id: str,
        task_id: str,
        delay: float,
        trouble: Trouble = Trouble.UNFINISHED,
    ) -> bool:
        """Make a submitted song due in so many seconds; this process waits no more."""

    async def mark_in_doubt(
        self, music_task_id: str, task_id: str, reason: str, *, is_wrong: bool = False
    ) -> bool:
        """Put a song in doubt that is submitted under this id.

        Args:
            music_task_id: The song.
            task_id: The id that is waited for.
            reason: Why.
            is_wrong: Whether the id belongs to another song, and moves to `other_ids`. If the song
                has an id that may still succeed, it stays submitted under that one.
        """

    async def mark_failed(self, task_id: str, error: Exception) -> None:
        """Record that there will be no cover of this id, and why.

        A song that is submitted under it is submitted under another id that may still succeed, or
        else failed.
        """

    async def keep(self, task_id: str) -> None:
        """Make a song kept whose images of this id are all stored."""

    async def find(self, music_task_id: str) -> Song | None:
        """Return the song, or `None` if it is unknown."""

    async def page(
        self, state: SongState | None = None, *, after: int = 0, limit: int = 500, due: bool = False
    ) -> list[Song]:
        """Return songs by ascending `position`.

        Args:
            state: Only songs in this state.
            after: Only songs of a higher position.
            limit: How many songs at most.
            due: Only songs that are not postponed to a later time.
        """

    async def counts(self) -> Mapping[SongState, int]:
        """Return how many songs are in each state, by one cheap statement."""

    async def callback_secrets(self) -> tuple[str, ...]:
        """Return the secrets of the songs' callback URLs, the newest first; create the first one.

        `callbacks.SongCallbackUrls` makes URLs by the newest one, and accepts those of the others.
        """

    async def rotate_callback_secret(self) -> str:
        """Create a secret for new callback URLs, and return it; earlier ones stay accepted."""

    async def add_candidate(self, candidate: Candidate) -> None:
        """Store an id that a callback has named, until `remove_candidate`; this changes no song."""

    async def candidates(self, api: Api) -> list[Candidate]:
        """Return the candidates of this API. They are forgotten after three days."""

    async def remove_candidate(self, candidate: Candidate) -> None:
        """Forget a candidate, since a poll has confirmed or refuted it."""

    async def settle(
        self,
        music_task_id: str,
        *,
        task_id: str | None = None,
        api: Api | None = None,
        submit_again: bool = False,
        give_up: bool = False,
    ) -> Song:
        """Do what a person decided, one of three things, and return the song.

        Args:
            music_task_id: The song.
            task_id: The id to wait for; poll it first.
            api: The API that issued this id.
            submit_again: Make a song wanted that is in doubt or failed.
            give_up: Make a song failed that is in doubt or wanted.

        Raises:
            SettlementError: The song is unknown, is submitting, or is in a state that does not
                allow this. If it is submitting, the message names the claimant's host and process.
        """


def validate_release(state: SongState) -> None:
    """Raise `ValueError` unless a claim can be released to this state."""
    if state not in _RELEASED:
        raise ValueError(f"state must be one of {', '.join(_RELEASED)}, not {state}")


def validate_decision(
    task_id: str | None, api: Api | None, *, submit_again: bool, give_up: bool
) -> None:
    """Raise `TypeError` unless these are the arguments of one decision of `Ledger.settle`."""
    if [task_id is not None, submit_again, give_up].count(True) != 1:
        raise TypeError("give one of task_id, submit_again and give_up")
    if (task_id is None) != (api is None):
        raise TypeError("api must be given with task_id, and only then")


def require_settleable(
    music_task_id: str, song: Song | None, *, submit_again: bool, give_up: bool
) -> None:
    """Raise `SettlementError` unless the song's state allows this decision.

    Without `submit_again` and `give_up`, the decision is to store an id.
    """
    if song is None:
        raise SettlementError(music_task_id, "the ledger does not have it")
    if song.state is SongState.SUBMITTING:
        claimant = describe_claimant(str(song.claimed_by))
        raise SettlementError(
            music_task_id, f"{claimant} is submitting it; end that process, then settle"
        )
    is_allowed = song.state in (_SUBMITTED_AGAIN if submit_again else _GIVEN_UP)
    if (submit_again or give_up) and not is_allowed:
        raise SettlementError(music_task_id, f"it is {song.state}")


def new_claimant() -> str:
    """Return a unique name for an open ledger: its host, its process, and a random token."""
    return f"{socket.gethostname()}:{os.getpid()}:{token_hex(8)}"


def describe_claimant(claimed_by: str) -> str:
    """Return the host and the process of a claimant for a message."""
    host, _, process = claimed_by.rpartition(":")[0].rpartition(":")
    return f"process {process} on {host}"
