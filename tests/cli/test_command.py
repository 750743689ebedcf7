"""The command as a process: its arguments, its output, and how it ends."""

import errno
import os
import re
import sys
import tomllib
from io import StringIO
from pathlib import Path

import pytest

import _kie_cover_async_command as shim
from kie_cover_async import __version__
from kie_cover_async.cli.app import _run, app
from kie_cover_async.cli.output import DONE, FAILED, INTERRUPTED, USAGE
from kie_cover_async.emulator import CoverScript, Fault

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))[
    "project"
]
COMMANDS = ["demo", "get", "check", "wait", "generate", "credits", "make", "songs", "settle"]
COMMANDS += ["collect", "listen", "emulator"]


@pytest.fixture
def typed(monkeypatch, capsys):
    """Run the command in the process of the tests and without a key."""
    monkeypatch.delenv("KIE_API_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def typed(*arguments: str):
        with pytest.raises(SystemExit) as ended:
            app(list(arguments), prog_name="kie-cover")
        return ended.value.code, *capsys.readouterr()

    return typed


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(typed, command, option):
    """Every command says what it is for, and shows an example of itself."""
    code, out, _ = typed(command, option)
    assert code == DONE
    assert f"Example: kie-cover {command}" in out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_names_no_python_types(typed, command):
    """A flag takes no value; an option with a value has a metavar."""
    _, out, _ = typed(*command.split(), "--help")
    assert "--help" in out
    assert not re.search(r"<\w|BOOL|STR|INT|\[\[", out)


async def test_help_needs_no_docstrings(run):
    """It is complete if the command is compiled as under PYTHONOPTIMIZE=2."""
    before = (
        "import importlib.machinery as machinery, sys\n"
        "def get_code(self, name):\n"
        "    data = self.get_data(self.path)\n"
        "    return compile(data, self.path, 'exec', dont_inherit=True, optimize=2)\n"
        "machinery.SourceFileLoader.get_code = get_code\n"
        "for name in [*sys.modules]:\n"
        "    if name.startswith('kie_cover_async.cli'): del sys.modules[name]\n"
    )
    ended = await run("wait", "--help", before=before, COLUMNS="200")
    assert ended.code == DONE
    assert "Wait until covers are done." in ended.out
    assert "can be waited for again" in ended.out


def test_every_command_has_its_help_as_an_argument():
    """No help comes from a docstring."""
    assert [info.help for info in app.registered_commands if not info.help] == []


def test_first_help_page_names_commands_key_and_exit_codes(typed):
    """The key is read from the environment."""
    code, out, _ = typed("--help")
    assert code == DONE
    assert all(command in out for command in COMMANDS)
    assert "export KIE_API_KEY=" in out
    assert "Exit codes" in out


def test_command_without_arguments_prints_the_help(typed):
    """It suggests the demo."""
    _, out, err = typed()
    assert "kie-cover demo" in out + err


def test_version_is_that_of_the_package(typed):
    """`--version` prints it."""
    assert typed("--version") == (DONE, f"kie-cover {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        "got",
        "get",
        "get an-id --cold",
        "wait an-id --timeout soon",
        "wait an-id --timeout=-1",
        "wait an-id another --timeout=-1",
        "wait",
        "check",
        "check an-id another --rate 0",
        "check --file /nowhere/ids",
        "check an-id",
        "generate a-song",
        "generate a-song --callback-url nowhere",
        "get an-id",
        "get an-id --raw",
        "credits",
        "collect an-id",
        "collect an-id --limit 0",
        "collect an-id --rate 0",
        "collect an-id --timeout=-1",
        "collect an-id --listen 8080",
        "collect --out /nowhere",
        "make a-song",
        "make a-song --callback-url nowhere",
        "make a-song --callback-url http://x --limit -1",
        "make a-song --callback-url http://x --submit-rate 0",
        "make --out /nowhere --callback-url http://x",
        "songs --out /nowhere",
        "songs --state lost",
        "settle a-song --give-up --out /nowhere",
        "settle a-song",
        "emulator --port -1",
        "emulator --fault-rate 2",
        "emulator --failure-rate 0.6 --stuck-rate 0.6",
        "emulator --generation-time 8-2",
    ],
)
def test_usage_error_exits_with_2_and_writes_nothing_to_stdout(typed, arguments):
    """A missing key is one, too."""
    code, out, err = typed(*arguments.split())
    assert code == USAGE
    assert out == ""
    assert err


@pytest.mark.parametrize(
    "command",
    [
        "get an-id",
        "check an-id",
        "wait an-id",
        "generate a-song",
        "credits",
        "collect an-id",
        "make a-song",
        "settle a-song --task-id an-id",
        "listen",
        "demo",
    ],
)
def test_unknown_route_is_rejected_by_every_verb(typed, monkeypatch, command):
    """The message names the two, and the option or the variable; case matters as in Python."""
    code, out, err = typed(*command.split(), "--route", "Market")
    assert (code, out) == (USAGE, "")
    assert "│ --route must be 'suno' or 'market', not 'Market' " in err
    monkeypatch.setenv("KIE_ROUTE", "markets")
    code, out, err = typed(*command.split())
    assert (code, out) == (USAGE, "")
    assert "│ KIE_ROUTE must be 'suno' or 'market', not 'markets' " in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "--json", "true"],
        ["check", "an-id", "--json", "true"],
        ["wait", "--json", "true"],
        ["collect", "--retry-failed", "false"],
        ["generate", "null", "--callback-url", "http://x"],
        ["make", "a-song", '{"taskId": "an-id"}'],
        ["get", '{"id":"an-id"}'],
        ["check", "an-id", '["an-id"]'],
    ],
)
def test_json_argument_without_an_id_is_rejected(typed, arguments):
    """It may be a value that was meant for a flag."""
    code, out, err = typed(*arguments)
    assert (code, out) == (USAGE, "")
    member = "song" if {"generate", "make"} & {*arguments} else "taskId"
    assert f"an id is expected, not JSON without a string {member}: " in err


@pytest.mark.parametrize("command", ["get", "check", "wait"])
async def test_json_argument_with_an_id_is_accepted(run, emulator, command):
    """`jq` prints quoted ids without --raw-output."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    ended = await run(command, f'"{task_id}"', KIE_BASE_URL=emulator.url)
    assert ended.code == DONE
    assert [record["taskId"] for record in ended.documents] == [task_id]


async def test_completion_offers_matching_commands(run):
    """The shell asks by environment variables."""
    asking = {"_KIE_COVER_COMPLETE": "complete_bash", "COMP_WORDS": "kie-cover ge"}
    ended = await run(COMP_CWORD="1", **asking)
    assert sorted(ended.out.split()) == ["generate", "get"]


# Typer looks for a shell among the parents of the process.
IN_BASH = "import shellingham; shellingham.detect_shell = lambda: ('bash', '/bin/bash')\n"
SHOWN = "; --show-completion prints it\n"


async def test_completion_without_a_home_directory_is_one_line(run):
    """A system user may have none; the line says how else to get the completion."""
    # Without this module Python looks for a home directory in the environment only.
    before = "import os, sys; sys.modules['pwd'] = None; os.environ.pop('HOME', None)\n"
    ended = await run("--install-completion", before=IN_BASH + before)
    assert (ended.code, ended.out) == (FAILED, "")
    assert ended.err.startswith("kie-cover: cannot install completion: Could not determine home")
    assert ended.err.endswith(SHOWN)


async def test_completion_in_a_read_only_home_directory_is_one_line(run, tmp_path):
    """The line names the file, and does not mention stdout."""
    home = tmp_path / "home"
    home.touch()
    ended = await run("--install-completion", before=IN_BASH, HOME=str(home))
    assert (ended.code, ended.out) == (FAILED, "")
    assert re.match(rf"kie-cover: cannot install completion: .*'{home}", ended.err)
    assert ended.err.endswith(SHOWN)


async def test_completion_is_installed(run, tmp_path):
    """It goes to a file in the home directory."""
    ended = await run("--install-completion", before=IN_BASH, HOME=str(tmp_path))
    assert (ended.code, ended.err) == (DONE, "")
    assert "kie-cover" in (tmp_path / ".bash_completions" / "kie-cover.sh").read_text()


async def test_bug_keeps_its_traceback(run):
    """Only errors of the completion are one line."""
    before = (
        "import typer.main\n"
        "def fail(*_): raise RuntimeError('a bug')\n"
        "typer.main.get_command = fail"
    )
    ended = await run(before=before)
    assert (ended.code, ended.out) == (FAILED, "")
    assert ended.err.endswith("RuntimeError: a bug\n")


async def test_record_in_a_pipe_is_a_json_line(run, emulator):
    """The base URL may come from the environment."""
    task_id = emulator.add_job(age=10)
    ended = await run("get", task_id, KIE_BASE_URL=emulator.url)
    assert (ended.code, ended.err) == (DONE, "")
    assert [record["taskId"] for record in ended.documents] == [task_id]


async def test_error_in_a_pipe_is_a_line_of_text_and_one_of_json(run, emulator, key):
    """The key is in neither."""
    emulator.fault(Fault.answer(body={"code": 401, "msg": "not \x1b[31myou"}))
    ended = await run("wait", "an-id", "--base-url", emulator.url)
    assert ended.code == FAILED
    message, error = ended.err.splitlines()
    assert re.match(r"an-id at \d\.\d s: AuthenticationError 401: ", message)
    assert error.startswith("kie-cover: AuthenticationError 401: not ")
    assert "\x1b" not in message + error
    assert [document["error"] for document in ended.documents] == ["AuthenticationError"]
    assert key not in ended.out + ended.err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["get"], "ID"),
        (["get", "--raw"], "ID"),
        (["wait"], "ID"),
        (["generate", "--callback-url", "http://x"], "SONG"),
    ],
)
async def test_invalid_id_is_rejected_before_any_request(run, emulator, arguments, name):
    """The message uses the name that the help has."""
    ended = await run(*arguments, "an id", KIE_BASE_URL=emulator.url)
    assert (ended.code, ended.out) == (USAGE, "")
    wanted = "a non-empty str without blanks or control characters"
    assert ended.err == f"kie-cover: {name} must be {wanted}, not 'an id'\n"
    assert not emulator.requests


async def test_missing_key_message_says_where_to_get_one(run):
    """And which variable to export."""
    ended = await run("credits", KIE_API_KEY="")
    assert ended.code == USAGE
    assert "https://kie.ai/api-key" in ended.usage_error
    assert "export KIE_API_KEY=" in ended.usage_error


async def test_retries_are_reported_on_stderr(run, emulator):
    """Here the call is repeated after a refusal."""
    emulator.fault(Fault.rate_limited(retry_after=0))
    ended = await run("credits", "--base-url", emulator.url)
    assert ended.code == DONE
    assert ended.documents == [{"credits": 5916.25}]
    assert "refused for too many requests" in ended.err


async def test_ctrl_c_during_a_wait_is_130(started, emulator):
    """There is no message."""
    task_id = emulator.add_job(CoverScript(end="never"))
    arguments = ("wait", task_id, "--base-url", emulator.url)
    async with started(*arguments, PYTHONASYNCIODEBUG="1") as command:
        # Not only the next line: asyncio's debug mode reports slow steps on a busy machine.
        await command.message("s: GENERATING\n")
        command.interrupt()
        ended = await command.end()
    assert (ended.code, ended.out) == (INTERRUPTED, "")
    assert "Traceback" not in ended.err
    assert "Warning" not in ended.err


def test_console_script_is_outside_the_package():
    """So Ctrl-C works during the imports."""
    script = PROJECT["scripts"]["kie-cover"]
    assert script == f"{shim.__name__}:main"


async def test_ctrl_c_while_the_command_is_imported_is_no_traceback(run):
    """The exit code is the same as later."""
    script = (
        "import signal, sys, _kie_cover_async_command as c\n"
        "class Interrupter:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'kie_cover_async': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupter())\n"
        "c.main()"
    )
    ended = await run(command=(sys.executable, "-c", script))
    assert (ended.code, ended.out, ended.err) == (INTERRUPTED, "", "")


async def test_ctrl_c_while_arguments_are_parsed_is_no_traceback(run):
    """The exit code is the same as later."""
    before = (
        "import typer.main\n"
        "def interrupt(*_): raise KeyboardInterrupt\n"
        "typer.main.get_command = interrupt"
    )
    ended = await run(before=before)
    assert (ended.code, ended.out, ended.err) == (INTERRUPTED, "", "")


async def test_command_works_with_stdout_and_stderr_closed(run, emulator):
    """Python sets closed standard streams to None."""
    before = "import os, sys; os.close(1); os.close(2); sys.stdout = sys.stderr = None"
    arguments = ("generate", "a-song", "--callback-url", "http://x", "--base-url", emulator.url)
    ended = await run(*arguments, before=before)
    assert ended.code == DONE
    assert [request.endpoint for request in emulator.requests] == ["generate"]


@pytest.fixture
def unread():
    """A pipe whose reading end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


async def test_reader_that_is_gone_is_not_an_error(run, emulator, unread):
    """There is no message."""
    task_id = emulator.add_job(age=10)
    ended = await run("get", task_id, "--base-url", emulator.url, stdout=unread)
    assert (ended.code, ended.err) == (DONE, "")


async def test_error_counts_if_the_reader_is_gone(run, emulator, unread):
    """The exit code is 1."""
    ended = await run("get", "an-id", "--base-url", emulator.url, stdout=unread)
    assert ended.code == FAILED
    assert ended.err.startswith("kie-cover: no record of this id")
    assert ended.err.count("\n") == 1


@pytest.fixture
def full():
    """A device without space."""
    device = os.open("/dev/full", os.O_WRONLY)
    yield device
    os.close(device)


async def test_full_disk_is_a_failure_but_the_new_id_is_on_stderr(run, emulator, full):
    """The cover was paid for."""
    arguments = ("generate", "a-song", "--callback-url", "http://x", "--base-url", emulator.url)
    ended = await run(*arguments, stdout=full)
    assert ended.code == FAILED
    requested, failed = ended.err.splitlines()
    assert requested.startswith("requested; next: kie-cover wait ")
    assert failed == "kie-cover: cannot write to stdout: No space left on device"


class FullDisk(StringIO):
    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_usage_error_that_cannot_be_written_exits_with_2(monkeypatch):
    """The disk of stderr may be full."""
    monkeypatch.setattr(sys, "argv", ["kie-cover", "check", "an-id", "--rate", "0"])
    monkeypatch.setattr(sys, "stderr", FullDisk())
    with pytest.raises(SystemExit) as ended:
        _run()
    assert ended.value.code == USAGE


async def test_help_that_cannot_be_written_is_a_failure(run, full):
    """The message is the same."""
    ended = await run("--help", stdout=full)
    message = "kie-cover: cannot write to stdout: No space left on device\n"
    assert (ended.code, ended.err) == (FAILED, message)


async def test_reader_of_the_version_that_is_gone_is_not_an_error(run, unread):
    """There is no message."""
    ended = await run("--version", stdout=unread)
    assert (ended.code, ended.err) == (DONE, "")


async def test_terminal_shows_the_wait_and_then_the_record(on_terminal, emulator):
    """The view is erased in the end."""
    task_id = emulator.add_job(CoverScript(statuses=["500", "success"]))
    async with on_terminal("wait", task_id, KIE_BASE_URL=emulator.url) as terminal:
        await terminal.wait_for("ServerError 500")
        ended = await terminal.end()
    assert ended.code == DONE
    board, _, record = ended.out.rpartition("\x1b[2K")
    assert task_id in board
    assert "SUCCESS" in record
    assert "\x1b[?25h" in board + record


async def test_terminal_of_unknown_width_gets_results(on_terminal, emulator):
    """COLUMNS=0 says that it is unknown."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    async with on_terminal("get", task_id, KIE_BASE_URL=emulator.url, COLUMNS="0") as terminal:
        ended = await terminal.end()
    assert ended.code == DONE
    assert task_id in ended.out


async def test_ascii_terminal_gets_a_spinner_without_escapes(on_terminal, emulator):
    """Each sign has a replacement."""
    task_id = emulator.add_job(CoverScript(statuses=["generating"], seconds=1))
    ascii_only = {"KIE_BASE_URL": emulator.url, "PYTHONIOENCODING": "ascii"}
    async with on_terminal("wait", task_id, **ascii_only) as terminal:
        await terminal.wait_for(f"{task_id}  ")
        await terminal.wait_for("GENERATING")
        terminal.interrupt()
        ended = await terminal.end()
    assert ended.code == INTERRUPTED
    assert ended.out.isascii()
    assert "\\u" not in ended.out


async def test_json_on_a_terminal_has_no_colour(on_terminal, emulator):
    """`--json` asks for it."""
    async with on_terminal("credits", "--json", KIE_BASE_URL=emulator.url) as terminal:
        ended = await terminal.end()
    assert ended.out == '{"credits": 5916.25}\r\n'


async def test_raw_answer_on_a_terminal_is_escaped(on_terminal, emulator):
    """The terminal does not obey it."""
    emulator.fault(Fault.answer(body="\x1b]0;title\x07"))
    async with on_terminal("get", "an-id", "--raw", KIE_BASE_URL=emulator.url) as terminal:
        ended = await terminal.end()
    assert ended.out.endswith("\\x1b]0;title\\x07\r\n")


async def test_ctrl_c_on_a_terminal_restores_the_cursor(on_terminal, emulator):
    """There is no traceback."""
    task_id = emulator.add_job(CoverScript(end="never"))
    async with on_terminal("wait", task_id, KIE_BASE_URL=emulator.url) as terminal:
        await terminal.wait_for("GENERATING")
        terminal.interrupt()
        ended = await terminal.end()
    assert ended.code == INTERRUPTED
    assert "\x1b[?25h" in ended.out.rpartition("\x1b[?25l")[2]
    assert "Traceback" not in ended.out


def without(module):
    """Return code after which this module cannot be imported, and the command is imported again."""
    return (
        "import sys\n"
        "for name in [*sys.modules]:\n"
        "    if name.startswith('kie_cover_async.cli'): del sys.modules[name]\n"
        f"    elif name.startswith({module!r}): sys.modules[name] = None\n"
    )


@pytest.mark.parametrize("module", ["typer", "rich"])
async def test_missing_extra_is_one_line(run, module):
    """The line says what to install, as the extra `cli` has it, in words that pip understands."""
    needed = " ".join(map(repr, PROJECT["optional-dependencies"]["cli"]))
    ended = await run(before=without(module))
    assert ended.code == USAGE
    assert ended.err == f"kie-cover needs rich and typer: pip install {needed}\n"


async def test_another_missing_module_is_a_traceback(run):
    """It is not blamed on the extra."""
    ended = await run(before=without("kie_cover_async.emulator"))
    assert ended.code == 1
    assert "ModuleNotFoundError" in ended.err
