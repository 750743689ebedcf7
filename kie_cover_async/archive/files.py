"""Images on disk: written aside, judged, and moved to their place whole."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import BinaryIO

from attrs import frozen

from .formats import SUFFIXES, Format, NoImageError, read_format
from .values import Problem, SavedImage

_PART = re.compile(r"\.[0-9a-f]{16}\.part")
_BLOCK = 1 << 20


@frozen(kw_only=True)
class Whole:
    """What is to be known of a whole image, wherever it lies."""

    format: Format
    sha256: str
    size: int


class PartFile:
    """A file on its way: under a name that nobody else has, until it is moved to its own.

    Its methods block and run in threads. A task that is cancelled leaves its thread running, so
    each of them waits for the one before it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f".{token_hex(8)}.part"
        self._file: BinaryIO | None = None
        self._hash = sha256()
        self._size = 0
        self._lock = Lock()
        self._is_discarded = False

    def write(self, pieces: list[bytes], *, anew: bool) -> None:
        """Add these; `anew` forgets what was written before."""
        with self._turn():
            self._write(pieces, anew=anew)

    def finish(self, pieces: list[bytes], *, anew: bool) -> Whole:
        """Add these, the last; raises `NoImageError` where they do not make a whole image."""
        with self._turn():
            file = self._write(pieces, anew=anew)
            found = read_format(file)
            os.fsync(file.fileno())
            return Whole(format=found, sha256=self._hash.hexdigest(), size=self._size)

    def move_to(self, path: Path) -> None:
        """Give it its own name."""
        with self._turn():
            self._close()
            self._path.replace(path)

    def keep_as(self, path: Path) -> None:
        """Give it its own name, once all of it is on the disk."""
        with self._turn():
            os.fsync(self._write([], anew=False).fileno())
        self.move_to(path)

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
                error.filename = error.filename or str(self._path)
                raise

    def _write(self, pieces: list[bytes], *, anew: bool) -> BinaryIO:
        if self._is_discarded:
            raise NoImageError("nobody wants it any more")
        if self._file is None:
            self._file = self._path.open("x+b", buffering=0)
        if anew:
            self._file.seek(0)
            self._file.truncate()
            self._hash, self._size = sha256(), 0
        for piece in pieces:
            _write_all(self._file, piece)
            self._hash.update(piece)
            self._size += len(piece)
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _write_all(file: BinaryIO, piece: bytes) -> None:
    """A disk that is nearly full takes a part of it, and only of the next one nothing."""
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


def lies_there(folder: Path, stem: str) -> bool:
    """Whether there is any file under this name with an ending of ours."""
    return any((folder / (stem + suffix)).exists() for suffix in SUFFIXES.values())


def find_whole(folder: Path, stem: str) -> Whole | None:
    """The whole image that lies under this name with the ending of its kind, or `None`."""
    for media_type, suffix in SUFFIXES.items():
        # What cannot be read is fetched again, like what is not there.
        with suppress(OSError, NoImageError):
            whole = whole_at(folder / (stem + suffix))
            if whole.format.media_type == media_type:
                return whole
    return None


def whole_at(path: Path) -> Whole:
    """What lies there; raises `NoImageError`, and `FileNotFoundError` where nothing does."""
    with path.open("rb") as file:
        found = read_format(file)
        size = file.seek(0, os.SEEK_END)
        return Whole(format=found, sha256=_digest(file), size=size)


def problem_with(image: SavedImage) -> Problem | None:
    """What keeps it from being as it was saved; it is read for that."""
    try:
        with image.path.open("rb") as file:
            return None if _digest(file) == image.sha256 else "altered"
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "unreadable"


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    digest = sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Let the names in the folder be those that a loss of power leaves."""
    # Windows opens no folder, and keeps names without being asked to.
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what others have left half written; for when there are no others."""
    for entry in folder.iterdir():
        if _PART.fullmatch(entry.name):
            entry.unlink(missing_ok=True)
