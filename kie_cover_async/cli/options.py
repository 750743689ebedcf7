"""What several commands ask for."""

from typing import Annotated, Any

import typer

TaskId = Annotated[str, typer.Argument(metavar="ID", help="The cover task's id, not the song's.")]
TaskIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID...", help="The cover tasks' ids; - reads them from stdin."),
]
File = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="A file with an id, or JSON with a taskId, in each line."),
]
Rate = Annotated[
    float | None,
    typer.Option(metavar="NUMBER", help="Requests a second; 10 if not given, inf has no limit."),
]
Out = Annotated[str, typer.Option(metavar="FOLDER", help="Where the images go.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON lines on a terminal too.")]
BaseUrl = Annotated[
    str | None,
    # No `envvar`: an error has to say where the URL came from.
    typer.Option(metavar="URL", help="Another service of the same API; KIE_BASE_URL if not given."),
]


def share(told: str) -> Any:
    return typer.Option(min=0, max=1, metavar="SHARE", help=told)
