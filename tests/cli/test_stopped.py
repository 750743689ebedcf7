"""A process that is stopped past its deadline, as by Ctrl-Z or a frozen container, and goes on."""

import asyncio
import signal

import pytest

from kie_cover_async.cli.output import DONE
from kie_cover_async.emulator import CoverScript

TIMEOUT = 0.4

SITUATIONS = {
    # Seconds until an answer comes, and what the polls are answered, one by one.
    "the answer is in the socket": (0.2, "success"),
    "the job ends meanwhile": (0.0, "generating, success"),
}


@pytest.mark.parametrize(("latency", "polls"), SITUATIONS.values(), ids=SITUATIONS)
async def test_a_wait_that_was_stopped_past_its_deadline(started, start, until, latency, polls):
    """A wait that goes on after its deadline returns the cover if the job has ended by then."""
    emulator = await start(latency=latency)
    task_id = emulator.add_job(CoverScript(statuses=polls))
    arguments = ("wait", task_id, "--timeout", f"{TIMEOUT}", "--json")
    async with started(*arguments, KIE_BASE_URL=emulator.url) as command:
        await until(lambda: emulator.requests)
        command.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(TIMEOUT + 0.1)
        command.process.send_signal(signal.SIGCONT)
        ended = await command.end()
    assert ended.code == DONE
    assert ended.documents[0]["successFlag"] == 1
    assert emulator.poll_count(task_id) == len(polls.split())
