"""`check` and `wait` for many ids: a line for each, as it comes."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from attrs import frozen
from rich.text import Text

from kie_cover_async import (
    CoverClient,
    CoverOutcome,
    OutcomeStream,
    unstructure_details,
)

from . import verbs
from .board import watched
from .connection import connected, rate_limiter_of
from .failures import reporting_failures
from .ids import STDIN, opened
from .output import (
    DONE,
    FAILED,
    OutputLost,
    error_fields,
    one_line,
    quiet,
    say,
)
from .tally import Tally, how_it_ended, style_of

Begin = Callable[[CoverClient, AsyncIterator[str]], OutcomeStream]


@frozen(kw_only=True)
class Asked:
    """What the command was given: ids and where more of them are, and how to go about it."""

    ids: Sequence[str]
    file: str | None
    base_url: str | None
    rate: float | None
    as_json: bool


async def check(asked: Asked) -> int:
    """One poll of each."""
    return await _all(asked, lambda client, ids: client.check_covers(ids))


async def wait(asked: Asked, timeout: float) -> int:
    """Wait for each, for so many seconds or for `inf`; a single one is watched more closely."""
    if len(asked.ids) == 1 and asked.file is None and asked.ids[0] != STDIN:
        return await verbs.wait(
            asked.ids[0], timeout, asked.base_url, rate=asked.rate, as_json=asked.as_json
        )
    seconds = verbs.seconds_of(timeout)
    return await _all(asked, lambda client, ids: client.wait_for_covers(ids, timeout=seconds))


async def _all(asked: Asked, begin: Begin) -> int:
    tally = Tally()
    rate_limiter = rate_limiter_of(asked.rate)
    try:
        with quiet(), opened(asked.ids, asked.file) as ids:
            async with (
                connected(asked.base_url, reporting_failures(tally.hear), rate_limiter) as client,
                begin(client, ids) as outcomes,
            ):
                with watched(tally) as write:
                    async for outcome in outcomes:
                        tally.count(outcome)
                        write(_line(outcome, as_json=asked.as_json))
    except OutputLost as lost:
        # The reader has seen enough, as `head` does. What failed until then has failed.
        raise OutputLost(FAILED if tally.failed else lost.code) from None
    finally:
        _say_summary(tally)
    return FAILED if tally.failed else DONE


def _say_summary(tally: Tally) -> None:
    if tally.done:
        say(tally.summary())


def _line(outcome: CoverOutcome, *, as_json: bool) -> str | Text:
    return json.dumps(outcome_fields(outcome)) if as_json else outcome_text(outcome)


def outcome_fields(outcome: CoverOutcome) -> dict[str, Any]:
    """The record as JSON, or the error and its facts."""
    if outcome.error is None:
        return unstructure_details(outcome.result())
    # The error of an id that can be none does not know it.
    return {**error_fields(outcome.error), "taskId": str(outcome.task_id)}


def outcome_text(outcome: CoverOutcome) -> Text:
    """The same in a line for people."""
    word = how_it_ended(outcome)
    return Text.assemble(
        f"{one_line(outcome.task_id)}  ", (word, style_of(word)), f"  {one_line(_said(outcome))}"
    )


def _said(outcome: CoverOutcome) -> object:
    if outcome.error is not None:
        return outcome.error
    details = outcome.result()
    return " ".join(details.images) or details.error_message or ""
