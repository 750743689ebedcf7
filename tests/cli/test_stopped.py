"""A process that continues after its deadline: Ctrl-Z or a frozen container stopped it."""

import asyncio
import signal

import pytest

from kie_cover_async.cli.output import DONE
from kie_cover_async.emulator import CoverScript

TIMEOUT = 0.4

SITUATIONS = {
    # Seconds until an answer comes, and the answers to the polls.
    "the answer is in the socket": (0.2, "success"),
    "the job ends meanwhile": (0.0, "generating, success"),
}


@pytest.mark.parametrize(("latency", "polls"), SITUATIONS.values(), ids=SITUATIONS)
async def test_wait_that_was_stopped_past_its_deadline_returns_the_cover(
    started, start, eventually, latency, polls
):
    """It continues after its deadline, and the job has ended by then."""
    emulator = await start(latency=latency)
    task_id = emulator.add_job(CoverScript(statuses=polls))
    arguments = ("wait", task_id, "--timeout", f"{TIMEOUT}", "--json")
    async with started(*arguments, KIE_BASE_URL=emulator.url) as command:
        await eventually(lambda: emulator.requests)
        command.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(TIMEOUT + 0.1)
        command.process.send_signal(signal.SIGCONT)
        ended = await command.end()
    assert ended.code == DONE
    assert ended.documents[0]["successFlag"] == 1
    assert emulator.poll_count(task_id) == len(polls.split())
