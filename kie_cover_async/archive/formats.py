"""What kind of image a file holds, by its bytes: whether it is whole, and its size in pixels."""

import os
from collections.abc import Callable
from struct import error as struct_error
from struct import unpack
from typing import Protocol

from attrs import frozen

SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# The frame headers, which have the size; not the tables that stand between them.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA
# After the end some encoders pad, or append what only their own cameras read.
_JPEG_TAIL = 1 << 16


class ReadableFile(Protocol):
    """What is used of a file."""

    def read(self, size: int = ..., /) -> bytes:
        """The next bytes."""

    def seek(self, offset: int, whence: int = ..., /) -> int:
        """Go elsewhere."""

    def tell(self) -> int:
        """Where that is."""


@frozen(kw_only=True)
class Format:
    """The kind of an image, by its media type, and its size in pixels."""

    media_type: str
    width: int
    height: int


class NoImageError(Exception):
    """The file holds no whole image; the text says why."""


def read_format(file: ReadableFile) -> Format:
    """What the file holds; raises `NoImageError`."""
    file.seek(0)
    head = file.read(16)
    try:
        media_type, size_of = _kind(head)
        width, height = size_of(file)
    except (struct_error, IndexError):
        raise NoImageError("the image is cut off") from None
    if not (width and height):
        raise NoImageError("the image has no pixels")
    return Format(media_type=media_type, width=width, height=height)


def _kind(head: bytes) -> tuple[str, Callable[[ReadableFile], tuple[int, int]]]:
    if head.startswith(_PNG):
        return "image/png", _png
    if head.startswith(_JPEG):
        return "image/jpeg", _jpeg
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp", _webp
    raise NoImageError(_what_else(head))


def _what_else(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head.lstrip()[:1] == b"<":
        return "it is a page, not an image"
    return "it is no PNG, JPEG or WebP"


def _png(file: ReadableFile) -> tuple[int, int]:
    """By its chunks, from the header to the end; each has its length before it."""
    file.seek(len(_PNG))
    _, kind, width, height = unpack(">I4sII", file.read(16))
    if kind != b"IHDR":
        raise NoImageError("the PNG has no header")
    file.seek(len(_PNG))
    while kind != b"IEND":
        length, kind = unpack(">I4s", file.read(8))
        file.seek(length, os.SEEK_CUR)
        _ = file.read(4)[3]  # the last byte of the checksum
    return width, height


def _jpeg(file: ReadableFile) -> tuple[int, int]:
    """By its segments up to the first scan; the rest is compressed, and ends in FF D9."""
    width = height = 0
    file.seek(2)
    marker = 0
    while marker != _SCAN:
        marker = _next_marker(file)
        [length] = unpack(">H", file.read(2))
        start = file.tell()
        if marker in _FRAMES:
            _, height, width = unpack(">BHH", file.read(5))
        file.seek(start + max(length, 2) - 2)
    scan = file.tell()
    file.seek(max(scan, file.seek(0, os.SEEK_END) - _JPEG_TAIL))
    # Within a scan FF is followed by a zero or by a restart, so this can be nothing else.
    if b"\xff\xd9" not in file.read():
        raise NoImageError("the image is cut off")
    return width, height


def _next_marker(file: ReadableFile) -> int:
    if file.read(1)[0] != 0xFF:
        raise NoImageError("the JPEG is damaged")
    # Any number of FF may stand before a marker.
    while (marker := file.read(1)[0]) == 0xFF:
        pass
    return marker


def _webp(file: ReadableFile) -> tuple[int, int]:
    """By its first chunk, which is one of three; the length of all stands at the beginning."""
    file.seek(4)
    length, _, kind = unpack("<I4s4s", file.read(12))
    if file.seek(0, os.SEEK_END) < 8 + length:
        raise NoImageError("the image is cut off")
    file.seek(20)
    if kind == b"VP8X":
        _, *sizes = unpack("<4s3s3s", file.read(10))
        wide, high = (int.from_bytes(size, "little") for size in sizes)
        return 1 + wide, 1 + high
    if kind == b"VP8L":
        _, bits = unpack("<BI", file.read(5))
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        _, wide, high = unpack("<6sHH", file.read(10))
        return wide & 0x3FFF, high & 0x3FFF
    raise NoImageError("the WebP has no header")
