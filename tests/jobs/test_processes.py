"""A process that is stopped or killed between the claim of a song and the first byte."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path

import pytest
from support.songs import submits

PROCESS = Path(__file__).parents[1] / "support" / "song_process.py"


@pytest.fixture
async def start(emulator, tmp_path):
    """A function that starts `song_process.py`, and returns it when it has claimed the song."""
    running = []

    async def start(song, max_claim_age):
        command = (sys.executable, PROCESS, emulator.url, tmp_path / "covers", max_claim_age, song)
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        running.append(process)
        assert await process.stdout.readline() == b"claimed\n"
        return process

    yield start
    for process in running:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_process_that_was_frozen_after_its_claim_sends_nothing(emulator, run, start):
    """It was stopped past the limit: it gives the claim back, claims again, and submits once."""
    process = await start("a", "0.2")
    os.kill(process.pid, signal.SIGSTOP)
    await asyncio.sleep(0.3)  # the time that passes
    song = await run.ledger.find("a")
    assert (song.state, song.attempt) == ("submitting", 1)
    os.kill(process.pid, signal.SIGCONT)
    process.stdin.write(b"\n")
    line = await process.stdout.readline()
    assert (line, submits(emulator)) == (b"claimed\n", [])
    while line == b"claimed\n":  # on a busy machine, later claims may become too old as well
        process.stdin.write(b"\n")
        line = await process.stdout.readline()
    assert line == b"kept\n"
    assert await process.wait() == 0
    assert (await run.ledger.find("a")).attempt >= 2
    assert submits(emulator) == ["a"]


async def test_song_of_a_frozen_process_is_left_to_it(emulator, run, start):
    """Another run follows the song without a request; after a kill, the song is in doubt."""
    process = await start("a", "30")
    os.kill(process.pid, signal.SIGSTOP)
    following = asyncio.create_task(run.states(["a"]))
    await asyncio.sleep(0.1)
    assert not following.done()
    process.kill()
    await process.wait()
    assert await following == {"a": "in_doubt"}
    assert not emulator.requests
