"""A file put together in memory, and written from there to the disk past the system's cache.

Nobody reads a saved image soon. In the cache it would cost the time to copy it there, and the room
of what is read. New memory costs as much again, so each thread uses its own over and over.
"""

import errno
import os
from mmap import PAGESIZE, mmap
from pathlib import Path
from threading import local

from kie_cover_async.descriptors import open_file

# Bytes, so many of which may be held for each image that is on its way.
ROOM: int = 3 << 20

_PAST_THE_CACHE = getattr(os, "O_DIRECT", 0)
# What a file system says that has no such way, or wants other pages than ours.
_NO_WAY = {errno.EINVAL, errno.ENOTSUP}


class _Memory(local):
    """Each thread's own; it begins and ends with a page, as disks want it."""

    def __init__(self) -> None:
        self.room = memoryview(mmap(-1, ROOM))


_memory = _Memory()


class Content:
    """Up to `ROOM` bytes in this thread's memory, until the next ones are; read like a file."""

    def __init__(self, pieces: list[bytes]) -> None:
        end = 0
        for piece in pieces:
            start, end = end, end + len(piece)
            _memory.room[start:end] = piece
        self.view: memoryview = _memory.room[:end]
        self._at = 0

    def read(self, size: int = ROOM, /) -> bytes:
        """The next bytes: so many, or all that there are."""
        some = self.view[self._at : self._at + size]
        self._at += len(some)
        return bytes(some)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Let reading go on elsewhere; where that is."""
        self._at = (0, self._at, len(self.view))[whence] + offset
        return self._at

    def tell(self) -> int:
        """Where reading goes on."""
        return self._at

    def write_past_cache(self, path: Path) -> bool:
        """Make a file of it that a loss of power leaves, if that can be; whether it could."""
        try:
            if _PAST_THE_CACHE:
                self._write(path)
        except OSError as error:
            if error.errno not in _NO_WAY:
                raise
            path.unlink(missing_ok=True)
            return False
        return bool(_PAST_THE_CACHE)

    def _write(self, path: Path) -> None:
        """Calls of the system and nothing between them: each may cost another thread its turn."""
        size = len(self.view)
        rest = _memory.room[: size + -size % PAGESIZE]
        file = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PAST_THE_CACHE)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
            os.truncate(file, size)
            os.fsync(file)
        finally:
            os.close(file)
