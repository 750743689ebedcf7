"""Image files in the folder: their names, temporary files, and checks of what is there."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EINVAL
from hashlib import file_digest, sha256
from io import FileIO
from pathlib import Path
from secrets import randbits
from stat import S_ISREG
from threading import Lock

from attrs import asdict, frozen

from kie_cover_async.descriptors import none_is_free, open_file

from .formats import SUFFIXES, ImageInfo, InvalidImageError, read_image_info
from .models import Problem, SavedImage

# Lower case only: some file systems treat A and a as the same.
_SAFE_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
# Bytes that are read in one call.
_BLOCK_SIZE = 1 << 18
_LEFTOVER = re.compile(r"\.(?:[0-9a-f]{16}\.part|claimant-[0-9a-f]{16})")


def file_stem(task_id: str, number: int) -> str:
    """Return the file name of an image without its suffix; no two images share one.

    An id that is safe as a file name is used as it is. Any other is replaced by a plus, which no
    safe id has, and its SHA-256. The number follows the last hyphen.
    """
    if _SAFE_ID.fullmatch(task_id):
        return f"{task_id}-{number}"
    return f"+{sha256(task_id.encode('utf-8', 'surrogatepass')).hexdigest()}-{number}"


@frozen(kw_only=True)
class VerifiedFile(ImageInfo):
    """A file that holds a complete image, and the facts read from it."""

    path: Path
    sha256: str
    size: int

    def as_image(self, number: int, url: str) -> SavedImage:
        """Return it as image *number* of its cover."""
        return SavedImage(number=number, url=url, **asdict(self))


def file_exists(folder: Path, task_id: str, number: int) -> bool:
    """Return whether there is a file for this image, with any suffix."""
    stem = file_stem(task_id, number)
    return any((folder / (stem + suffix)).exists() for suffix in SUFFIXES.values())


def find_verified(folder: Path, task_id: str, number: int) -> VerifiedFile | None:
    """Return the complete file for this image whose suffix matches its format, if there is one."""
    stem = file_stem(task_id, number)
    for media_type, suffix in SUFFIXES.items():
        # An unreadable file is fetched again, like a missing one.
        with suppress(OSError, InvalidImageError):
            file = verify_file(folder / (stem + suffix))
            if file.media_type == media_type:
                return file
    return None


def verify_file(path: Path) -> VerifiedFile:
    """Read the whole file.

    Raises:
        InvalidImageError: It holds no complete image.
        OSError: It is not a regular file, or cannot be read.
    """
    with _open_regular(path) as file:
        digest = sha256()
        blocks = _blocks(file, digest.update)
        info = read_image_info(blocks)
        # Bytes after the image are part of the file.
        for _ in blocks:
            pass
        return VerifiedFile(path=path, sha256=digest.hexdigest(), size=file.tell(), **asdict(info))


def reread(image: SavedImage) -> SavedImage:
    """Return the image with the facts of the file that has its name now, if that is complete."""
    with suppress(OSError, InvalidImageError):
        return verify_file(image.path).as_image(image.number, image.url)
    return image


def find_problem(image: SavedImage) -> Problem | None:
    """Read the file, and return how it differs from what was saved."""
    try:
        with _open_regular(image.path) as file:
            digest = file_digest(file, "sha256").hexdigest()
            return None if digest == image.sha256 else "altered"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        if none_is_free(error):
            raise
        return "unreadable"


def _open_regular(path: Path) -> FileIO:
    """Open a file to read it; a pipe or a device, which may never end, raises `OSError`."""
    file = FileIO(path, "rb", opener=_open_without_blocking)
    if S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(EINVAL, "not a regular file", str(path))


def _open_without_blocking(path: str, flags: int) -> int:
    # Without this flag, opening a pipe blocks until another process writes to it.
    return open_file(path, flags | getattr(os, "O_NONBLOCK", 0))


def _blocks(file: FileIO, update: Callable[[bytes], object] = len) -> Iterator[bytes]:
    """Yield the content of a file, and call *update* with it."""
    file.seek(0)
    while block := file.read(_BLOCK_SIZE):
        update(block)
        yield block


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode numbers of a file, or `None` if it is missing.

    No other file on a local disk has the same numbers while the file is held open.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def sync_folder(folder: Path) -> None:
    """Flush the names in the folder to the disk, so that they survive a power failure."""
    # Windows cannot open a folder, and keeps names without this.
    with suppress(PermissionError):
        descriptor = open_file(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class PartFile:
    """A file with a unique temporary name, until it is moved to its final name.

    The methods block and run in threads. A cancelled task leaves its thread running, so each
    method waits until the one before it has returned.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f".{randbits(64):016x}.part"
        self._file: FileIO | None = None
        # Updated with every write, since reading the file again takes longer.
        self._hash = sha256()
        self._lock = Lock()
        self._is_discarded = False

    def write(self, pieces: list[bytes], *, restart: bool = False) -> None:
        """Append *pieces*, and empty the list to free their memory.

        Args:
            pieces: What to write.
            restart: Whether to drop what was written before.
        """
        with self._exclusive():
            self._write(pieces, restart)

    def keep_image(self, pieces: list[bytes], *, restart: bool, stem: str) -> VerifiedFile:
        """Write like `write`, then move the file to *stem* and the suffix of its format.

        Raises:
            InvalidImageError: The file holds no complete image.
        """
        with self._exclusive():
            # Only a large image, of which the beginning is not in memory any more, is read again.
            info = read_image_info(pieces) if restart else None
            file = self._write(pieces, restart)
            info, size = info or read_image_info(_blocks(file)), file.seek(0, os.SEEK_END)
            path = self._path.with_name(stem + SUFFIXES[info.media_type])
            self._move_to(path)
            digest = self._hash.hexdigest()
            return VerifiedFile(path=path, sha256=digest, size=size, **asdict(info))

    def keep(self, path: Path, create: Callable[[Path], object] = lambda _: None) -> None:
        """Move the file, which *create* may write under its temporary name, to *path*."""
        with self._exclusive():
            create(self._path)
            self._move_to(path)

    def discard(self) -> None:
        """Remove the file if there is one, and let no later call create it."""
        with self._lock:
            self._is_discarded = True
            self._close()
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock; name the file in an `OSError`."""
        with self._lock:
            if self._is_discarded:
                raise RuntimeError("this part file was discarded")
            try:
                yield
            except OSError as error:
                # An error in writing to an open file lacks its name.
                if error.errno is not None and error.filename is None:
                    error.filename = str(self._path)
                raise

    def _write(self, pieces: list[bytes], restart: bool) -> FileIO:
        if self._file is None:
            self._file = FileIO(self._path, "x+", opener=open_file)
        if restart:
            self._file.seek(0)
            self._file.truncate()
            self._hash = sha256()
        for piece in pieces:
            self._hash.update(piece)
            rest = memoryview(piece)
            # A disk that is nearly full takes a part of it; only the next write raises.
            while rest:
                rest = rest[self._file.write(rest) :]
        pieces.clear()
        return self._file

    def _move_to(self, path: Path) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._close()
        self._path.replace(path)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def remove_leftovers(folder: Path) -> None:
    """Remove part files and lock files of ended processes; call it only when no others run."""
    for entry in folder.iterdir():
        # Only files are this package's own.
        if _LEFTOVER.fullmatch(entry.name) and not entry.is_dir():
            entry.unlink(missing_ok=True)
