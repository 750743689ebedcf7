"""Images that lie in the folder: what they are, and whether they are what they were."""

import os
from contextlib import suppress
from errno import EINVAL
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from attrs import frozen

from kie_cover_async.descriptors import none_is_free, open_file

from .formats import SUFFIXES, Format, NoImageError, read_format
from .values import Problem, SavedImage

# What to ask where SQLite says no more than that it is unable to open a database.
UNOPENED_HINT = "; may we write to the folder, and open more files (ulimit -n)?"

_BLOCK = 1 << 20


@frozen(kw_only=True)
class Whole:
    """What is to be known of a whole image, and where it lies."""

    path: Path
    format: Format
    sha256: str
    size: int

    def as_image(self, number: int, url: str) -> SavedImage:
        """What is recorded of it."""
        return SavedImage(
            number=number,
            url=url,
            path=self.path,
            sha256=self.sha256,
            size=self.size,
            media_type=self.format.media_type,
            width=self.format.width,
            height=self.format.height,
        )


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
    """What lies there; raises `NoImageError`, and `OSError` where no file can be read."""
    with _opened(path) as file:
        found = read_format(file)
        size = file.seek(0, os.SEEK_END)
        return Whole(path=path, format=found, sha256=_digest(file), size=size)


def as_it_lies(image: SavedImage) -> SavedImage:
    """The image; or what has been put in its place since."""
    # Whether it is there, and whole, is what `verify` is for.
    with suppress(OSError, NoImageError):
        return whole_at(image.path).as_image(image.number, image.url)
    return image


def problem_with(image: SavedImage) -> Problem | None:
    """What keeps it from being as it was saved; it is read for that."""
    try:
        with _opened(image.path) as file:
            return None if _digest(file) == image.sha256 else "altered"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        if none_is_free(error):
            raise
        return "unreadable"


def _opened(path: Path) -> BinaryIO:
    """To be read; raises `OSError` at once for a pipe or a device, which may never end."""
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - `Path.open` takes none
    if S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(EINVAL, "no regular file", str(path))


def _open_at_once(path: str, flags: int) -> int:
    # Otherwise a pipe is open only once somebody writes into it.
    return open_file(path, flags | getattr(os, "O_NONBLOCK", 0))


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    digest = sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def identity(path: Path) -> tuple[int, int] | None:
    """What tells the file from any other that gets its name, or `None` where there is none.

    Of a file that is held open, on a local disk: there no other file has its number meanwhile.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def sync_folder(folder: Path) -> None:
    """Let the names in the folder be those that a loss of power leaves."""
    # Windows opens no folder, and keeps names without being asked to.
    with suppress(PermissionError):
        descriptor = open_file(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
