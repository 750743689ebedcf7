"""Files on their way: written aside, judged, and moved to their place whole."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path
from secrets import randbits
from threading import Lock
from typing import BinaryIO

from kie_cover_async.descriptors import open_file

from .direct import Content
from .files import Whole
from .formats import SUFFIXES, Format, NoImageError, read_format

_PART = re.compile(r"\.[0-9a-f]{16}\.part")


def part_files(folder: Path) -> Iterator["PartFile"]:
    """Any number of them, under names that nobody else has.

    Chance is asked once, since to ask the system gives the event loop's turn to other threads.
    """
    return (PartFile(folder, f".{n % (1 << 64):016x}.part") for n in count(randbits(64)))


class PartFile:
    """A file under a name that nobody else has, until it is moved to its own.

    Its methods block and run in threads. A task that is cancelled leaves its thread running, so
    each of them waits for the one before it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._path = folder, folder / name
        self._file: BinaryIO | None = None
        self._hash, self._size = sha256(), 0
        self._lock = Lock()
        self._is_discarded = False

    def write(self, pieces: list[bytes], *, anew: bool) -> None:
        """Add these, and take them out of memory; `anew` forgets what was written before."""
        with self._turn():
            self._write(pieces, anew=anew)
            pieces.clear()

    def keep_image(self, pieces: list[bytes], *, anew: bool, stem: str) -> Whole:
        """Add these, as `write` does, and give it this name, with the ending of its kind.

        Raises `NoImageError` where they do not make a whole image.
        """
        with self._turn():
            found = self._write_at_once(pieces) if anew else read_format(self._write(pieces))
            path = self._folder / (stem + SUFFIXES[found.media_type])
            self._move_to(path)
            return Whole(path=path, format=found, sha256=self._hash.hexdigest(), size=self._size)

    def keep_as(self, path: Path) -> None:
        """Give it its own name, once all of it is on the disk."""
        with self._turn():
            self._move_to(path)

    def keep_made(self, make: Callable[[Path], object], path: Path) -> None:
        """Let `make` write the file that it is given, and move that to `path`."""
        with self._turn():
            self._check_wanted()
            make(self._path)
            self._move_to(path)

    def discard(self) -> None:
        """Remove it, if it is there, and let nothing make it again."""
        with self._turn():
            self._is_discarded = True
            self._close()
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread's, after the one before it; what the system refuses names the file."""
        with self._lock:
            try:
                yield
            except OSError as error:
                # Writing to an open file says no more than that the disk is full.
                if error.errno is not None and error.filename is None:
                    error.filename = str(self._path)
                raise

    def _write_at_once(self, pieces: list[bytes]) -> Format:
        """The disk sees nothing of what is no image."""
        content = Content(pieces)
        pieces.clear()
        found = read_format(content)
        self._check_wanted()
        if self._file is None and content.write_past_cache(self._path):
            self._hash, self._size = sha256(content.view), len(content.view)
        else:
            self._write([content.view], anew=True)
        return found

    def _write(self, pieces: Iterable[bytes | memoryview] = (), *, anew: bool = False) -> BinaryIO:
        self._check_wanted()
        if self._file is None:
            self._file = open(self._path, "x+b", buffering=0, opener=open_file)  # noqa: SIM115
        if anew:
            self._file.seek(0)
            self._file.truncate()
            self._hash, self._size = sha256(), 0
        for piece in pieces:
            _write_all(self._file, piece)
            self._hash.update(piece)
            self._size += len(piece)
        return self._file

    def _check_wanted(self) -> None:
        if self._is_discarded:
            raise NoImageError("nobody wants it any more")

    def _move_to(self, path: Path) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._close()
        self._path.replace(path)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _write_all(file: BinaryIO, piece: bytes | memoryview) -> None:
    """A disk that is nearly full takes a part of it, and only of the next one nothing."""
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


def sweep(folder: Path) -> None:
    """Remove what others have left half written; for when there are no others."""
    for entry in folder.iterdir():
        # A folder of such a name is none of ours.
        if _PART.fullmatch(entry.name) and not entry.is_dir():
            entry.unlink(missing_ok=True)
