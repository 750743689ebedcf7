"""`make`, killed at random moments: no song is submitted twice, and every cover is kept.

The environment may set the number of kills, the number of songs and the seed: the session `kills`
of nox has more of them than the default run.
"""

import asyncio
import logging
import os
import signal
import socket
from collections import Counter
from random import Random

import pytest
from support.songs import submits

from kie_cover_async.archive import CoverArchive
from kie_cover_async.cli.output import DONE, FAILED
from kie_cover_async.emulator import CallbackPlan, Fault

KILLS = int(os.environ.get("KILLS", "3"))
SONGS = int(os.environ.get("SONGS", "200"))
SEED = os.environ.get("SEED", "by default")

# Seconds of a run, of which a tenth of a second passes before the first request.
SHORTEST, LONGEST = 0.2, 1.5
# Submits that one process has in flight at the same time.
IN_FLIGHT = 20
SHARE_OF_FAULTS = 0.05

# A run waits for the callbacks of songs in doubt, by default for minutes.
LESS_PATIENT = "import kie_cover_async.jobs.stream as s; s._CALLBACK_TIMEOUT = 3.0"

_log = logging.getLogger(__name__)


def add_faults(emulator):
    """Let some requests fail after they were accepted, some before that, and some downloads."""
    half = SHARE_OF_FAULTS / 2
    emulator.fault(Fault.reset(), endpoint="submit", rate=half)
    emulator.fault(Fault.reset(accepted=False), endpoint="submit", rate=half)
    emulator.fault(Fault.server_error(), endpoint="poll", rate=SHARE_OF_FAULTS)
    emulator.fault(Fault.reset(midway=True), endpoint="image", rate=SHARE_OF_FAULTS)


def lost_submits(emulator):
    """Return how many submits failed before they were accepted."""
    faults = [each.fault for each in emulator.requests if each.endpoint == "generate"]
    return sum(fault is not None and not fault.accepted for fault in faults)


async def states(folder):
    async with CoverArchive(folder) as archive:
        return {song.music_task_id: song.state.value async for song in archive.songs()}


@pytest.mark.parametrize("reveals", [False, True], ids=["unnamed ids", "named ids"])
async def test_killed_runs_submit_no_song_twice(  # noqa: PLR0917 - fixtures
    started, run, start, tmp_path, eventually, reveals
):
    """Every song that was accepted is kept, by its callback if need be. The others are in doubt
    until a person lets them be submitted again; then each has been accepted once."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        address = f"127.0.0.1:{bound.getsockname()[1]}"
    emulator = await start(
        latency=(0.01, 0.1),
        generation_time=(0.0, 1.0),
        image_size=50,
        duplicate_reveals_task_id=reveals,
        callbacks=CallbackPlan(max_attempts=1000, retry_interval=0.2),
    )
    add_faults(emulator)
    songs = [f"song-{number}" for number in range(SONGS)]
    (tmp_path / "songs.txt").write_text("\n".join(songs))
    folder, rng = tmp_path / "covers", Random(f"{SEED} {reveals}")
    options = ("--out", str(folder), "--listen", address, "--rate", "inf", "--submit-rate", "inf")
    settings = {"before": LESS_PATIENT, "KIE_BASE_URL": emulator.url}
    arguments = ("make", "--file", str(tmp_path / "songs.txt"), *options)
    _log.warning("seed %r", SEED)
    for _ in range(KILLS):
        duration = rng.uniform(SHORTEST, LONGEST)
        async with started(*arguments, **settings) as command:
            await asyncio.sleep(duration)
            command.process.kill()
            # It may be faster than that.
            assert (await command.end()).code in {-signal.SIGKILL, DONE, FAILED}
        await eventually(lambda: emulator.open_connections == 0)
        _log.warning("killed after %.2f s with %d jobs", duration, len(emulator._service.songs))
    ended = await run(*arguments, **settings)
    assert ended.code in {DONE, FAILED}, ended.err

    accepted = {*emulator._service.songs}
    assert max(Counter(submits(emulator)).values()) == 1
    left = {song: state for song, state in (await states(folder)).items() if state != "kept"}
    assert {song: state for song, state in left.items() if song in accepted} == {}
    in_doubt = {*songs} - accepted
    assert left == dict.fromkeys(in_doubt, "in_doubt")
    assert len(in_doubt) <= KILLS * IN_FLIGHT + lost_submits(emulator)

    emulator.clear_faults()
    ended = await run("settle", "--all", "--submit-again", "--out", str(folder))
    assert {line["song"] for line in ended.documents} == in_doubt
    ended = await run(*arguments, **settings)
    assert ended.code == DONE, ended.err
    assert {line["song"] for line in ended.documents} == {*songs}
    assert len(emulator._service.songs) == SONGS
    async with CoverArchive(folder) as archive:
        report = await archive.verify()
    assert report.ok
    assert report.checked == 2 * SONGS
