"""Ids from arguments, a file or stdin, one by one and no sooner than they are asked for."""

import asyncio
import json
import os
import stat
import sys
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from .output import Refused

STDIN = "-"

_CHUNK = 1 << 16


@contextmanager
def opened(arguments: Sequence[str], file: str | None) -> Iterator[AsyncIterator[Any]]:
    """The ids that are given as arguments, `-` for stdin among them, and those of the file.

    Raises `Refused` where there are none or the file cannot be opened; a file that cannot be read
    is `Refused` by the iteration.
    """
    if not arguments and file is None:
        raise Refused(f"no ids: give some, or --file FILE, or {STDIN} to read them from stdin")
    with opened_in_batches(arguments, file) as batches:
        yield _one_by_one(batches)


@contextmanager
def opened_in_batches(
    arguments: Sequence[str], file: str | None
) -> Iterator[AsyncGenerator[list[Any], None]]:
    """The same, as many at a time as come together; none at all, where none are given."""
    if file == "":  # a variable of the shell's that is not set, say
        raise Refused("--file must name a file, not ''")
    sources = [*((name, name == STDIN) for name in arguments), *([(file, True)] if file else [])]
    with ExitStack() as stack:
        yield _batches(
            [stack.enter_context(_open(name)) if is_file else name for name, is_file in sources]
        )


def are_at_hand(arguments: Sequence[str], file: str | None) -> bool:
    """Whether all of them can be read now: none come through a pipe, or from a person."""
    modes = [os.fstat(sys.stdin.fileno()).st_mode for each in (*arguments, file) if each == STDIN]
    if file and file != STDIN:
        modes.append(Path(file).stat().st_mode)
    return all(map(stat.S_ISREG, modes))


@contextmanager
def _open(name: str) -> Iterator[int]:
    if name == STDIN:
        if sys.stdin is None:
            raise Refused("stdin is closed")
        yield sys.stdin.fileno()
        return
    try:
        # A named pipe opened like this needs no writer yet, and is waited for when it is read.
        descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise Refused(f"cannot open {name}: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _one_by_one(batches: AsyncGenerator[list[Any], None]) -> AsyncIterator[Any]:
    async with aclosing(batches):
        async for batch in batches:
            for task_id in batch:
                yield task_id


async def _batches(sources: Sequence[str | int]) -> AsyncGenerator[list[Any], None]:
    for is_given, group in groupby(sources, lambda source: isinstance(source, str)):
        if is_given:
            yield [*group]
            continue
        for descriptor in group:
            async with aclosing(_lines(cast("int", descriptor))) as batches:
                async for lines in batches:
                    # Windows marks a text as UTF-8, and two such files may have been joined.
                    stripped = (line.removeprefix(BOM_UTF8).strip() for line in lines)
                    yield [an_id(line) for line in stripped if line]


def an_id(line: bytes) -> Any:
    """The id that a line is, or the `taskId` of a line of JSON, as this command writes them."""
    text = line.decode(errors="surrogateescape")
    if text.startswith("{"):
        with suppress(ValueError, RecursionError):
            return json.loads(text).get("taskId", text)
    return text


async def _lines(descriptor: int) -> AsyncGenerator[list[bytes], None]:
    rest = b""
    while chunk := await _chunk(descriptor):
        *lines, rest = (rest + chunk).split(b"\n")
        yield lines
    yield [rest]


async def _chunk(descriptor: int) -> bytes:
    """What there is to be read, as soon as there is something; nothing at the end."""
    try:
        return await _readable_chunk(descriptor)
    except (PermissionError, NotImplementedError):
        # A plain file, or a loop that cannot watch any.
        try:
            return await asyncio.to_thread(os.read, descriptor, _CHUNK)
        except OSError as error:
            raise Refused(f"cannot read ids: {error.strerror}") from None


async def _readable_chunk(descriptor: int) -> bytes:
    # A thread that waits in a read could not be ended by Ctrl-C.
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, _CHUNK)
