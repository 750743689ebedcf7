"""The client's verbs as commands: what is called, and what is written of it."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import inf

from rich.console import Console

from kie_cover_async import CoverDetails, unstructure_details
from kie_cover_async.events import Observer
from kie_cover_async.validation import validate_http_url, validate_number, validate_task_id

from .board import Board, Changes, can_draw, live
from .connection import connected, rate_limiter_of, raw_answer
from .failures import reporting_failures
from .output import DONE, emit, emit_json, emit_printed, one_line, quiet, refusing, say
from .record import raw_lines, record_lines


async def get(task_id: str, base_url: str | None, *, as_json: bool) -> int:
    """One poll, repeated after passing failures."""
    validate_task_id("ID", task_id)
    async with connected(base_url) as client:
        details = await client.get_cover_details(task_id)
    _show(details, as_json=as_json)
    return DONE


async def get_raw(task_id: str, base_url: str | None, *, as_json: bool) -> int:
    """One poll, and its answer as it came."""
    validate_task_id("ID", task_id)
    answer = await raw_answer(task_id, base_url)
    if as_json:
        emit_json(
            {
                "url": answer.url,
                "status": answer.status,
                "headers": answer.headers,
                "body": answer.body.decode(errors="backslashreplace"),
            }
        )
        return DONE
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    for line in raw_lines(answer):
        emit(one_line(line) if on_terminal else line)
    return DONE


async def wait(
    task_id: str,
    timeout: float,
    base_url: str | None,
    *,
    rate: float | None = None,
    as_json: bool,
) -> int:
    """Wait for a cover, watched on a terminal, with a line for every change elsewhere."""
    validate_task_id("ID", task_id)
    seconds, rate_limiter = seconds_of(timeout), rate_limiter_of(rate)
    with quiet(), _watching([task_id]) as observer:
        async with connected(base_url, observer, rate_limiter) as client:
            details = await client.wait_for_cover(task_id, timeout=seconds)
    _show(details, as_json=as_json)
    return DONE


def seconds_of(timeout: float) -> float | None:
    """What the client takes for a timeout that may be `inf`."""
    if timeout == inf:
        return None
    with refusing():
        validate_number("--timeout", timeout, at_least=0)
    return timeout


async def generate(
    music_task_id: str, callback_url: str, base_url: str | None, *, as_json: bool
) -> int:
    """Ask for a cover. The new id is said as well as written: it has been paid for."""
    validate_task_id("SONG", music_task_id)
    with refusing():
        validate_http_url("--callback-url", callback_url)
    async with connected(base_url) as client:
        task_id = await client.generate_cover(music_task_id, callback_url=callback_url)
    say(f"asked for; next: kie-cover wait {task_id}")
    if as_json:
        emit_json({"taskId": task_id})
    else:
        emit(one_line(task_id))
    return DONE


async def credits(base_url: str | None, *, as_json: bool) -> int:
    """What is left on the account."""
    async with connected(base_url) as client:
        amount = await client.get_credits()
    if as_json:
        emit_json({"credits": amount})
    else:
        emit(f"{amount:,} credits")
    return DONE


def _show(details: CoverDetails, *, as_json: bool) -> None:
    if as_json:
        emit_json(unstructure_details(details))
    else:
        emit_printed(*record_lines(details))


@contextmanager
def _watching(task_ids: Iterable[str]) -> Iterator[Observer]:
    """An observer that shows what waits are doing, for as long as this lasts."""
    if not can_draw(sys.stderr):
        yield reporting_failures(Changes().hear)
        return
    board = Board(task_ids)
    with live(board, console=Console(stderr=True, markup=False, highlight=False)):
        yield board.hear
