"""`get`, `check`, `wait`, `generate` and `credits`: the client's verbs, for one cover or many."""

import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import typer
from rich.text import Text

from kie_cover_async import (
    CoverClient,
    CoverDetails,
    CoverOutcome,
    OutcomeStream,
    unstructure_details,
)
from kie_cover_async.cli import options, output, progress, records
from kie_cover_async.cli.client import (
    fetch_raw,
    open_client,
    rate_limiter_for,
    timeout_seconds,
    validate_callback_url,
)
from kie_cover_async.cli.ids import SONGS, STDIN, open_ids
from kie_cover_async.events import Observer
from kie_cover_async.validation import validate_task_id

Begin = Callable[[CoverClient, AsyncIterator[str]], OutcomeStream]


@options.command(
    """Poll the status of a cover once.

    Exits with 0 whatever the cover's state is, and with 1 if there is no record of it.
    With --raw every answer counts; it goes to stdout as text unless --json is given.
    """,
    example="get 21aee3c3c2a01fa5e030b3799fa4dd56",
)
async def get(
    task_id: options.TaskId,
    *,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="The unparsed answer, without key and cookies: for reports."),
    ] = False,
    route: options.Route = None,
    base_url: options.BaseUrl = None,
    as_json: options.Json = False,
) -> int:
    validate_task_id("ID", task_id)
    if raw:
        answer, shape = await fetch_raw(task_id, base_url, route)
        _write_raw(answer, as_json=as_json)
    else:
        async with open_client(base_url, route=route) as client:
            details = await client.get_cover_details(task_id)
        _write(details, as_json=as_json)
        shape = details.record_shape
    if shape is not None:
        output.say(f"kie-cover: unknown to this version; please report its keys and types: {shape}")
    return output.DONE


def _write_raw(answer: dict[str, Any], *, as_json: bool) -> None:
    """Write the answer as JSON, or as curl would show it."""
    if as_json:
        output.emit_json(answer)
        return
    lines = [f"GET {answer['url']}", "Authorization: Bearer ***", "", f"HTTP {answer['status']}"]
    lines += [f"{name}: {value}" for name, value in answer["headers"]]
    lines += ["", *answer["body"].splitlines()]
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    for line in lines:
        output.emit(output.one_line(line) if on_terminal else line)


def _write(details: CoverDetails, *, as_json: bool) -> None:
    if as_json:
        output.emit_json(unstructure_details(details))
    else:
        output.emit_renderables(*records.record_lines(details))


@options.command(
    """Poll the status of each of many covers once.

    Writes a line for each id, in the order of the answers. Exits with 1 if there was an error
    instead of an answer; a failed cover is an answer.
    """,
    example="check --file ids.txt --rate 5 > states.jsonl",
)
async def check(
    task_ids: options.TaskIds = None,
    *,
    file: options.File = None,
    rate: options.Rate = None,
    route: options.Route = None,
    base_url: options.BaseUrl = None,
    as_json: options.Json = False,
) -> int:
    settings = {"rate_limiter": rate_limiter_for(rate), "route": route}
    return await _write_outcomes(
        CoverClient.check_covers, task_ids, file, base_url, settings, as_json=as_json
    )


@options.command(
    """Wait until covers are done.

    The time of each of many begins with its first poll, and each has a line when it is done. Exits
    with 1 if a job failed, if the time is up, and if there is no record of it.
    After an interruption or a timeout the jobs go on, and can be waited for again.
    """,
    example="wait 21aee3c3c2a01fa5e030b3799fa4dd56 --timeout 600",
)
async def wait(
    task_ids: options.TaskIds = None,
    *,
    timeout: Annotated[
        float, options.option("SECONDS", "Give up after this; 0 is one poll, inf never.")
    ] = 900.0,
    file: options.File = None,
    rate: options.Rate = None,
    route: options.Route = None,
    base_url: options.BaseUrl = None,
    as_json: options.Json = False,
) -> int:
    seconds = timeout_seconds(timeout)
    settings = {"rate_limiter": rate_limiter_for(rate), "route": route}
    if task_ids and len(task_ids) == 1 and file is None and task_ids[0] != STDIN:
        return await _wait_for_one(task_ids[0], seconds, base_url, settings, as_json=as_json)
    begin = partial(CoverClient.wait_for_covers, timeout=seconds)
    return await _write_outcomes(begin, task_ids, file, base_url, settings, as_json=as_json)


async def _wait_for_one(
    task_id: str,
    timeout: float | None,
    base_url: str | None,
    settings: Mapping[str, Any],
    *,
    as_json: bool,
) -> int:
    """Wait for a cover, and show each poll on a terminal, or each change on a line elsewhere."""
    validate_task_id("ID", task_id)
    with output.warnings_only(), _observing(task_id) as observers:
        async with open_client(base_url, observer=observers, **settings) as client:
            details = await client.wait_for_cover(task_id, timeout=timeout)
    _write(details, as_json=as_json)
    return output.DONE


@contextmanager
def _observing(task_id: str) -> Iterator[list[Observer]]:
    if not progress.can_draw(sys.stderr):
        yield [progress.StateChangeLog().on_event, progress.FailureLog().on_event]
        return
    view = progress.WaitView(task_id)
    with progress.live(view, console=output.plain_console(stderr=True)):
        yield [view.on_event]


class OutcomesView(progress.CoversView):
    """The progress of `check` and `wait`: what became of each id."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("{:,.1f} requests/s".format, clock=clock)
        self.failed: int = 0
        self._ends: Counter[str] = Counter()

    def count(self, outcome: CoverOutcome) -> None:
        """Count an outcome."""
        self.failed += not outcome.ok
        self._ends[records.state_or_error(outcome)] += 1

    @property
    def done(self) -> int:
        """The number of outcomes."""
        return self._ends.total()

    def row(self) -> tuple[str, float]:
        """Return the headline, and the number of requests."""
        ok = self.done - self.failed
        headline = f"[bold]{self.done:,} done[/]: {ok:,} ok, {self.failed:,} failed"
        return headline, self.requests

    def counts(self) -> dict[str, int]:
        """Return how many ids ended in each way."""
        return self._ends

    def summary(self) -> str:
        """Return the line for the end."""
        ids = output.counted(self.done, "id")
        return (
            f"{ids} in {self.seconds:.1f} s: {self.done - self.failed:,} ok, "
            f"{self.failed:,} failed; {self.requests:,} requests, "
            f"{self.requests / max(self.seconds, 0.1):,.1f} per second"
        )


async def _write_outcomes(
    begin: Begin,
    task_ids: list[str] | None,
    file: str | None,
    base_url: str | None,
    settings: Mapping[str, Any],
    *,
    as_json: bool,
) -> int:
    """Write a line for each outcome of a bulk call, and return the exit code."""
    if not task_ids and file is None:
        raise output.UsageError(
            f"no ids: give some, or --file FILE, or {STDIN} to read them from stdin"
        )
    view = OutcomesView()
    observers = [view.on_event, progress.FailureLog().on_event]
    try:
        with output.warnings_only(), open_ids(task_ids or (), file) as batches:
            ids = (task_id async for batch in batches for task_id in batch)
            async with (
                open_client(base_url, observer=observers, **settings) as client,
                begin(client, ids) as outcomes,
            ):
                with progress.drawn(view) as write_line:
                    async for outcome in outcomes:
                        view.count(outcome)
                        write_line(_line(outcome, as_json=as_json))
    except output.OutputLost as lost:
        # The reader has seen enough, as `head` has. What failed until then has failed.
        raise output.OutputLost(output.FAILED if view.failed else lost.code) from None
    finally:
        _say_summary(view)
    return output.FAILED if view.failed else output.DONE


def _line(outcome: CoverOutcome, *, as_json: bool) -> str | Text:
    return json.dumps(records.outcome_fields(outcome)) if as_json else records.outcome_text(outcome)


def _say_summary(view: OutcomesView) -> None:
    if view.done:
        output.say(view.summary())


@options.command(
    """Request a cover for a song, and print the new task's id. Costs credits.

    If the song already has a cover, the exit code is 1 and the error contains the cover's id if
    the API says it ("existingTaskId").
    """,
    example="generate 5c79be8e0a6a4bd0 --callback-url https://example.com/done",
)
async def generate(
    music_task_id: Annotated[str, options.id_argument("SONG", "The music task's id.", SONGS)],
    *,
    callback_url: Annotated[
        str | None,
        options.option(
            "URL", "Called when the cover is done. The route suno requires one, used or not."
        ),
    ] = None,
    route: options.Route = None,
    base_url: options.BaseUrl = None,
    as_json: options.Json = False,
) -> int:
    validate_task_id("SONG", music_task_id)
    validate_callback_url(callback_url, route)
    async with open_client(base_url, route=route) as client:
        task_id = await client.generate_cover(music_task_id, callback_url=callback_url)
    # On stderr too, in case stdout is lost: the cover has been paid for.
    same_route = "" if route is None else f" --route {route}"
    output.say(f"requested; next: kie-cover wait {task_id}{same_route}")
    if as_json:
        output.emit_json({"taskId": task_id})
    else:
        output.emit(output.one_line(task_id))
    return output.DONE


@options.command("Print the remaining credits of the account.", example="credits")
async def credits(
    base_url: options.BaseUrl = None,
    *,
    route: options.Route = None,
    as_json: options.Json = False,
) -> int:
    async with open_client(base_url, route=route) as client:
        amount = await client.get_credits()
    if as_json:
        output.emit_json({"credits": amount})
    else:
        output.emit(f"{amount:,} credits")
    return output.DONE
