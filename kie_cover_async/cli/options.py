"""What several commands ask for."""

from typing import Annotated, Any

import typer

from kie_cover_async.validation import short_repr

from .ids import NotAnId, an_id


def _read(given: Any) -> Any:
    """Return the id or ids of an argument; raise `BadParameter` for JSON without an id.

    The words of JSON are refused because `--json true`, say, would make an id of `true`.
    """
    if isinstance(given, (list, tuple)):
        return [*map(_read, given)]
    read = None if given is None else an_id(given)
    if isinstance(read, NotAnId):
        raise typer.BadParameter(f"an id is expected, not {short_repr(read)}")
    return read


def id_argument(name: str, told: str) -> Any:
    return typer.Argument(metavar=name, help=told, callback=_read)


TaskId = Annotated[str, id_argument("ID", "The cover task's id, not the song's.")]
TaskIds = Annotated[
    list[str] | None, id_argument("ID", "The cover tasks' ids; - reads them from stdin.")
]
File = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="A file with an id, or JSON with a taskId, in each line."),
]
Rate = Annotated[
    float | None,
    typer.Option(metavar="NUMBER", help="Requests a second; 9 if not given, inf has no limit."),
]
AllowImageNetwork = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NETWORK",
        help="Take images from such addresses, too, which are not public: 198.18.0.0/15, say.",
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="0 takes a free one.")]
Out = Annotated[str, typer.Option(metavar="FOLDER", help="Where the images go.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON lines on a terminal too.")]
BaseUrl = Annotated[
    str | None,
    # No `envvar`: an error has to say where the URL came from.
    typer.Option(metavar="URL", help="Another service of the same API; KIE_BASE_URL if not given."),
]


def share(told: str) -> Any:
    return typer.Option(min=0, max=1, metavar="SHARE", help=told)
