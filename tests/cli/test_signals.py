import asyncio
import os
import signal
import sys
from threading import Timer

import pytest

from kie_cover_async.cli.output import INTERRUPTED
from kie_cover_async.cli.process import (
    suspended_by_ctrl_z,
    termination_as_interrupt,
    woken_by_signals,
)
from kie_cover_async.emulator import CoverScript

SHOWN, HIDDEN, UP = "\x1b[?25h", "\x1b[?25l", "\x1b[1A"
CTRL_C, CTRL_Z, ENTER = b"\x03", b"\x1a", b"\n"

# A shell that controls the terminal, and so can stop a command and continue it.
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
def test_sigterm_and_sighup_interrupt_and_then_end_the_process(number, raised):
    """The first of them ends it, after the block."""
    with termination_as_interrupt():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert raised == [signal.SIGINT] * 2
    assert raised[2:] == [number]
    assert {signal.getsignal(each) for each in SIGNALS} == {signal.SIG_DFL}


def test_sigterm_ends_a_process_that_ignores_ctrl_c(raised):
    """A shell starts background processes like this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt), termination_as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
    assert raised == [signal.SIGTERM]


def test_ignored_signal_stays_ignored(raised):
    """nohup starts a process like this."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with termination_as_interrupt():
        os.kill(os.getpid(), signal.SIGHUP)
    assert raised == []
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@each_signal
async def test_signal_on_a_terminal_restores_the_cursor(on_terminal, emulator, number):
    """The parent process sees which signal it was."""
    task_id = emulator.add_job(CoverScript(end="never"))
    async with on_terminal("wait", task_id, KIE_BASE_URL=emulator.url) as terminal:
        await terminal.wait_for("GENERATING")
        terminal.process.send_signal(number)
        await terminal.wait_for("\x1b[?25h")
        ended = await terminal.end()
    assert ended.code == -number
    assert "\x1b[?25l" not in ended.out.rpartition("\x1b[?25h")[2]
    assert "Traceback" not in ended.out


async def test_ctrl_z_erases_the_view_and_continuing_draws_it_again(on_terminal, emulator):
    """The cursor is visible meanwhile."""
    task_id = emulator.add_job(CoverScript(end="never"))
    command = (*SHELL, sys.executable, "-m", "kie_cover_async.cli")
    arguments = ("wait", task_id, "--base-url", emulator.url)
    async with on_terminal(*arguments, command=command) as terminal:
        await terminal.wait_for("GENERATING")
        os.write(terminal.master, CTRL_Z)
        await terminal.wait_for("stopped\r\n")
        drawn, _, left = terminal.shown.rpartition(SHOWN)
        assert HIDDEN in drawn
        assert HIDDEN not in left
        assert task_id not in left
        terminal.shown = ""
        os.write(terminal.master, ENTER)
        await terminal.wait_for("GENERATING")
        assert HIDDEN in terminal.shown
        # The output of the shell stays.
        assert UP not in terminal.shown.partition("GENERATING")[0]
        os.write(terminal.master, CTRL_C)
        ended = await terminal.end()
    assert ended.code == INTERRUPTED
    assert HIDDEN not in ended.out.rpartition(SHOWN)[2]
    assert "Traceback" not in ended.out


def test_ignored_ctrl_z_stays_ignored():
    """The parent process may have wanted that."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    with suspended_by_ctrl_z(before=pytest.fail, after=pytest.fail):
        os.kill(os.getpid(), signal.SIGTSTP)
        assert signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN
    signal.signal(signal.SIGTSTP, before)


@pytest.fixture
def sent_while_asleep():
    """Return a function that sends SIGUSR1, in a way that does not end the sleep of the loop, and
    waits for its handler."""
    received = asyncio.Event()

    async def sent_while_asleep():
        received.clear()
        # A signal that another thread gets does not interrupt the system call of this one.
        Timer(0.02, signal.raise_signal, [signal.SIGUSR1]).start()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.wait_for(received.wait(), 10)
        assert loop.time() < begun + 5

    before = signal.signal(signal.SIGUSR1, lambda *_: received.set())
    yield sent_while_asleep
    signal.signal(signal.SIGUSR1, before)


async def test_signal_wakes_a_sleeping_loop(sent_while_asleep):
    """Its handler runs although the loop has no other event."""
    with woken_by_signals():
        await sent_while_asleep()
        await sent_while_asleep()
    assert signal.set_wakeup_fd(-1) == -1


async def test_signal_wakes_a_sleeping_loop_after_the_view_has_ended(sent_while_asleep):
    """asyncio uses the same mechanism for Ctrl-Z, and removes it afterwards."""
    with woken_by_signals():
        with suspended_by_ctrl_z(before=pytest.fail, after=pytest.fail):
            await sent_while_asleep()
        await sent_while_asleep()
    assert signal.set_wakeup_fd(-1) == -1


async def test_loop_that_cannot_watch_sockets_is_left_alone(monkeypatch):
    """The one of Windows can be woken by signals already."""

    def add_reader(*_):
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", add_reader)
    with woken_by_signals():
        assert signal.set_wakeup_fd(-1) == -1


async def test_other_threads_are_left_alone():
    """Python allows this in the main thread only."""

    async def use():
        with woken_by_signals():
            pass

    await asyncio.to_thread(asyncio.run, use())


async def test_ctrl_c_that_comes_just_before_the_loop_sleeps_ends_the_command(started):
    """Here another thread gets it, which has the same effect."""
    before = (
        "import os, signal, threading\n"
        "def interrupt():\n"
        "    os.read(0, 1)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()"
    )
    reading, writing = os.pipe()
    arguments = ("listen", "--port", "0")
    async with started(*arguments, before=before, stdin=reading, KIE_API_KEY="") as command:
        os.close(reading)
        await command.message("is not confirmed: KIE_API_KEY has no key.\n")
        os.write(writing, b"!")
        os.close(writing)
        async with asyncio.timeout(5):
            ended = await command.end()
    assert ended.code == INTERRUPTED
