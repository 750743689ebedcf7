"""`make`: songs in, image files out, and continued after any interruption."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from attrs import frozen
from rich.text import Text

from kie_cover_async import CoverClient, CoverState, InvalidTaskIdError
from kie_cover_async.archive import CoverArchive
from kie_cover_async.callbacks import CallbackInbox, SongCallbackUrls
from kie_cover_async.cli import options, output, progress, records
from kie_cover_async.cli.callback_server import Address, callback_inbox
from kie_cover_async.cli.client import (
    has_archive,
    image_networks,
    open_archive,
    open_client,
    rate_limiter_for,
    require_ids_or_folder,
    resolve_api,
    timeout_seconds,
    validate_callback_url,
)
from kie_cover_async.cli.ids import SONGS, Batches, NoIdsError, are_available, open_ids
from kie_cover_async.events import CoverPolled, Event
from kie_cover_async.jobs import RunStoppedError, SongStream, make_covers
from kie_cover_async.ledger import Ledger, SongOutcome, SongState
from kie_cover_async.settings import is_loopback
from kie_cover_async.validation import is_one_word, validate_task_id

# Seconds between two counts of the songs in the ledger, and before a line says what is waited for.
_COUNT_INTERVAL, _NOTICE_AFTER = 0.5, 1.0

# In the order in which a song goes through them.
_COUNTED = ("wanted", "submitting", "submitted", "generating", "in doubt", "failed")


@options.command(
    """Make the covers of songs and save their images, and continue after an interruption.

    Costs credits. The songs are noted in the folder first, so that after Ctrl-C or a crash the same
    command, or one without songs, continues: no song is submitted twice. If a submit may have been
    accepted and its answer was lost, the song is in doubt: see `kie-cover settle --help`.

    Writes a line for each song. Exits with 1 if one was not kept. With --listen each song has a
    callback URL of its own, and a callback ends its doubt; --callback-url is then the public URL
    that leads to this address. Keys in KIE_CALLBACK_KEY verify signatures.

    Ctrl-C waits for the answers to submits that were sent; a second one abandons them.
    """,
    example="make --file songs.txt --out covers --callback-url https://example.com/done",
)
async def make(
    music_task_ids: Annotated[
        list[str] | None,
        options.id_argument(
            "SONG", "More songs; - reads them from stdin. None: what is left in the folder.", SONGS
        ),
    ] = None,
    *,
    file: Annotated[
        str | None,
        options.option("FILE", "A file with a song's id, or JSON with a song, on each line."),
    ] = None,
    out: options.Out = "covers",
    callback_url: Annotated[
        str | None,
        options.option("URL", "Called when a cover is done. The route suno requires one."),
    ] = None,
    listen: options.Listen = None,
    limit: Annotated[
        int | None, options.option("NUMBER", "Submit at most so many songs in one run.", min=0)
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only show what would be submitted, and the credits."),
    ] = False,
    rate: options.Rate = None,
    submit_rate: Annotated[
        float | None,
        options.option("NUMBER", "Submits per second; default 1.9, inf for no limit."),
    ] = None,
    timeout: Annotated[
        float, options.option("SECONDS", "Time for each cover; inf for no limit.")
    ] = 900.0,
    allow_image_network: options.AllowImageNetwork = None,
    route: options.Route = None,
    base_url: options.BaseUrl = None,
    as_json: options.Json = False,
) -> int:
    require_ids_or_folder(music_task_ids, file, out, SONGS)
    is_given = bool(music_task_ids or file)
    callbacks = CallbackOptions.parse(callback_url, listen, route, base_url)
    view = SongsView()
    settings = {
        "route": route,
        "observer": [view.on_event, progress.FailureLog().on_event],
        "rate_limiter": rate_limiter_for(rate),
        "submit_rate_limiter": rate_limiter_for(submit_rate, "--submit-rate"),
        "allow_image_networks": image_networks(allow_image_network),
    }
    seconds = timeout_seconds(timeout)
    with output.warnings_only(), open_ids(music_task_ids or (), file, SONGS) as batches:
        callbacks.warn()
        if dry_run:
            given = [song async for batch in batches for song in batch] if is_given else None
            async with open_client(base_url, **settings) as client:
                return await Rehearsal(given, limit, as_json).run(client, out)
        async with (
            open_archive(out) as archive,
            callbacks.receiving(archive.ledger) as (url, inbox),
            open_client(base_url, inbox=inbox, **settings) as client,
        ):
            songs: Any = _read(batches, archive.ledger) if is_given else None
            if is_given and are_available(music_task_ids or (), file):
                # Then a later run needs no songs, whatever ends this one.
                songs = [song async for song in songs]
            stream = make_covers(
                client,
                archive,
                songs,
                callback_url=url,
                inbox=inbox,
                max_submits=limit,
                timeout=seconds,
            )
            async with _summarizing(view, archive):
                await _write_outcomes(stream, view, as_json=as_json)
    return output.DONE if view.is_complete else output.FAILED


@frozen
class CallbackOptions:
    """Where the service sends callbacks, and where they are received, if anywhere."""

    url: str | None
    address: Address | None

    @classmethod
    def parse(
        cls, url: str | None, listen: str | None, route: str | None, base_url: str | None
    ) -> Self:
        """Parse `--callback-url` and `--listen`.

        Raises `UsageError` if the route requires one of them and none is given, and if the service
        could not reach the address of `--listen`.
        """
        api, _ = resolve_api(base_url)
        address = None if listen is None else Address.parse("--listen", listen)
        if address is not None:
            url = _public_url(address, url, is_api_local=is_loopback(api.host or ""))
        validate_callback_url(url, route, "--callback-url or --listen")
        return cls(url, address)

    def warn(self) -> None:
        """Say so if no callback can end a doubt."""
        if self.url is None:
            output.say(
                "Without callbacks, a submit whose answer is lost leaves its song in doubt until "
                "you settle it: see kie-cover settle --help."
            )

    @asynccontextmanager
    async def receiving(self, ledger: Ledger) -> AsyncIterator[tuple[Any, CallbackInbox | None]]:
        """Receive callbacks; yield the callback URL, or the function that makes one for a song."""
        if self.address is None or self.url is None:
            yield self.url, None
            return
        urls = SongCallbackUrls(self.url, await ledger.callback_secrets())
        async with callback_inbox(self.address, urls) as inbox:
            yield urls, inbox


def _public_url(address: Address, url: str | None, *, is_api_local: bool) -> str:
    """Return the URL that leads to the address, to which each song's token is added."""
    if not address.port:
        raise output.UsageError(
            "--listen must name a port other than 0: later runs receive callbacks there, too"
        )
    if url is None:
        if not _is_reachable(address.host, is_api_local=is_api_local):
            raise output.UsageError(
                f"--callback-url must be given: the service cannot reach {address.host} of --listen"
            )
        return str(address.url(address.port))
    if "?" in url or "#" in url:
        raise output.UsageError(
            "--callback-url must have no query and no fragment: a token for each song is added"
        )
    return url


def _is_reachable(host: str, *, is_api_local: bool) -> bool:
    if is_api_local:
        return is_loopback(host)
    try:
        return ip_address(host).is_global
    except ValueError:
        return not is_loopback(host)


async def _read(batches: Batches, ledger: Ledger) -> AsyncGenerator[Any, None]:
    """Yield the songs, each when it is in the ledger.

    Raises `UsageError` if they cannot be read, or if there are none and none was submitted.
    """
    try:
        async with aclosing(batches):
            async for batch in batches:
                await ledger.want([song for song in batch if is_one_word(song)])
                for song in batch:
                    yield song
    except NoIdsError as error:
        if not (await ledger.counts())[SongState.SUBMITTED]:
            raise output.UsageError(f"{error}, and none was submitted before") from None
        output.say(f"kie-cover: {error}")


class SongsView(progress.CoversView):
    """The progress of a run: what became of its songs, and how many of the folder are left.

    `ledger` counts all songs of the folder by their state.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("{:,.1f} requests/s".format, clock=clock)
        self.ends: Counter[str] = Counter()
        self.ledger: Mapping[SongState, int] = dict.fromkeys(SongState, 0)
        self._images = 0
        self._generating: set[str] = set()

    @property
    def is_complete(self) -> bool:
        """Whether every song of the run is kept, except those beyond the limit."""
        return self.ends.total() == self.ends["kept"]

    @property
    def is_left(self) -> bool:
        """Whether songs of the folder are neither kept nor given up."""
        return any(self.ledger[state] for state in (SongState.WANTED, SongState.SUBMITTED))

    def on_event(self, event: Event) -> None:
        """Record an event of the client."""
        super().on_event(event)
        if isinstance(event, CoverPolled) and event.details is not None:
            if event.details.state is CoverState.GENERATING:
                self._generating.add(event.task_id)
            else:
                self._generating.discard(event.task_id)

    def count(self, word: str, outcome: SongOutcome) -> None:
        """Count an outcome, and the word for it."""
        self.ends[word] += 1
        self._images += len(outcome.images)
        self._generating.discard(str(outcome.song.task_id))

    def row(self) -> tuple[str, float]:
        """Return the headline, and the number of requests."""
        return f"[bold]{self.ends['kept']:,} kept[/]: {self._images_kept()}", self.requests

    def counts(self) -> dict[str, int]:
        """Return the numbers of songs in the folder that are not kept."""
        counts = {records.state_words(state): count for state, count in self.ledger.items()}
        counts["generating"] = min(len(self._generating), counts["submitted"])
        counts["submitted"] -= counts["generating"]
        return {word: counts[word] for word in _COUNTED if counts[word]}

    def summary(self) -> str:
        """Return the line for the end."""
        kept = f"{output.counted(self.ends['kept'], 'song')} kept in {self.seconds:.1f} s"
        others = [f"{count:,} {word}" for word, count in self.ends.items() if word != "kept"]
        return "; ".join([f"{kept}: {self._images_kept()}", *others])

    def _images_kept(self) -> str:
        return output.counted(self._images, "image")


@asynccontextmanager
async def _summarizing(view: SongsView, archive: CoverArchive) -> AsyncIterator[None]:
    """Count the songs of the ledger meanwhile; say in the end what is left, and what to do."""
    counting = asyncio.create_task(_count(view, archive.ledger))
    has_ended = False
    try:
        yield
        has_ended = True
    except RunStoppedError as stopped:
        # It is reported with a hint, after what is said here.
        raise stopped.error from None
    except output.OutputLost as lost:
        is_done = view.is_complete and not view.is_left
        raise output.OutputLost(lost.code if is_done else output.FAILED) from None
    finally:
        counting.cancel()
        await asyncio.wait([counting])
        view.ledger = await archive.ledger.counts()
        if has_ended and not (view.ends or view.is_left):
            output.say(f"nothing is left to do in {archive.folder}")
        for line in _closing_lines(view, archive.folder):
            output.say(line)


async def _count(view: SongsView, ledger: Ledger) -> None:
    while True:
        view.ledger = await ledger.counts()
        await asyncio.sleep(_COUNT_INTERVAL)


def _closing_lines(view: SongsView, folder: Path) -> Iterator[str]:
    if view.ends:
        yield view.summary()
    if view.is_left:
        wanted, submitted = view.ledger[SongState.WANTED], view.ledger[SongState.SUBMITTED]
        yield (
            f"{output.counted(wanted, 'song')} left to submit, {submitted:,} to wait for: "
            "the same command without songs continues"
        )
    if in_doubt := view.ledger[SongState.IN_DOUBT]:
        yield (
            f"{output.counted(in_doubt, 'song')} in doubt: see kie-cover songs --state in_doubt "
            f"--out {folder}, then kie-cover settle --help"
        )
    # Refusals that stopped the run were taken back after their lines.
    if failed := min(view.ends["failed"], view.ledger[SongState.FAILED]):
        yield f"{failed:,} failed: kie-cover settle SONG --submit-again --out {folder} tries again"


async def _write_outcomes(stream: SongStream, view: SongsView, *, as_json: bool) -> None:
    """Write a line for each outcome of the stream."""
    with progress.drawn(view) as write_line:
        async with _closing(stream):
            async for outcome in stream:
                # A song beyond the limit has no line: nothing was done.
                if outcome.song.state is not SongState.WANTED or outcome.error is not None:
                    word = _word(outcome)
                    view.count(word, outcome)
                    write_line(_json_line(outcome) if as_json else _text_line(word, outcome))


@asynccontextmanager
async def _closing(stream: SongStream) -> AsyncIterator[None]:
    """Close the stream in the end; say what is waited for if that takes long."""
    try:
        yield
    finally:
        notice = asyncio.get_running_loop().call_later(
            _NOTICE_AFTER,
            output.say,
            "waiting for the answers to submits that were sent; Ctrl-C again abandons them, and "
            "leaves their songs in doubt",
        )
        try:
            await stream.aclose()
        finally:
            notice.cancel()


def _word(outcome: SongOutcome) -> str:
    if isinstance(outcome.error, InvalidTaskIdError):
        return "rejected"
    return records.state_words(outcome.song.state)


def _json_line(outcome: SongOutcome) -> str:
    song, error = outcome.song, outcome.error
    if isinstance(error, InvalidTaskIdError):
        return json.dumps(records.song_error_fields(song.music_task_id, None, error))
    fields = records.song_fields(song) | {"images": [*outcome.images]}
    return json.dumps(fields if error is None else fields | records.error_words(error))


def _text_line(word: str, outcome: SongOutcome) -> Text:
    error = outcome.error
    failure = outcome.song.reason if error is None else f"{type(error).__name__}: {error}"
    rest = " ".join(outcome.images) if outcome.ok else failure
    return records.cover_text(str(outcome.song.music_task_id), word, rest or "")


@frozen
class Rehearsal:
    """Shows what a run would do, and spends nothing."""

    given: list[Any] | None
    limit: int | None
    as_json: bool

    async def run(self, client: CoverClient, out: str) -> int:
        """Write a line for each song that would be submitted; return the exit code."""
        amount, states = await client.get_credits(), await _states(out)
        songs = dict.fromkeys(states if self.given is None else self.given)
        rejected = {*filter(self._is_rejected, songs)}
        done = {song for song, state in states.items() if state is not SongState.WANTED}
        wanted = [each for each in songs if each not in rejected | done]
        for song in wanted[: self.limit]:
            fields = {"song": song, "state": SongState.WANTED.value}
            self._write(fields, records.cover_text(song, "wanted", ""))
        waits = [*states.values()].count(SongState.SUBMITTED)
        output.say(
            f"{len(wanted[: self.limit]):,} of {output.counted(len(wanted), 'song')} would be "
            f"submitted, and {waits:,} waited for; {amount:,} credits are left"
        )
        return output.FAILED if rejected else output.DONE

    def _is_rejected(self, song: Any) -> bool:
        """Return whether this is not an id; write a line that says so."""
        try:
            validate_task_id("SONG", song)
        except InvalidTaskIdError as error:
            text = records.cover_text(str(song), "rejected", error)
            self._write(records.song_error_fields(song, None, error), text)
            return True
        return False

    def _write(self, fields: dict[str, Any], text: Text) -> None:
        if self.as_json:
            output.emit_json(fields)
        else:
            output.emit_renderables(text)


async def _states(out: str) -> dict[str, SongState]:
    """Return the state of each song in the folder, which is not created."""
    if out and not has_archive(out):
        return {}
    async with open_archive(out) as archive:
        return {song.music_task_id: song.state async for song in archive.songs()}
