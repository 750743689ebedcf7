"""What tests of songs share: one process's share of a run, and what the emulator received of it."""

import asyncio
from typing import Any

import pytest

from kie_cover_async import CoverClient
from kie_cover_async.archive import CoverArchive
from kie_cover_async.emulator import CoverEmulator, Fault
from kie_cover_async.jobs import RunStoppedError, SongJob, make_covers
from kie_cover_async.jobs.stream import ArchiveImages
from kie_cover_async.ledger import SongOutcome

CALLBACK = "https://example.com/covers"
SUBMITS = {"generate", "createTask"}


class Run:
    """A client and an archive, as one process has them."""

    def __init__(self, client: CoverClient, archive: CoverArchive) -> None:
        self.client, self.archive, self.ledger = client, archive, archive.ledger

    def job(self, ledger: Any = None, **settings: Any) -> SongJob:
        """Return a job on the ledger, or on another one, that the caller runs."""
        return SongJob(
            client=self.client,
            ledger=ledger or self.ledger,
            images=ArchiveImages(self.archive),
            callback_url=CALLBACK,
            **settings,
        )

    def stream(self, songs: Any = None, **settings: Any) -> Any:
        return make_covers(
            self.client, self.archive, songs, **{"callback_url": CALLBACK, **settings}
        )

    async def outcomes(self, songs: Any = None, **settings: Any) -> dict[str, SongOutcome]:
        """Run to the end, and return the outcome of each song; each must have one."""
        found: dict[str, SongOutcome] = {}
        await collect(self.stream(songs, **settings), found)
        return found

    async def until_stopped(
        self, songs: Any = None, **settings: Any
    ) -> tuple[RunStoppedError, dict[str, SongOutcome]]:
        """Run until the iteration raises; return the error, and the outcomes before it."""
        stream, found = self.stream(songs, **settings), {}
        with pytest.raises(RunStoppedError) as caught:
            await collect(stream, found)
        assert [each async for each in stream] == []
        return caught.value, found

    async def states(self, songs: Any = None, **settings: Any) -> dict[str, str]:
        """Run to the end, and return the state of each song's outcome."""
        outcomes = await self.outcomes(songs, **settings)
        return {song: each.song.state.value for song, each in outcomes.items()}

    async def state(self, song: str) -> str | None:
        """Return the state of a song in the ledger."""
        found = await self.ledger.find(song)
        return None if found is None else found.state.value


async def collect(stream: Any, found: dict[str, SongOutcome]) -> None:
    """Take all outcomes of a stream, of which each song must have one."""
    async with asyncio.timeout(30):
        async for each in stream:
            assert each.song.music_task_id not in found
            found[each.song.music_task_id] = each


def submits(emulator: CoverEmulator) -> list[str | None]:
    """Return the songs of the submits that the emulator received, in order."""
    return [each.task_id for each in emulator.requests if each.endpoint in SUBMITS]


def refuse(
    emulator: CoverEmulator, code: int, msg: str = "no", data: Any = None, **when: Any
) -> None:
    """Let the emulator refuse submits with this code; all, or those that `when` says."""
    fault = Fault.answer(200, {"code": code, "msg": msg, "data": data})
    when = when if {"count", "rate"} & {*when} else {"rate": 1.0, **when}
    emulator.fault(fault, endpoint="submit", **when)
