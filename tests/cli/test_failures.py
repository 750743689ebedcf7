"""Failures that a command survives are reported on stderr, but not one by one."""

import pytest

from kie_cover_async.cli.output import DONE
from kie_cover_async.emulator import CoverScript, Fault

DOWN = Fault.server_error(503, in_envelope=False)
NOT_A_SERVER = "http://127.0.0.1:9"

COMMANDS = {
    "wait for one": ["wait", "an-id"],
    "wait for many": ["wait", "an-id", "another-id"],
    "check": ["check", "an-id", "another-id"],
    "collect": ["collect", "an-id", "another-id"],
}
each_command = pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)


@each_command
async def test_first_failure_of_a_server_is_reported_in_a_pipe(
    started, emulator, tmp_path, arguments
):
    """The line comes long before the command gives up."""
    emulator.fault(DOWN, rate=1.0)
    out = ("--out", str(tmp_path)) if arguments[0] == "collect" else ()
    async with started(*arguments, *out, KIE_BASE_URL=emulator.url) as command:
        assert (await command.message()).startswith("temporary failure: ServerError 503")


@each_command
async def test_server_that_is_down_is_reported_on_a_terminal(on_terminal, tmp_path, arguments):
    """The line is above the view or in it."""
    out = ("--out", str(tmp_path)) if arguments[0] == "collect" else ()
    async with on_terminal(*arguments, *out, KIE_BASE_URL=NOT_A_SERVER) as terminal:
        await terminal.wait_for("no usable answer: ClientConnectorError")


async def test_many_failures_are_one_line(run, emulator):
    """They belong to several covers."""
    emulator.fault(DOWN, count=6)
    task_ids = [emulator.add_job(CoverScript(statuses=["success"])) for _ in range(4)]
    options = {"before": "speed_up(10)", "KIE_BASE_URL": emulator.url}
    ended = await run("wait", *task_ids, "--rate", "inf", **options)
    assert ended.code == DONE
    failure, summary = ended.err.splitlines()
    assert failure.startswith("temporary failure: ServerError 503")
    assert summary.startswith("4 ids in ")


async def test_failed_download_that_is_repeated_is_reported(started, emulator, tmp_path):
    """The line has the reason."""
    emulator.fault(Fault.answer(503), endpoint="image", rate=1.0)
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    arguments = ("collect", task_id, "--out", str(tmp_path))
    async with started(*arguments, KIE_BASE_URL=emulator.url) as command:
        line = await command.message()
    assert line.startswith("temporary failure: image not saved: the host answered 503")


async def test_failed_submit_is_reported_with_the_delay(started):
    """It was certainly not accepted."""
    arguments = ("generate", "a-song", "--callback-url", "http://x")
    async with started(*arguments, KIE_BASE_URL=NOT_A_SERVER) as command:
        assert (await command.message()).startswith("repeated in ")
