"""What kind of image some bytes are: whether it is complete, and its size in pixels.

Pixels are not decoded. A container states its structure, and all of that is checked: the chunks of
a PNG with their checksums, the segments of a JPEG up to its end marker, and the chunks of a WebP
with their lengths.
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
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
_SCAN, _END, _FILL = 0xDA, 0xD9, 0xFF
# Within a scan, FF is followed by a zero or a restart number.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Bytes: up to the size that a PNG states.
_HEAD_SIZE = 24

EMPTY = "the file is empty"


@frozen(kw_only=True)
class ImageInfo:
    """The media type of an image, and its size in pixels."""

    media_type: str
    width: int
    height: int


class InvalidImageError(Exception):
    """The bytes are not a complete image; the message says why."""


class Reader:
    """Reads blocks, which may end anywhere, as one stream, and copies no large part of them."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        rest = filter(None, blocks)
        self.head: bytes = b""
        while len(self.head) < _HEAD_SIZE and (block := next(rest, None)):
            self.head += block
        self._blocks = chain([self.head], rest)
        self._rest = memoryview(b"")

    def parts(self, size: int) -> Iterator[memoryview]:
        """Yield the next bytes as they are in the blocks.

        Raises:
            InvalidImageError: The stream ends before.
        """
        while size:
            part = self._current_block()[:size]
            if not part:
                raise InvalidImageError("the image is cut off")
            self._rest = self._rest[len(part) :]
            size -= len(part)
            yield part

    def read(self, size: int) -> bytes:
        """Return the next bytes; raise `InvalidImageError` if the stream ends before."""
        return b"".join(self.parts(size))

    def skip(self, size: int) -> None:
        """Move behind the next bytes; raise `InvalidImageError` if the stream ends before."""
        for _ in self.parts(size):
            pass

    def find(self, pair: re.Pattern[bytes]) -> bool:
        """Move to the second of the next two bytes that match, and return whether there are any."""
        last = b""
        while block := self._current_block():
            # The two may be in two blocks.
            if pair.match(last + block[:1]):
                return True
            if found := pair.search(block):
                self._rest = block[found.start() + 1 :]
                return True
            last, self._rest = bytes(block[-1:]), memoryview(b"")
        return False

    def _current_block(self) -> memoryview:
        """Return what is left of the block, or else the next one."""
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        return self._rest


def read_image_info(blocks: Iterable[bytes]) -> ImageInfo:
    """Check an image, whose bytes come in blocks of any size, and return what kind of image it is.

    Raises:
        InvalidImageError: The bytes are not a complete image.
    """
    reader = Reader(blocks)
    try:
        media_type, read_size = _identify(reader.head)
        width, height = read_size(reader)
    except struct.error:
        raise InvalidImageError("the image is cut off") from None
    if not (width and height):
        raise InvalidImageError("the image has no pixels")
    if width * height > MAX_PIXELS:
        raise InvalidImageError(f"{width} x {height} pixels are more than {MAX_PIXELS}")
    return ImageInfo(media_type=media_type, width=width, height=height)


def _identify(head: bytes) -> tuple[str, Callable[[Reader], tuple[int, int]]]:
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


def _png(reader: Reader) -> tuple[int, int]:
    """Return the size that the first chunk states, after checking all chunks."""
    length, kind, width, height = struct.unpack(">8xI4sII", reader.head[:_HEAD_SIZE])
    if (length, kind) != (13, b"IHDR"):
        raise InvalidImageError("the PNG has no header")
    reader.read(len(_PNG))
    has_data = False
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack(">I4s", reader.read(8))
        checksum = crc32(kind)
        for part in reader.parts(length):
            checksum = crc32(part, checksum)
        if struct.unpack(">I", reader.read(4)) != (checksum,):
            raise InvalidImageError(f"the PNG is damaged: the checksum of {kind!r} is wrong")
        has_data = has_data or (kind == b"IDAT" and length > 0)
        if kind == b"IEND":
            if not has_data:
                raise InvalidImageError("the PNG has no image data")
            return width, height
    raise _too_many_parts()


def _jpeg(reader: Reader) -> tuple[int, int]:
    """Return the size that the frame header states, after checking all segments."""
    width = height = 0
    has_data = has_start = False
    reader.read(2)
    for _ in range(MAX_PARTS):
        if not has_start and reader.read(1) != b"\xff":
            raise InvalidImageError("the JPEG is damaged")
        [marker] = reader.read(1)
        # Any number of fill bytes may precede a marker.
        has_start = marker == _FILL
        if marker == _END:
            if not has_data:
                raise InvalidImageError("the JPEG has no image data")
            return width, height
        if has_start or marker in _STANDALONE:
            continue
        content = _segment(reader)
        if marker in _FRAMES:
            _, height, width = struct.unpack(">BHH", content[:5])
        if marker == _SCAN:
            has_data = has_start = reader.find(_AFTER_SCAN)
            if not has_start:
                raise InvalidImageError("the image is cut off")
    raise _too_many_parts()


def _segment(reader: Reader) -> bytes:
    """Return the segment after a marker, without the length that it begins with."""
    [length] = struct.unpack(">H", reader.read(2))
    if length < 2:
        raise InvalidImageError("the JPEG is damaged")
    return reader.read(length - 2)


def _webp(reader: Reader) -> tuple[int, int]:
    """Return the size that the chunks state, after checking their lengths."""
    sizes = set()
    has_data = False
    for kind, head in _webp_chunks(reader):
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


def _webp_chunks(reader: Reader) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the first bytes of each chunk."""
    [length] = struct.unpack("<4xI4x", reader.read(12))
    at, end = 12, 8 + length
    for _ in range(MAX_PARTS):
        if at >= end:
            return
        kind, length = struct.unpack("<4sI", reader.read(8))
        at += 8 + length
        if at > end:
            raise InvalidImageError("the WebP is damaged: its length is wrong")
        head = reader.read(min(length, 10))
        yield kind, head
        # Chunks begin at even offsets; some writers do not count the padding of the last one.
        padding = at % 2 if at < end else 0
        reader.skip(length - len(head) + padding)
        at += padding
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
