"""`songs` and `settle`: what the archive's ledger says of each song, and what a person decides."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated

import typer
from attrs import define
from rich.text import Text

from kie_cover_async import CoverClient, InvalidTaskIdError
from kie_cover_async.archive import CoverArchive
from kie_cover_async.cli import options, output, records
from kie_cover_async.cli.client import open_archive, open_client
from kie_cover_async.cli.ids import SONGS, STDIN, open_ids
from kie_cover_async.jobs import settle_song
from kie_cover_async.ledger import SettlementError, Song, SongState
from kie_cover_async.validation import validate_task_id


@options.command(
    """List the songs of an archive, and what became of each.

    A song is wanted, submitting, submitted, in_doubt, failed or kept. If it is in doubt, it may
    have been submitted, and only a callback or `settle` ends that.
    """,
    example="songs --out covers --state in_doubt",
)
async def songs(
    *,
    out: options.Out = "covers",
    state: Annotated[
        SongState | None,
        options.option(f"[{'|'.join(SongState)}]", "Only the songs in this state."),
    ] = None,
    as_json: options.Json = False,
) -> int:
    async with open_archive(out, create=False) as archive:
        if as_json:
            async for song in archive.songs(state):
                output.emit_json(records.song_fields(song))
            return output.DONE
        found = [song async for song in archive.songs(state)]
    if found:
        output.emit_renderables(*_table(found))
    else:
        output.say(f"no songs in {out}" if state is None else f"no songs in {out} are {state}")
    return output.DONE


def _table(found: Sequence[Song]) -> Iterator[Text]:
    """Yield the lines of a table that is never wrapped, so that ids can be copied."""
    rows = [_row(song) for song in found]
    header = ("SONG", "STATE", "COVER", "REASON")
    *widths, _ = (max(map(len, column)) for column in zip(header, *rows, strict=True))
    yield Text(_padded(header, widths), "dim")
    for music_task_id, state, *rest in rows:
        line = Text(f"{music_task_id:<{widths[0]}}  ")
        line.append(f"{state:<{widths[1]}}", records.style_of(state))
        line.append(f"  {_padded(rest, widths[2:])}")
        line.rstrip()
        yield line


def _row(song: Song) -> tuple[str, ...]:
    state = records.state_words(song.state)
    cells = (song.music_task_id, state, song.task_id or "", song.reason or "")
    return tuple(map(output.one_line, cells))


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    *columns, last = cells
    return "  ".join([*map(str.ljust, columns, widths), last])


# Returns the song after the decision; raises `SettlementError` if its state does not allow it.
Decide = Callable[[CoverArchive, str], Awaitable[Song]]


@options.command(
    """Decide what becomes of songs that are in doubt: they may have been submitted.

    Give exactly one of --task-id, --submit-again and --give-up. A new submit costs credits, perhaps
    a second time. --submit-again is also for songs that failed, and --give-up for songs that are
    wanted. Nothing is submitted before the next `make`.

    Exits with 1 if a song cannot be settled like this.
    """,
    example="settle --all --submit-again --out covers",
)
async def settle(
    music_task_ids: Annotated[
        list[str] | None,
        options.id_argument("SONG", "The music tasks' ids; - reads them from stdin.", SONGS),
    ] = None,
    *,
    all_in_doubt: Annotated[
        bool, typer.Option("--all", help="All songs that are in doubt, instead of SONG.")
    ] = False,
    task_id: Annotated[
        str | None,
        options.option("ID", "The cover task's id of the one SONG; it is polled first."),
    ] = None,
    submit_again: Annotated[
        bool, typer.Option("--submit-again", help="Let the next make submit them again.")
    ] = False,
    give_up: Annotated[bool, typer.Option("--give-up", help="Make no covers of them.")] = False,
    out: options.Out = "covers",
    route: options.Route = None,
    base_url: options.BaseUrl = None,
    as_json: options.Json = False,
) -> int:
    if [task_id is not None, submit_again, give_up].count(True) != 1:
        raise output.UsageError("give one of --task-id ID, --submit-again and --give-up")
    given = music_task_ids or ()
    if bool(given) == all_in_doubt:
        raise output.UsageError("give either songs or --all")
    if task_id is None:
        decide = partial(_decide, submit_again=submit_again, give_up=give_up)
        return await _settle(out, given, decide, as_json=as_json)
    if len(given) != 1 or STDIN in given:
        raise output.UsageError("--task-id must be given with exactly one song")
    validate_task_id("--task-id", task_id)
    async with open_client(base_url, route=route) as client:
        return await _settle(out, given, partial(_confirm, client, task_id), as_json=as_json)


async def _decide(archive: CoverArchive, song: str, *, submit_again: bool, give_up: bool) -> Song:
    return await archive.ledger.settle(song, submit_again=submit_again, give_up=give_up)


async def _confirm(client: CoverClient, task_id: str, archive: CoverArchive, song: str) -> Song:
    return await settle_song(client, archive, song, task_id=task_id)


async def _settle(out: str, given: Sequence[str], decide: Decide, *, as_json: bool) -> int:
    with open_ids(given, None, SONGS) as batches:
        async with open_archive(out, create=False) as archive, aclosing(batches):
            settlement = Settlement(archive, decide, as_json)
            if not given:
                await settlement.settle_all_in_doubt(out)
            async for batch in batches:
                await settlement.settle(batch)
    return output.FAILED if settlement.has_failed else output.DONE


@define
class Settlement:
    """Settles songs, and writes a line for each."""

    archive: CoverArchive
    decide: Decide
    as_json: bool
    has_failed: bool = False

    async def settle_all_in_doubt(self, out: str) -> None:
        """Settle all songs of the archive that are in doubt, or say that there are none."""
        songs = [song.music_task_id async for song in self.archive.songs(SongState.IN_DOUBT)]
        if not songs:
            output.say(f"no song in {out} is in doubt")
        await self.settle(songs)

    async def settle(self, songs: Sequence[str]) -> None:
        """Settle songs one after another."""
        for music_task_id in songs:
            try:
                validate_task_id("SONG", music_task_id)
                song = await self.decide(self.archive, music_task_id)
            except InvalidTaskIdError as error:
                self._write_error(music_task_id, None, error)
            except SettlementError as error:
                unchanged = await self.archive.find_song(music_task_id)
                self._write_error(music_task_id, unchanged, error)
            else:
                self._write(song)

    def _write(self, song: Song) -> None:
        if self.as_json:
            output.emit_json(records.song_fields(song))
        else:
            output.emit_renderables(records.song_text(song, song.task_id or song.reason or ""))

    def _write_error(self, music_task_id: str, song: Song | None, error: Exception) -> None:
        self.has_failed = True
        output.say(f"kie-cover: {error}")
        if self.as_json:
            output.emit_json(records.song_error_fields(music_task_id, song, error))
