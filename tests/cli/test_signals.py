import os
import signal
import sys

import pytest

from kie_cover_async.cli.output import INTERRUPTED
from kie_cover_async.cli.process import suspended_by_ctrl_z, termination_as_interrupt
from kie_cover_async.emulator import CoverScript

SHOWN, HIDDEN, UP = "\x1b[?25h", "\x1b[?25l", "\x1b[1A"
CTRL_C, CTRL_Z, ENTER = b"\x03", b"\x1a", b"\n"

# A shell that has the terminal to itself, and so can stop a command and have it continue.
LOG_IN = "import os, fcntl, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
EXECUTE = "os.execvp(sys.argv[1], sys.argv[1:])"
SCRIPT = '"$@"; echo stopped; read line; fg'
SHELL = (sys.executable, "-c", LOG_IN + EXECUTE, "/bin/sh", "-m", "-c", SCRIPT, "sh")

SIGNALS = [signal.SIGTERM, signal.SIGHUP]

each_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@pytest.fixture
def raised(monkeypatch):
    """The signals that the process sends itself, and does not get."""
    numbers = []
    monkeypatch.setattr(signal, "raise_signal", numbers.append)
    return numbers


@pytest.fixture(autouse=True)
def restored():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@each_signal
def test_does_what_ctrl_c_does(number, raised):
    """The first of them is what ends the process, once all that was begun has ended."""
    with termination_as_interrupt():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert raised == [signal.SIGINT] * 2
    assert raised[2:] == [number]
    assert {signal.getsignal(each) for each in SIGNALS} == {signal.SIG_DFL}


def test_where_ctrl_c_does_nothing(raised):
    """What a shell runs in the background does not hear Ctrl-C, and ends nevertheless."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt), termination_as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
    assert raised == [signal.SIGTERM]


def test_what_is_to_be_ignored(raised):
    """What nohup has told the process to ignore stays ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with termination_as_interrupt():
        os.kill(os.getpid(), signal.SIGHUP)
    assert raised == []
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@each_signal
async def test_on_a_terminal(on_terminal, emulator, number):
    """The cursor comes back, and whoever sent the signal sees that it was the end."""
    task_id = emulator.add_job(CoverScript(end="never"))
    async with on_terminal("wait", task_id, KIE_BASE_URL=emulator.url) as terminal:
        await terminal.until("GENERATING")
        terminal.process.send_signal(number)
        await terminal.until("\x1b[?25h")
        ended = await terminal.end()
    assert ended.code == -number
    assert "\x1b[?25l" not in ended.out.rpartition("\x1b[?25h")[2]
    assert "Traceback" not in ended.out


async def test_stopped_and_continued(on_terminal, emulator):
    """Ctrl-Z leaves the cursor visible and nothing drawn; continued, the command draws again."""
    task_id = emulator.add_job(CoverScript(end="never"))
    command = (*SHELL, sys.executable, "-m", "kie_cover_async.cli")
    arguments = ("wait", task_id, "--base-url", emulator.url)
    async with on_terminal(*arguments, command=command) as terminal:
        await terminal.until("GENERATING")
        os.write(terminal.master, CTRL_Z)
        await terminal.until("stopped\r\n")
        drawn, _, left = terminal.shown.rpartition(SHOWN)
        assert HIDDEN in drawn
        assert HIDDEN not in left
        assert task_id not in left
        terminal.shown = ""
        os.write(terminal.master, ENTER)
        await terminal.until("GENERATING")
        assert HIDDEN in terminal.shown
        # What the shell has written meanwhile stays.
        assert UP not in terminal.shown.partition("GENERATING")[0]
        os.write(terminal.master, CTRL_C)
        ended = await terminal.end()
    assert ended.code == INTERRUPTED
    assert HIDDEN not in ended.out.rpartition(SHOWN)[2]
    assert "Traceback" not in ended.out


def test_a_process_that_ignores_ctrl_z():
    """What the parent process has told this one to ignore is not taken over."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    with suspended_by_ctrl_z(before=pytest.fail, after=pytest.fail):
        os.kill(os.getpid(), signal.SIGTSTP)
        assert signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN
    signal.signal(signal.SIGTSTP, before)
