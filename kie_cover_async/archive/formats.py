"""What kind of image a file holds, by its bytes: whether it is complete, and its size in pixels.

Pixels are not decoded. A container states its structure, and all of that is checked: the chunks of
a PNG with their checksums, the segments of a JPEG up to its end marker, and the chunks of a WebP
with their lengths.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO
from zlib import crc32

from attrs import frozen

SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}

# 10,000 x 10,000, which takes 400 MB when decoded. Covers have about a hundredth of it.
MAX_PIXELS: int = 100_000_000
# Chunks or segments: each takes microseconds, and a file of 64 MiB could have 16 million of them.
MAX_PARTS: int = 200_000

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# The frame headers, which hold the size; the other three markers in this range are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length.
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_SCAN, _END = 0xDA, 0xD9
# Within a scan, FF is followed by a zero or a restart number.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Large blocks for a checksum, since between two blocks the thread may lose the interpreter lock;
# small ones for a scan, since a file may have many scans.
_CHECKSUM_BLOCK, _SCAN_BLOCK = 1 << 20, 1 << 16

EMPTY = "the file is empty"


@frozen(kw_only=True)
class ImageInfo:
    """The media type of an image, and its size in pixels."""

    media_type: str
    width: int
    height: int


class InvalidImageError(Exception):
    """The file holds no complete image; the message says why."""


def read_image_info(file: BinaryIO) -> ImageInfo:
    """Check the image that the file holds, and return what kind of image it is.

    Raises:
        InvalidImageError: The file holds no complete image.
    """
    file.seek(0)
    head = file.read(16)
    try:
        media_type, read_size = _identify(head)
        width, height = read_size(file)
    except struct.error:
        raise InvalidImageError("the image is cut off") from None
    if not (width and height):
        raise InvalidImageError("the image has no pixels")
    if width * height > MAX_PIXELS:
        raise InvalidImageError(f"{width} x {height} pixels are more than {MAX_PIXELS}")
    return ImageInfo(media_type=media_type, width=width, height=height)


def _identify(head: bytes) -> tuple[str, Callable[[BinaryIO], tuple[int, int]]]:
    if head.startswith(_PNG):
        return "image/png", _png
    if head.startswith(_JPEG):
        return "image/jpeg", _jpeg
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp", _webp
    raise InvalidImageError(_describe(head))


def _describe(head: bytes) -> str:
    if not head:
        return EMPTY
    if head.lstrip()[:1] == b"<":
        return "it is a page, not an image"
    return "it is not a PNG, JPEG or WebP"


def _png(file: BinaryIO) -> tuple[int, int]:
    """Return the size that the first chunk states, after checking all chunks."""
    file.seek(len(_PNG))
    length, kind, width, height = struct.unpack(">I4sII", file.read(16))
    if (length, kind) != (13, b"IHDR"):
        raise InvalidImageError("the PNG has no header")
    file.seek(len(_PNG))
    has_data = False
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack(">I4s", file.read(8))
        checksum = _checksum(file, length, crc32(kind))
        if struct.unpack(">I", file.read(4)) != (checksum,):
            raise InvalidImageError(f"the PNG is damaged: the checksum of {kind!r} is wrong")
        has_data = has_data or (kind == b"IDAT" and length > 0)
        if kind == b"IEND":
            if not has_data:
                raise InvalidImageError("the PNG has no image data")
            return width, height
    raise _too_many_parts()


def _checksum(file: BinaryIO, length: int, checksum: int) -> int:
    """Return *checksum*, continued over the next *length* bytes."""
    while length:
        block = file.read(min(length, _CHECKSUM_BLOCK))
        if not block:
            raise InvalidImageError("the image is cut off")
        checksum, length = crc32(block, checksum), length - len(block)
    return checksum


def _jpeg(file: BinaryIO) -> tuple[int, int]:
    """Return the size that the frame header states, after checking all segments."""
    width = height = 0
    has_data = False
    file.seek(2)
    for _ in range(MAX_PARTS):
        start, marker = struct.unpack("BB", file.read(2))
        if start != 0xFF:
            raise InvalidImageError("the JPEG is damaged")
        if marker == 0xFF:
            # A fill byte; any number of them may precede a marker.
            file.seek(-1, os.SEEK_CUR)
        elif marker == _END:
            if not has_data:
                raise InvalidImageError("the JPEG has no image data")
            return width, height
        elif marker not in _STANDALONE:
            content = _segment(file)
            if marker in _FRAMES:
                _, height, width = struct.unpack(">BHH", content[:5])
            if marker == _SCAN:
                has_data = True
                _skip_scan(file)
    raise _too_many_parts()


def _segment(file: BinaryIO) -> bytes:
    """Return the segment after a marker, without the length that it begins with."""
    [length] = struct.unpack(">H", file.read(2))
    content = file.read(length - 2) if length >= 2 else b""
    if len(content) != length - 2:
        raise InvalidImageError("the image is cut off" if length > 2 else "the JPEG is damaged")
    return content


def _skip_scan(file: BinaryIO) -> None:
    """Move to the marker that ends the compressed data."""
    block = b""
    while more := file.read(_SCAN_BLOCK):
        # The last byte of a block may be the first half of the marker.
        block = block[-1:] + more
        if found := _AFTER_SCAN.search(block):
            file.seek(found.start() - len(block), os.SEEK_CUR)
            return
    raise InvalidImageError("the image is cut off")


def _webp(file: BinaryIO) -> tuple[int, int]:
    """Return the size that the chunks state, after checking their lengths."""
    sizes = set()
    has_data = False
    for kind, head in _webp_chunks(file):
        if kind in _WEBP_SIZES:
            sizes.add(_WEBP_SIZES[kind](head))
        has_data = has_data or kind in _WEBP_DATA
    if not sizes:
        raise InvalidImageError("the WebP has no header")
    if not has_data:
        raise InvalidImageError("the WebP has no image data")
    if len(sizes) > 1:
        raise InvalidImageError("the WebP is damaged: it states two sizes")
    return sizes.pop()


def _webp_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the first bytes of each chunk."""
    file.seek(4)
    [length] = struct.unpack("<I", file.read(4))
    at, end = 12, 8 + length
    if file.seek(0, os.SEEK_END) < end:
        raise InvalidImageError("the image is cut off")
    for _ in range(MAX_PARTS):
        if at >= end:
            return
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        at += 8 + length
        if at > end:
            raise InvalidImageError("the WebP is damaged: its length is wrong")
        yield kind, file.read(min(length, 10))
        # Chunks begin at even offsets; some writers do not count the padding of the last one.
        at += at % 2
    raise _too_many_parts()


def _lossy_size(head: bytes) -> tuple[int, int]:
    start, wide, high = struct.unpack("<3x3sHH", head)
    if start != b"\x9d\x01\x2a":
        raise InvalidImageError("the WebP is damaged")
    return wide & 0x3FFF, high & 0x3FFF


def _lossless_size(head: bytes) -> tuple[int, int]:
    start, bits = struct.unpack("<BI", head[:5])
    if start != 0x2F:
        raise InvalidImageError("the WebP is damaged")
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)


def _canvas_size(head: bytes) -> tuple[int, int]:
    wide, high = struct.unpack("<4x3s3s", head)
    return 1 + int.from_bytes(wide, "little"), 1 + int.from_bytes(high, "little")


def _too_many_parts() -> InvalidImageError:
    return InvalidImageError(f"the image has more than {MAX_PARTS} parts")


_WEBP_SIZES = {b"VP8 ": _lossy_size, b"VP8L": _lossless_size, b"VP8X": _canvas_size}
_WEBP_DATA = {b"VP8 ", b"VP8L", b"ANMF"}
