"""The program: the list of its commands, and how it starts and ends."""

import os
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated

import typer

from kie_cover_async import __version__

from .options import app
from .output import ASCII_SIGNS, FAILED, INTERRUPTED, OutputLost, emit, lost, say, show_log
from .process import termination_as_interrupt

# The help lists the commands in this order; a new one needs its module's name here.
for _module in ("demo", "covers", "make", "songs", "collect", "listen", "emulator"):
    import_module(f"{__package__}.commands.{_module}")


def main() -> None:
    """Run the command that was typed; ends in `SystemExit`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=ASCII_SIGNS if stream.isatty() else "backslashreplace")
    # Behind a proxy aiohttp reads the netrc file too, and an entry there conflicts with the key.
    os.environ["NETRC"] = os.devnull
    # COLUMNS=0 means an unknown width, and rich would print nothing.
    if not os.environ.get("COLUMNS", "").strip("0"):
        os.environ.pop("COLUMNS", None)
    show_log()
    with termination_as_interrupt():
        _run()


def _run() -> None:
    try:
        app(prog_name="kie-cover")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OutputLost as output:
        sys.exit(output.code)
    except (OSError, RuntimeError) as error:
        # A usage error remains one if stderr cannot be written to.
        if code := getattr(error.__context__, "exit_code", 0):
            sys.exit(code)
        # Typer writes the help to stdout, and the completion to files in the home directory.
        if isinstance(error, OSError) and error.filename is None:
            sys.exit(lost(error).code)
        if "--install-completion" not in sys.argv:
            raise
        say(f"kie-cover: cannot install completion: {error}; --show-completion prints it")
        sys.exit(FAILED)


@app.callback(invoke_without_command=True)
def version(
    is_wanted: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if is_wanted:
        emit(f"kie-cover {__version__}")
        raise typer.Exit
