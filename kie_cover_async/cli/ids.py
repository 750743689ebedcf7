"""Ids from arguments, a file or stdin, one by one and no sooner than they are asked for."""

import asyncio
import json
import os
import stat
import sys
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from attrs import frozen

from .output import Refused, say

STDIN = "-"

_CHUNK = 1 << 16
# As much as is read of an answer of the API's.
_LONGEST_LINE = 1 << 20
# No id begins like this, and JSON does; what jq prints for a missing member is a word of it.
_BEGINS_JSON, _JSON_WORDS = ("{", "[", '"'), {"null", "true", "false"}


class NoIds(Refused):
    """There are files of ids, and none of them has an id in it."""


@frozen
class NotAnId:
    """A text that holds no id; its repr, which the error about it shows, says why."""

    text: str
    problem: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{self.problem}: {self.text}"


@frozen
class _File:
    name: str
    descriptor: int


@contextmanager
def opened(arguments: Sequence[str], file: str | None) -> Iterator[AsyncIterator[Any]]:
    """The ids that are given as arguments, `-` for stdin among them, and those of the file.

    Raises `Refused` where there are none or the file cannot be opened; a file that cannot be read
    as lines of text, or has no ids, is `Refused` by the iteration.
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
def _open(name: str) -> Iterator[_File]:
    if name == STDIN:
        if sys.stdin is None:
            raise Refused("stdin is closed")
        yield _File("stdin", sys.stdin.fileno())
        return
    try:
        # A named pipe opened like this needs no writer yet, and is waited for when it is read.
        descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise Refused(f"cannot open {name}: {error.strerror}") from None
    try:
        yield _File(name, descriptor)
    finally:
        os.close(descriptor)


async def _one_by_one(batches: AsyncGenerator[list[Any], None]) -> AsyncIterator[Any]:
    async with aclosing(batches):
        async for batch in batches:
            for task_id in batch:
                yield task_id


async def _batches(sources: Sequence[str | _File]) -> AsyncGenerator[list[Any], None]:
    empty = []
    for is_given, group in groupby(sources, lambda source: isinstance(source, str)):
        if is_given:
            yield [*group]
            continue
        for file in cast("Iterator[_File]", group):
            count = 0
            async with aclosing(_lines(file)) as batches:
                async for lines in batches:
                    found = _ids_in(lines)
                    count += len(found)
                    yield found
            if not count:
                empty.append(file.name)
    if empty:
        error = NoIds(f"no ids in {' and '.join(empty)}")
        if len(empty) == len(sources):
            raise error
        say(f"kie-cover: {error}")


def _ids_in(lines: Iterable[bytes]) -> list[Any]:
    # Windows marks a text as UTF-8, and two such files may have been joined.
    stripped = (line.removeprefix(BOM_UTF8).strip() for line in lines)
    return [an_id(line.decode(errors="surrogateescape")) for line in stripped if line]


def an_id(text: str) -> Any:
    """Return the id that is the text, or that is in it: a JSON string, a `taskId`, a `data.taskId`.

    Return a `NotAnId` for other JSON and for bytes that are not UTF-8; it is refused as any other
    value that cannot be an id.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return NotAnId(text, "text that is not UTF-8")
    if not text.startswith(_BEGINS_JSON) and text not in _JSON_WORDS:
        return text
    try:
        found = _id_in(json.loads(text))
    except (ValueError, RecursionError):
        return NotAnId(text, "unreadable JSON")
    return found if isinstance(found, str) else NotAnId(text, "JSON without a string taskId")


def _id_in(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    if "taskId" not in document and isinstance(document.get("data"), dict):
        document = document["data"]
    return document.get("taskId")


async def _lines(file: _File) -> AsyncGenerator[list[bytes], None]:
    rest, count = b"", 0
    while chunk := await _chunk(file.descriptor):
        text = rest + chunk
        if (nul := text.find(b"\0")) >= 0:
            line = count + text.count(b"\n", 0, nul) + 1
            raise Refused(f"{file.name} has a NUL in line {line}: save it as UTF-8, not as UTF-16")
        *lines, rest = text.split(b"\n")
        count += len(lines)
        if len(rest) > _LONGEST_LINE:
            raise Refused(
                f"line {count + 1} of {file.name} is longer than {_LONGEST_LINE:,} bytes: "
                "each id must be on a line of its own"
            )
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
