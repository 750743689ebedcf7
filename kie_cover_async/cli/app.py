"""The commands: what each is asked, and the function that does it."""

import os
import sys
from functools import partial
from io import TextIOWrapper
from typing import Annotated

import typer

from kie_cover_async import __version__
from kie_cover_async.emulator import CallbackPlan

from . import many, verbs
from .collect import command as collecting
from .demo import play
from .emulated import EmulatorSettings, emulate
from .help_page import Command, Group
from .listening import ListenSettings, hear
from .options import BaseUrl, File, Json, Out, Port, Rate, TaskId, TaskIds, id_argument, share
from .output import (
    FAILED,
    INTERRUPTED,
    POLL_ALIKES,
    OutputLost,
    emit,
    lost,
    run,
    say,
    show_log,
    wants_json,
)
from .signals import ended_like_by_ctrl_c

_INSTALL = "--install-completion"

app: typer.Typer = typer.Typer(
    name="kie-cover",
    cls=Group,
    help="""Cover images of KIE.ai's Suno API: ask for them, wait for them, look at them.

    The API key is read from the environment: export KIE_API_KEY=...

    Results go to stdout: text on a terminal, else JSON lines, and an error is a line with "error"
    in it. Everything said along the way goes to stderr.

    Exit codes: 0 done, 1 the job or the API failed, 2 a wrong argument or no key, 130 interrupted.
    """,
    epilog="Start with: kie-cover demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# The help is an argument: Python has no docstrings under PYTHONOPTIMIZE=2.
_command = partial(app.command, cls=Command)


def main() -> None:
    """Run the command that was typed; ends in `SystemExit`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=POLL_ALIKES if stream.isatty() else "backslashreplace")
    # With a proxy aiohttp reads the netrc file too, and an entry there clashes with the key.
    os.environ["NETRC"] = os.devnull
    # No width at all says that it is not known, and rich would print nothing.
    if not os.environ.get("COLUMNS", "").strip("0"):
        os.environ.pop("COLUMNS", None)
    show_log()
    with ended_like_by_ctrl_c():
        _run()


def _run() -> None:
    try:
        app(prog_name="kie-cover")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OutputLost as output:
        sys.exit(output.code)
    except (OSError, RuntimeError) as error:
        # Typer writes the help to stdout, and the completion to files in the home directory.
        if isinstance(error, OSError) and error.filename is None:
            sys.exit(lost(error).code)
        if _INSTALL not in sys.argv:
            raise
        say(f"kie-cover: cannot install completion: {error}; --show-completion prints it")
        sys.exit(FAILED)


@app.callback(invoke_without_command=True)
def version(
    asked: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if asked:
        emit(f"kie-cover {__version__}")
        raise typer.Exit


@_command(
    epilog="Example: kie-cover demo",
    help="""Watch 24 covers being asked for, waited for and saved. Needs no key and no network.

    They come from an emulation of the API on this machine, where one of them fails, one is not
    done in time and one is refused for too many requests on the way. Takes about ten seconds.

    Prints a table also where stdout is no terminal, and JSON lines with --json.
    """,
)
def demo(out: Out = "kie-cover-demo", as_json: Json = False) -> None:
    run(play(out=out, as_json=as_json), as_json=as_json)


@_command(
    epilog="Example: kie-cover get 21aee3c3c2a01fa5e030b3799fa4dd56",
    help="""Poll the status of a cover once.

    Exits with 0 whatever state the cover is in, and with 1 where there is no record of it.
    With --raw any answer will do; stdout has it as text unless --json is given.
    """,
)
def get(
    task_id: TaskId,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="The answer as it came, without key and cookies: for reports."),
    ] = False,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    if raw:
        run(verbs.get_raw(task_id, base_url, as_json=as_json), as_json=as_json)
    as_json = wants_json(as_json)
    run(verbs.get(task_id, base_url, as_json=as_json), as_json=as_json)


@_command(
    epilog="Example: kie-cover check --file ids.txt --rate 5 > states.jsonl",
    help="""Poll the status of each of many covers once.

    Writes a line for each id, as its answer comes. Exits with 1 where there was an error instead
    of an answer; a failed cover is an answer.
    """,
)
def check(
    task_ids: TaskIds = None,
    file: File = None,
    rate: Rate = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    as_json = wants_json(as_json)
    asked = many.Asked(ids=task_ids or (), file=file, base_url=base_url, rate=rate, as_json=as_json)
    run(many.check(asked), as_json=as_json)


@_command(
    epilog="Example: kie-cover wait 21aee3c3c2a01fa5e030b3799fa4dd56 --timeout 600",
    help="""Wait until covers are done.

    Of many each has its own time, from its first poll on, and a line when it is done. Exits with 1
    where a job failed, where the time is up, and where there is no record of it.
    Interrupted or out of time, the jobs go on, and can be waited for again.
    """,
)
def wait(
    *,
    task_ids: TaskIds = None,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Give up after this; 0 is one poll, inf never."),
    ] = 900.0,
    file: File = None,
    rate: Rate = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    as_json = wants_json(as_json)
    asked = many.Asked(ids=task_ids or (), file=file, base_url=base_url, rate=rate, as_json=as_json)
    run(many.wait(asked, timeout), as_json=as_json)


@_command(
    epilog="Example: kie-cover generate 5c79be8e0a6a4bd0 --callback-url https://example.com/done",
    help="""Ask for the cover of a song, and print the new task's id. Costs credits.

    Where the song has a cover already, the exit code is 1 and the error names the cover's id if
    the API does ("existingTaskId").
    """,
)
def generate(
    music_task_id: Annotated[str, id_argument("SONG", "The music task's id.")],
    callback_url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Told when the cover is done. The API wants one, heard or not."
        ),
    ],
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    as_json = wants_json(as_json)
    run(verbs.generate(music_task_id, callback_url, base_url, as_json=as_json), as_json=as_json)


@_command(
    epilog="Example: kie-cover credits",
    help="Print what is left on the account.",
)
def credits(base_url: BaseUrl = None, as_json: Json = False) -> None:
    as_json = wants_json(as_json)
    run(verbs.credits(base_url, as_json=as_json), as_json=as_json)


_command(epilog=collecting.EXAMPLE, help=collecting.HELP)(collecting.collect)


@_command(
    epilog="Example: kie-cover listen --port 8080 --path /kie/callback",
    help="""Listen to callbacks until Ctrl-C, and write a line for each.

    Signatures are checked if KIE_CALLBACK_KEY has a key, or several with commas between them. With
    KIE_API_KEY each callback is followed by a poll, and the line is what that has shown; without,
    the line is what the callback claims, which anybody may have written. Repetitions get no line.
    """,
)
def listen(
    *,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Where connections are taken from.")
    ] = "127.0.0.1",
    port: Port = 8080,
    path: Annotated[
        str, typer.Option(metavar="PATH", help="The rest of the callback URL.")
    ] = "/kie/callback",
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    settings = ListenSettings(
        host=host, port=port, path=path, base_url=base_url, as_json=wants_json(as_json)
    )
    run(hear(settings), as_json=False)


@_command(
    epilog="Example: kie-cover emulator --port 8321 --fault-rate 0.1 --lost-callbacks 0.2",
    help="""Emulate the API on this machine until Ctrl-C, for trying things out.

    What goes wrong by --fault-rate is one of: a refusal for too many requests, a server error, a
    gateway's HTML page, a connection reset, half a JSON text.

    Callbacks go to URLs on this machine only, signed if KIE_CALLBACK_KEY has a key, or with the
    first of several with commas between them.
    """,
)
def emulator(
    *,
    port: Port = 0,
    generation_time: Annotated[
        str, typer.Option(metavar="SECONDS", help="From asking to the end, or a range of it.")
    ] = "2-8",
    failure_rate: Annotated[float, share("How many of the covers fail.")] = 0.0,
    stuck_rate: Annotated[float, share("How many of the covers never end.")] = 0.0,
    fault_rate: Annotated[float, share("How many of the answers go wrong.")] = 0.0,
    limits: Annotated[
        bool, typer.Option("--limits", help="Refuse what exceeds the vendor's limits.")
    ] = False,
    late_callbacks: Annotated[float, share("How many callbacks come seconds later.")] = 0.0,
    lost_callbacks: Annotated[float, share("How many callbacks never come.")] = 0.0,
    duplicated_callbacks: Annotated[float, share("How many callbacks come twice.")] = 0.0,
    forged_callbacks: Annotated[float, share("How many have a forged one beside them.")] = 0.0,
    wrong_signatures: Annotated[float, share("How many are signed with a wrong key.")] = 0.0,
    seed: Annotated[
        str, typer.Option(metavar="TEXT", help="Every random choice follows from it.")
    ] = "0",
    as_json: Json = False,
) -> None:
    callbacks = CallbackPlan(
        late=late_callbacks,
        lost=lost_callbacks,
        duplicated=duplicated_callbacks,
        forged=forged_callbacks,
        wrong_signature=wrong_signatures,
    )
    settings = EmulatorSettings(
        port=port,
        generation_time=generation_time,
        failure_rate=failure_rate,
        stuck_rate=stuck_rate,
        fault_rate=fault_rate,
        limits=limits,
        seed=seed,
        callbacks=callbacks,
    )
    run(emulate(settings, as_json=wants_json(as_json)), as_json=False)
