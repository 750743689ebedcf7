"""What `kie-cover collect` is asked."""

from math import inf
from typing import Annotated

import typer

from kie_cover_async.cli.options import (
    AllowImageNetwork,
    BaseUrl,
    File,
    Json,
    Out,
    Rate,
    id_argument,
)
from kie_cover_async.cli.output import run, wants_json

from .run import CollectSettings, saved

EXAMPLE = "Example: kie-cover collect --file ids.txt --out covers"

HELP = """Wait for covers and save their images, and go on from where it stopped.

The ids are noted in the folder first, so that the same command, or one without ids, goes on
after Ctrl-C or a crash: what is there is not fetched again, what is pending is waited for. An
id that is given and whose files are gone is collected again.

Writes a line for each cover. Exits with 1 where one failed or is not done; with --listen
callbacks, signed with a key in KIE_CALLBACK_KEY, have it poll when a cover is done.
"""

Ids = Annotated[
    list[str] | None,
    id_argument("ID", "More covers; - reads them from stdin. None: what is pending."),
]


def collect(
    *,
    task_ids: Ids = None,
    file: File = None,
    out: Out = "covers",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Not more covers in this run.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try those again that failed.")
    ] = False,
    rate: Rate = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Wait so long for each cover; inf for ever.")
    ] = 900.0,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Hear callbacks there; a /path may follow."),
    ] = None,
    allow_image_network: AllowImageNetwork = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    settings = CollectSettings(
        ids=task_ids or (),
        file=file,
        out=out,
        limit=inf if limit is None else limit,
        retry_failed=retry_failed,
        rate=rate,
        timeout=timeout,
        listen=listen,
        allow_image_networks=allow_image_network or (),
        base_url=base_url,
        as_json=wants_json(as_json),
    )
    run(saved(settings), as_json=settings.as_json)
