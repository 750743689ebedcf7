"""`kie-cover demo`: 24 covers of an emulated API, asked for, waited for and saved all at once."""

import asyncio
import sys
from collections.abc import Callable
from functools import partial

import attrs

from kie_cover_async import CoverClient, ExponentialSchedule, KieCoverError, RateLimiter
from kie_cover_async.archive import CoverArchive
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault

from .board import can_draw, live
from .folder import archive_in
from .output import DONE, emit_json, emit_printed, paper, quiet, say
from .report import Totals, cover_fields, printed
from .scene import Scene
from .stage import Cover, Stage

COVERS = 24
FAILING, STUCK, REFUSED = 11, 6, 17
TIMEOUT = 8.5

# Ten times as fast as the service, and the polls with it.
_GENERATION_TIME = (2.0, 6.0)
_SCHEDULE = ExponentialSchedule(initial_delay=1.0, factor=1.5, max_delay=2.5, not_before=1.5)
_RATE_LIMIT = 20
_IMAGE_SIZE = 512

Ended = Callable[[Cover], object]


async def play(*, out: str, as_json: bool) -> int:
    """The whole demo, with the images in a folder; the exit code."""
    stage = Stage(COVERS)
    with quiet():
        async with archive_in(out) as archive:
            await _show(stage, archive, as_json=as_json)
    return DONE


async def _show(stage: Stage, archive: CoverArchive, *, as_json: bool) -> None:
    if as_json:
        await perform(stage, archive, lambda cover: emit_json(cover_fields(cover)))
        emit_json({"totals": attrs.asdict(Totals.of(stage)), "folder": str(archive.folder)})
        return
    if can_draw(sys.stdout):
        with live(Scene(stage), console=paper()):
            await perform(stage, archive, lambda _: None)
    else:
        await perform(stage, archive, partial(_say, stage))
    emit_printed(*printed(stage, archive.folder))


async def perform(stage: Stage, archive: CoverArchive, ended: Ended) -> None:
    """Emulator and client from beginning to end; `ended` hears of each cover as it ends."""
    async with (
        CoverEmulator(
            seed="demo",
            generation_time=_GENERATION_TIME,
            visible_after=0.2,
            latency=(0.01, 0.06),
            image_size=_IMAGE_SIZE,
        ) as emulator,
        CoverClient(
            "demo",
            base_url=emulator.url,
            schedule=_SCHEDULE,
            rate_limiter=RateLimiter(_RATE_LIMIT),
            submit_rate_limiter=RateLimiter(_RATE_LIMIT),
            observer=stage.hear,
        ) as client,
    ):
        _script(emulator)
        one = partial(_one_cover, stage=stage, archive=archive, client=client, emulator=emulator)
        waits = map(one, stage.covers)
        # Left early, by an interruption, say, it is the client's closing that ends the others.
        for wait in asyncio.as_completed(waits):
            ended(await wait)


def _script(emulator: CoverEmulator) -> None:
    emulator.script_song(_song(FAILING), CoverScript(seconds=3.5, end="failure"))
    emulator.script_song(_song(STUCK), CoverScript(end="never"))
    emulator.script_song(_song(REFUSED), CoverScript(seconds=5.5))


def _song(number: int) -> str:
    return f"song-{number:02}"


async def _one_cover(
    cover: Cover,
    *,
    stage: Stage,
    archive: CoverArchive,
    client: CoverClient,
    emulator: CoverEmulator,
) -> Cover:
    def asked(task_id: str) -> None:
        stage.ask(cover, task_id)
        if cover.number == REFUSED:
            emulator.fault(
                Fault.rate_limited(retry_after=1), endpoint="record-info", task_id=task_id, after=1
            )

    try:
        details = await client.generate_and_wait(
            _song(cover.number),
            callback_url="https://example.com/nobody-listens",
            timeout=TIMEOUT,
            on_task_id=asked,
        )
        cover.images = (await archive.save(client, details)).images
    except KieCoverError as error:
        stage.end(cover, error)
    else:
        stage.end(cover, details)
    return cover


def _say(stage: Stage, cover: Cover) -> None:
    say(f"{stage.now:5.1f} s  cover {cover.number:02} {cover.phase}, {len(cover.polls)} polls")
