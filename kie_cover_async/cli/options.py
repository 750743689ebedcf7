"""How commands are declared to typer: the application, `@command`, and the shared options."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from kie_cover_async import KieCoverError
from kie_cover_async.api import ROUTES
from kie_cover_async.archive import DamagedRecordError
from kie_cover_async.settings import resolve_route
from kie_cover_async.validation import short_repr

from .ids import COVERS, IdKind, NotAnId, parse_id
from .output import FAILED, INTERRUPTED, say, usage_errors, wants_json
from .process import in_daemon_threads, woken_by_signals
from .records import report_error

Work = TypeVar("Work", bound=Callable[..., Coroutine[Any, Any, int]])


class _Command(TyperCommand):
    """A command whose help page shows metavars and no Python types."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class _Group(TyperGroup):
    """The same for the page that lists the commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def _without_types(params: list[Any]) -> list[Any]:
    """Show the metavar of an option that takes a value, and nothing for flags and arguments.

    Newer releases of typer add `<bool>` to a flag, which invites `--json true`, and `<list[str]>`
    to an argument. They have no setting for that.
    """
    for param in params:
        takes_value = param.param_type_name == "option" and not param.is_flag
        shown = param.metavar if takes_value else None
        vars(param)["display_type_rich"] = lambda shown=shown, **_: shown
    return params


app: typer.Typer = typer.Typer(
    name="kie-cover",
    cls=_Group,
    help="""Cover images of KIE.ai's Suno API: request them, wait for them, save them.

    The API key is read from the environment: export KIE_API_KEY=...

    Results go to stdout: text on a terminal, otherwise JSON lines, and an error is a line with
    "error" in it. Everything else goes to stderr.

    Exit codes: 0 done, 1 the job or the API failed, 2 a wrong argument or no key, 130 interrupted.
    """,
    epilog="Start with: kie-cover demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(help_text: str, *, example: str, text_in_pipes: bool = False) -> Callable[[Work], Work]:
    """Make a command of an async function that takes the arguments and returns the exit code.

    Its `as_json` is true for `--json` and if stdout is not a terminal, unless `text_in_pipes`.
    The help is an argument because Python has no docstrings under PYTHONOPTIMIZE=2.
    """

    def register(work: Work) -> Work:
        @wraps(work)
        def start(**arguments: Any) -> None:
            # `get --raw` prints text to a pipe, too.
            if not (text_in_pipes or arguments.get("raw")):
                arguments["as_json"] = wants_json(arguments["as_json"])
            _run(work(**arguments), as_json=arguments["as_json"])

        app.command(cls=_Command, help=help_text, epilog=f"Example: kie-cover {example}")(start)
        return work

    return register


def _run(work: Coroutine[Any, Any, int], *, as_json: bool) -> NoReturn:
    try:
        code = asyncio.run(_in_loop(work))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except KieCoverError as error:
        code = report_error(error, as_json=as_json)
    except (OSError, DamagedRecordError) as error:
        say(f"kie-cover: {error}")
        code = FAILED
    raise typer.Exit(code)


async def _in_loop(work: Coroutine[Any, Any, int]) -> int:
    with woken_by_signals():
        return await in_daemon_threads(work, say)


def _read_ids(given: Any, kind: IdKind) -> Any:
    """Return the id or ids of an argument; raise `BadParameter` for JSON without an id.

    JSON keywords are rejected because `--json true`, for example, would make an id of `true`.
    """
    if isinstance(given, (list, tuple)):
        return [_read_ids(each, kind) for each in given]
    found = None if given is None else parse_id(given, kind)
    if isinstance(found, NotAnId):
        raise typer.BadParameter(f"an id is expected, not {short_repr(found)}")
    return found


def _validate_route(given: str | None) -> str | None:
    """Return the option as it is; raise `UsageError` unless it or KIE_ROUTE names a route."""
    with usage_errors():
        resolve_route(given, name="--route")
    return given


def id_argument(metavar: str, help_text: str, kind: IdKind = COVERS) -> Any:
    """Return a typer argument for ids, which may be written as JSON."""

    def read(given: Any) -> Any:
        return _read_ids(given, kind)

    return typer.Argument(metavar=metavar, help=help_text, callback=read)


def option(metavar: str, help_text: str, **bounds: Any) -> Any:
    """Return a typer option with a value."""
    return typer.Option(metavar=metavar, help=help_text, **bounds)


TaskId = Annotated[str, id_argument("ID", "The cover task's id, not the song's.")]
TaskIds = Annotated[
    list[str] | None, id_argument("ID", "The cover tasks' ids; - reads them from stdin.")
]
File = Annotated[
    str | None,
    option("FILE", "A file with an id, or JSON with a taskId, on each line."),
]
Rate = Annotated[
    float | None,
    option("NUMBER", "Requests per second; default 9, inf for no limit."),
]
Port = Annotated[int, option("PORT", "0 picks a free one.", min=0, max=65535)]
Out = Annotated[str, option("FOLDER", "The folder for the images.")]
Listen = Annotated[str | None, option("HOST:PORT", "Receive callbacks there; a /path may follow.")]
AllowImageNetwork = Annotated[
    list[str] | None,
    option(
        "NETWORK",
        "Also fetch images from these non-public addresses: for example 198.18.0.0/15.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON lines on a terminal too.")]
BaseUrl = Annotated[
    str | None,
    # No `envvar`: an error must say where the URL came from.
    option("URL", "Another service with the same API; default KIE_BASE_URL."),
]
Route = Annotated[
    str | None,
    option(
        f"[{'|'.join(ROUTES)}]",
        "The vendor's older or newer API for covers; default KIE_ROUTE or suno.",
        callback=_validate_route,
    ),
]
