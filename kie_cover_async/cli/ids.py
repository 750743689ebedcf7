"""Ids of covers or songs from arguments, a file or stdin, read no sooner than they are used."""

import asyncio
import json
import os
import select
import stat
import sys
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from attrs import frozen

from .output import UsageError, say

STDIN = "-"

Batches = AsyncGenerator[list[Any], None]

_CHUNK_BYTES = 1 << 16
# As much as is read of an API answer.
_MAX_LINE_BYTES = 1 << 20
# No id begins like this, and JSON does; jq prints a keyword for a missing member.
_JSON_STARTS, _JSON_KEYWORDS = ("{", "[", '"'), {"null", "true", "false"}


@frozen
class IdKind:
    """What ids are of: the plural for messages, and the members of a JSON object that have one."""

    plural: str
    members: tuple[str, ...]


# As records of covers have it, then as `make` and `songs` write it.
COVERS = IdKind("ids", ("taskId", "task_id"))
# As this command writes it, then as records of covers have it.
SONGS = IdKind("songs", ("song", "parentTaskId", "music_task_id"))


class NoIdsError(UsageError):
    """There are files of ids, and none of them contains an id."""


@frozen
class NotAnId:
    """A text that contains no id; its repr, which the error about it shows, says why."""

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
def open_ids(
    arguments: Sequence[str], file: str | None, kind: IdKind = COVERS
) -> Iterator[Batches]:
    """Open the ids of the arguments, in which `-` stands for stdin, and then of the file.

    They come in batches, each as soon as it can be read; without any source there are none.
    Raises `UsageError` if a file cannot be opened. The iteration raises it if a file cannot be
    read as lines of text, and `NoIdsError` if no file contains an id.
    """
    if file == "":  # an unset shell variable, for example
        raise UsageError("--file must name a file, not ''")
    sources = [*((name, name == STDIN) for name in arguments), *([(file, True)] if file else [])]
    with ExitStack() as stack:
        opened = [
            stack.enter_context(_open(name)) if is_file else name for name, is_file in sources
        ]
        yield _batches(opened, kind)


def are_available(arguments: Sequence[str], file: str | None) -> bool:
    """Return whether all ids can be read now: none come from a pipe or from a terminal."""
    modes = [os.fstat(sys.stdin.fileno()).st_mode for each in (*arguments, file) if each == STDIN]
    if file and file != STDIN:
        modes.append(Path(file).stat().st_mode)
    return all(map(stat.S_ISREG, modes))


@contextmanager
def _open(name: str) -> Iterator[_File]:
    if name == STDIN:
        if sys.stdin is None:
            raise UsageError("stdin is closed")
        yield _File("stdin", sys.stdin.fileno())
        return
    try:
        # Opening a named pipe like this does not wait for its writer; reading it does.
        descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise UsageError(f"cannot open {name}: {error.strerror}") from None
    try:
        yield _File(name, descriptor)
    finally:
        os.close(descriptor)


async def _batches(sources: Sequence[str | _File], kind: IdKind) -> AsyncGenerator[list[Any], None]:
    empty = []
    for is_argument, group in groupby(sources, lambda source: isinstance(source, str)):
        if is_argument:
            yield [*group]
            continue
        for file in cast("Iterator[_File]", group):
            count = 0
            async with aclosing(_lines(file)) as batches:
                async for lines in batches:
                    found = _ids_in(lines, kind)
                    count += len(found)
                    yield found
            if not count:
                empty.append(file.name)
    if empty:
        error = NoIdsError(f"no {kind.plural} found in {' and '.join(empty)}")
        if len(empty) == len(sources):
            raise error
        say(f"kie-cover: {error}")


def _ids_in(lines: Iterable[bytes], kind: IdKind) -> list[Any]:
    # Windows marks a text as UTF-8, and two such files may have been concatenated.
    stripped = (line.removeprefix(BOM_UTF8).strip() for line in lines)
    return [parse_id(line.decode(errors="surrogateescape"), kind) for line in stripped if line]


def parse_id(text: str, kind: IdKind = COVERS) -> Any:
    """Return the text, or the id in its JSON: a string, or the first of the kind's members.

    Return a `NotAnId` for other JSON and for bytes that are not UTF-8; the client rejects it like
    any other invalid id.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return NotAnId(text, "text that is not UTF-8")
    if not text.startswith(_JSON_STARTS) and text not in _JSON_KEYWORDS:
        return text
    try:
        found = _id_in(json.loads(text), kind.members)
    except (ValueError, RecursionError):
        return NotAnId(text, "unreadable JSON")
    missing = f"JSON without a string {kind.members[0]}"
    return found if isinstance(found, str) else NotAnId(text, missing)


def _id_in(document: Any, members: Sequence[str]) -> Any:
    if not isinstance(document, dict):
        return document
    if not document.keys() & {*members} and isinstance(document.get("data"), dict):
        document = document["data"]
    return next((document[member] for member in members if member in document), None)


async def _lines(file: _File) -> AsyncGenerator[list[bytes], None]:
    rest, count = b"", 0
    while chunk := await asyncio.to_thread(_read_chunk, file):
        text = rest + chunk
        if (nul := text.find(b"\0")) >= 0:
            line = count + text.count(b"\n", 0, nul) + 1
            raise UsageError(
                f"{file.name} has a NUL in line {line}: save it as UTF-8, not as UTF-16"
            )
        *lines, rest = text.split(b"\n")
        count += len(lines)
        if len(rest) > _MAX_LINE_BYTES:
            raise UsageError(
                f"line {count + 1} of {file.name} is longer than {_MAX_LINE_BYTES:,} bytes: "
                "each id must be on a line of its own"
            )
        yield lines
    yield [rest]


def _read_chunk(file: _File) -> bytes:
    """Return what can be read, as soon as there is something, or nothing at the end."""
    with suppress(OSError):  # Windows can select sockets only
        # A named pipe without a writer yet would otherwise read as if it had ended.
        select.select([file.descriptor], [], [])
    try:
        return os.read(file.descriptor, _CHUNK_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {file.name}: {error.strerror}") from None
