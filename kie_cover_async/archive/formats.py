"""What kind of image a file holds, by its bytes: whether it is whole, and its size in pixels.

No pixel is decoded. A container states how it is divided, and all of that is checked: the chunks of
a PNG with their checksums, the segments of a JPEG up to its end marker, the chunks of a WebP and
the length of all of them.
"""

import os
import re
from collections.abc import Callable, Iterator
from struct import error as struct_error
from struct import unpack
from typing import Protocol
from zlib import crc32

from attrs import frozen

SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}

# A square of 10,000; covers have about a hundredth of it. Decoded, these are 400 MB.
MAX_PIXELS: int = 100_000_000
# Chunks or segments: each takes microseconds, and a file of 64 MiB could have 16 million of them.
MAX_PARTS: int = 200_000

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# The frame headers, which have the size; not the tables that stand between them.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# These have no length after them.
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_SCAN, _END = 0xDA, 0xD9
# Within a scan FF is followed by a zero or by the number of a restart.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Few large blocks for a checksum, since other threads may run between two of them; small ones for a
# scan, since a file may have many scans.
_CHECKSUM_BLOCK, _SCAN_BLOCK = 1 << 20, 1 << 16


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
    except struct_error:
        raise NoImageError("the image is cut off") from None
    if not (width and height):
        raise NoImageError("the image has no pixels")
    if width * height > MAX_PIXELS:
        raise NoImageError(f"{width} x {height} pixels are more than {MAX_PIXELS}")
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
    """Return the size that the first chunk states, if all up to the end are as they state."""
    file.seek(len(_PNG))
    length, kind, width, height = unpack(">I4sII", file.read(16))
    if (length, kind) != (13, b"IHDR"):
        raise NoImageError("the PNG has no header")
    file.seek(len(_PNG))
    has_data = False
    for _ in range(MAX_PARTS):
        length, kind = unpack(">I4s", file.read(8))
        checksum = _checksum(file, length, crc32(kind))
        if unpack(">I", file.read(4)) != (checksum,):
            raise NoImageError(f"the PNG is damaged: the checksum of {kind!r} is wrong")
        has_data = has_data or (kind == b"IDAT" and length > 0)
        if kind == b"IEND":
            if not has_data:
                raise NoImageError("the PNG has no image data")
            return width, height
    raise _too_many_parts()


def _checksum(file: ReadableFile, length: int, checksum: int) -> int:
    """Return the checksum of this many more bytes after those that it is of already."""
    while length:
        block = file.read(min(length, _CHECKSUM_BLOCK))
        if not block:
            raise NoImageError("the image is cut off")
        checksum, length = crc32(block, checksum), length - len(block)
    return checksum


def _jpeg(file: ReadableFile) -> tuple[int, int]:
    """Return the size that the frame header states, if there are segments up to the end marker."""
    width = height = 0
    has_data = False
    file.seek(2)
    for _ in range(MAX_PARTS):
        start, marker = unpack("BB", file.read(2))
        if start != 0xFF:
            raise NoImageError("the JPEG is damaged")
        if marker == 0xFF:
            # A fill byte, of which any number may stand before a marker.
            file.seek(-1, os.SEEK_CUR)
        elif marker == _END:
            if not has_data:
                raise NoImageError("the JPEG has no image data")
            return width, height
        elif marker not in _STANDALONE:
            content = _segment(file)
            if marker in _FRAMES:
                _, height, width = unpack(">BHH", content[:5])
            if marker == _SCAN:
                has_data = True
                _skip_scan(file)
    raise _too_many_parts()


def _segment(file: ReadableFile) -> bytes:
    """Return the segment after the marker, without the length that it begins with."""
    [length] = unpack(">H", file.read(2))
    content = file.read(length - 2) if length >= 2 else b""
    if len(content) != length - 2:
        raise NoImageError("the image is cut off" if length > 2 else "the JPEG is damaged")
    return content


def _skip_scan(file: ReadableFile) -> None:
    """Go on to the marker that ends the compressed data."""
    block = b""
    while more := file.read(_SCAN_BLOCK):
        # The last byte may be the first half of the marker.
        block = block[-1:] + more
        if found := _AFTER_SCAN.search(block):
            file.seek(found.start() - len(block), os.SEEK_CUR)
            return
    raise NoImageError("the image is cut off")


def _webp(file: ReadableFile) -> tuple[int, int]:
    """Return the size that its chunks state, if they are as long as all together."""
    sizes = set()
    has_data = False
    for kind, head in _webp_chunks(file):
        if kind in _WEBP_SIZES:
            sizes.add(_WEBP_SIZES[kind](head))
        has_data = has_data or kind in _WEBP_DATA
    if not sizes:
        raise NoImageError("the WebP has no header")
    if not has_data:
        raise NoImageError("the WebP has no image data")
    if len(sizes) > 1:
        raise NoImageError("the WebP is damaged: it states two sizes")
    return sizes.pop()


def _webp_chunks(file: ReadableFile) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the first bytes of each chunk."""
    file.seek(4)
    [length] = unpack("<I", file.read(4))
    at, end = 12, 8 + length
    if file.seek(0, os.SEEK_END) < end:
        raise NoImageError("the image is cut off")
    for _ in range(MAX_PARTS):
        if at >= end:
            return
        file.seek(at)
        kind, length = unpack("<4sI", file.read(8))
        at += 8 + length
        if at > end:
            raise NoImageError("the WebP is damaged: its length is wrong")
        yield kind, file.read(min(length, 10))
        # A chunk begins at an even place; some writers do not count what is filled in at the end.
        at += at % 2
    raise _too_many_parts()


def _lossy_size(head: bytes) -> tuple[int, int]:
    start, wide, high = unpack("<3x3sHH", head)
    if start != b"\x9d\x01\x2a":
        raise NoImageError("the WebP is damaged")
    return wide & 0x3FFF, high & 0x3FFF


def _lossless_size(head: bytes) -> tuple[int, int]:
    start, bits = unpack("<BI", head[:5])
    if start != 0x2F:
        raise NoImageError("the WebP is damaged")
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)


def _canvas_size(head: bytes) -> tuple[int, int]:
    wide, high = unpack("<4x3s3s", head)
    return 1 + int.from_bytes(wide, "little"), 1 + int.from_bytes(high, "little")


def _too_many_parts() -> NoImageError:
    return NoImageError(f"the image has more than {MAX_PARTS} parts")


_WEBP_SIZES = {b"VP8 ": _lossy_size, b"VP8L": _lossless_size, b"VP8X": _canvas_size}
_WEBP_DATA = {b"VP8 ", b"VP8L", b"ANMF"}
