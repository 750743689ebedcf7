"""Small images that any decoder reads, made without an imaging library."""

import struct
import zlib
from functools import lru_cache
from random import Random

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = b"\x08\x02\x00\x00\x00"


@lru_cache(maxsize=256)
def png(name: str, size: int) -> bytes:
    """Return a square PNG, `size` pixels wide: a gradient between two colours drawn from `name`."""
    header = struct.pack(">II", size, size) + _EIGHT_BIT_RGB
    pixels = zlib.compress(_gradient(name, size), level=1)
    chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", pixels), _chunk(b"IEND", b"")
    return _SIGNATURE + b"".join(chunks)


def _gradient(name: str, size: int) -> bytes:
    rng = Random(name)
    first, last = rng.randbytes(3), rng.randbytes(3)
    steps = 2 * size
    strip = bytes(
        (a * (steps - step) + b * step) // steps
        for step in range(steps)
        for a, b in zip(first, last, strict=True)
    )
    # Every row is the same strip, shifted by one more pixel, after a zero for "no filter".
    return b"".join(b"\0" + strip[3 * row : 3 * (row + size)] for row in range(size))


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
