import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kie_cover_async.archive.formats import (
    MAX_PARTS,
    MAX_PIXELS,
    ImageInfo,
    InvalidImageError,
    read_image_info,
)
from kie_cover_async.emulator.images import png


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def jpeg(width=30, height=20, *, frame=0xC0, before=b"", after=b""):
    size = segment(frame, struct.pack(">BHHB", 8, height, width, 0))
    scan = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"pixels \xff\x00 and \xff\xd0 more"
    return b"\xff\xd8" + segment(0xE0, b"JFIF\0") + before + size + scan + b"\xff\xd9" + after


def chunk(kind, content, *, length=None):
    size = len(content) if length is None else length
    return struct.pack(">I", size) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width, height):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def png_of(*chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + PNG_END


PNG_HEADER, PNG_DATA, PNG_END = header(30, 20), chunk(b"IDAT", b"pixels"), chunk(b"IEND", b"")


def webp_chunk(kind, content):
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def webp(*chunks, length=None):
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content) if length is None else length) + content


def lossy(width=30, height=20, *, pixels=b"pixels", start=b"\x9d\x01\x2a"):
    size = struct.pack("<HH", width, height)
    return webp_chunk(b"VP8 ", b"\x30\x01\x00" + start + size + pixels)


def lossless(width=30, height=20, *, start=b"\x2f"):
    size = struct.pack("<I", width - 1 | height - 1 << 14)
    return webp_chunk(b"VP8L", start + size + b"pixels")


def canvas(width=30, height=20):
    sizes = [(side - 1).to_bytes(3, "little") for side in (width, height)]
    return webp_chunk(b"VP8X", b"\0\0\0\0" + b"".join(sizes))


WEBP = {
    "lossy": webp(lossy()),
    "lossless": webp(lossless()),
    "extended": webp(canvas(), webp_chunk(b"ALPH", b"odd"), lossy()),
    "animated": webp(canvas(), webp_chunk(b"ANIM", b"a loop"), webp_chunk(b"ANMF", b"a frame")),
    "odd": webp(lossy(pixels=b"odd")),
}
COMPLETE = {
    "PNG": ("image/png", png("a", 20)),
    "JPEG": ("image/jpeg", jpeg()),
    "progressive JPEG": ("image/jpeg", jpeg(frame=0xC2)),
    "JPEG with tables first": ("image/jpeg", jpeg(before=segment(0xC4, b"\xff\xd9 table"))),
    "JPEG with a thumbnail": ("image/jpeg", jpeg(before=segment(0xE1, jpeg(3, 2)))),
    "PNG in pieces": ("image/png", png_of(header(20, 20), PNG_DATA, PNG_DATA)),
    "JPEG with filling": ("image/jpeg", jpeg(before=b"\xff\xff\xff")),
    "JPEG with a marker alone": ("image/jpeg", jpeg(before=b"\xff\x01")),
    "JPEG of two scans": ("image/jpeg", jpeg(before=segment(0xDA, b"") + b"\xff\x00pixels")),
    "JPEG of a long scan": ("image/jpeg", jpeg(before=segment(0xDA, b"") + b"x" * 65_535)),
    "padded JPEG": ("image/jpeg", jpeg(after=b"\0" * 100)),
    **{f"{kind} WebP": ("image/webp", content) for kind, content in WEBP.items()},
}
complete = pytest.mark.parametrize(("media_type", "content"), COMPLETE.values(), ids=COMPLETE)


@complete
def test_a_complete_image_is_recognised(media_type, content):
    """Its format and its size are read from its bytes."""
    width, height = (20, 20) if media_type == "image/png" else (30, 20)
    expected = ImageInfo(media_type=media_type, width=width, height=height)
    assert read_image_info([content]) == expected


@complete
@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_an_image_is_the_same_in_blocks_of_any_size(media_type, content, size):
    """The parts of an image may be split anywhere."""
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    assert read_image_info(iter([b"", *blocks])) == read_image_info([content])
    assert media_type == read_image_info(blocks).media_type


@complete
def test_a_truncated_image_is_rejected(media_type, content):
    """An image that ends too early at any byte is rejected."""
    # Bytes after the end marker are not part of a JPEG.
    end = content.rindex(b"\xff\xd9") + 2 if media_type == "image/jpeg" else len(content)
    for length in range(0, end, 1 + end // 1000):
        with pytest.raises(InvalidImageError):
            read_image_info([content[:length]])


INVALID = {
    "nothing": (b"", "empty"),
    "a page": (b"<!DOCTYPE html><html>", "a page"),
    "a page after blanks": (b"\r\n  <html>", "a page"),
    "JSON": (b'{"code": 404}', "not a PNG, JPEG or WebP"),
    "a GIF": (b"GIF89a\x01\x00\x01\x00", "not a PNG, JPEG or WebP"),
    "a sound": (b"RIFF\x04\0\0\0WAVEfmt ", "not a PNG, JPEG or WebP"),
    "a PNG without width": (png_of(header(0, 20), PNG_DATA), "no pixels"),
    "a PNG without a header": (png_of(PNG_DATA), "no header"),
    "a PNG with a short header": (png_of(chunk(b"IHDR", bytes(8)), PNG_DATA), "no header"),
    "a PNG without data": (png_of(PNG_HEADER), "no image data"),
    "a PNG with empty data": (png_of(PNG_HEADER, chunk(b"IDAT", b"")), "no image data"),
    "a PNG with zeros in the middle": (
        png_of(PNG_HEADER, PNG_DATA.replace(b"pixels", bytes(6))),
        "the PNG is damaged: the checksum of b'IDAT' is wrong",
    ),
    "a PNG with a wrong checksum in its header": (
        png_of(PNG_HEADER[:-1] + b"x", PNG_DATA),
        "checksum of b'IHDR' is wrong",
    ),
    "a PNG whose chunk states too little": (
        png_of(PNG_HEADER, chunk(b"IDAT", b"pixels", length=5)),
        "checksum of b'IDAT' is wrong",
    ),
    "a PNG whose chunk states too much": (
        png_of(PNG_HEADER, chunk(b"IDAT", b"pixels", length=4_000_000_000)),
        "cut off",
    ),
    "a PNG of 50,000 x 50,000": (png_of(header(50_000, 50_000), PNG_DATA), "50000 x 50000 pixels"),
    "a PNG as large as can be stated": (
        png_of(header(0xFFFFFFFF, 0xFFFFFFFF), PNG_DATA),
        "4294967295 x 4294967295 pixels are more than 100000000",
    ),
    "a JPEG without a frame": (jpeg(frame=0xE2), "no pixels"),
    "a JPEG of 65,535 x 65,535": (jpeg(65_535, 65_535), "65535 x 65535 pixels"),
    "a JPEG without a scan": (jpeg()[: jpeg().index(b"\xff\xda")] + b"\xff\xd9", "no image data"),
    "a JPEG with bytes between its segments": (jpeg(before=b"more"), "damaged"),
    "a JPEG with zeros in its header": (jpeg(before=bytes(4)), "damaged"),
    "a JPEG whose segment is shorter than its length": (jpeg(before=b"\xff\xe1\0\1"), "damaged"),
    "a JPEG whose segment is too long": (jpeg(before=b"\xff\xe1\xff\xff"), "cut off"),
    "a JPEG that ends in its scan": (jpeg()[:-2] + bytes(100), "cut off"),
    "a WebP of another kind": (webp(webp_chunk(b"ANIM", b"pixels")), "no header"),
    "a WebP that states too little": (webp(lossy(), length=12), "its length is wrong"),
    "a WebP that states nothing": (webp(lossy(), length=0), "no header"),
    "a WebP that states too much": (webp(lossy(), length=1000), "cut off"),
    "a WebP that states more than its chunks": (
        webp(lossy(), length=4 + len(lossy()) + 8) + b"more than that",
        "its length is wrong",
    ),
    "a WebP whose chunk states too much": (
        webp(lossy().replace(b"VP8 \x10", b"VP8 \x40")) + bytes(100),
        "its length is wrong",
    ),
    "a WebP with only a canvas": (webp(canvas()), "no image data"),
    "a WebP of two sizes": (webp(canvas(30, 20), lossy(30, 21)), "two sizes"),
    "a WebP without a start code": (webp(lossy(start=bytes(3))), "damaged"),
    "a lossless WebP without a start code": (webp(lossless(start=b"\0")), "damaged"),
    "a WebP of 16,777,216 x 16,777,216": (
        webp(canvas(1 << 24, 1 << 24), webp_chunk(b"ANMF", b"a frame")),
        "16777216 x 16777216 pixels",
    ),
}


@pytest.mark.parametrize(("content", "reason"), INVALID.values(), ids=INVALID)
def test_a_file_that_is_not_an_image_is_rejected(content, reason):
    """The error says what is wrong with it."""
    with pytest.raises(InvalidImageError, match=reason):
        read_image_info([content])


def test_an_image_with_the_maximum_of_pixels_is_accepted():
    """The limit is inclusive."""
    width = MAX_PIXELS // 10_000
    found = read_image_info([png_of(header(width, 10_000), PNG_DATA)])
    assert (found.width, found.height) == (width, 10_000)


EMPTY_PARTS = {
    "PNG": lambda parts: png_of(PNG_HEADER, chunk(b"tEXt", b"") * parts, PNG_DATA),
    "JPEG": lambda parts: jpeg(before=b"\xff\xe1\0\2" * parts),
    "JPEG of fill bytes": lambda parts: jpeg(before=b"\xff" * parts),
    "JPEG of empty scans": lambda parts: jpeg(before=b"\xff\xda\0\2" * parts),
    "WebP": lambda parts: webp(webp_chunk(b"EXIF", b"") * parts, lossy()),
}


@pytest.mark.parametrize("image_of", EMPTY_PARTS.values(), ids=EMPTY_PARTS)
def test_an_image_with_millions_of_empty_parts_is_rejected_early(image_of, monkeypatch):
    """A host cannot keep a thread busy for a minute with empty parts."""
    assert MAX_PARTS <= 200_000
    monkeypatch.setattr("kie_cover_async.archive.formats.MAX_PARTS", 1000)
    content = image_of(100_000)
    blocks = iter([content[start : start + 100] for start in range(0, len(content), 100)])
    with pytest.raises(InvalidImageError, match="more than 1000 parts"):
        read_image_info(blocks)
    assert sum(map(len, blocks)) > len(content) * 0.9
    assert read_image_info([image_of(900)]).height == 20


beginnings = st.sampled_from([content[:n] for _, content in COMPLETE.values() for n in (3, 12, 40)])


@given(beginnings | st.just(b""), st.binary(max_size=60))
def test_any_bytes_are_an_image_or_rejected(beginning, rest):
    """For any bytes, reading ends: with a size in pixels, or with the one error."""
    try:
        found = read_image_info([beginning, rest])
    except InvalidImageError:
        return
    assert found.width > 0
    assert found.height > 0
