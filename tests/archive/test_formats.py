import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kie_cover_async.archive.formats import Format, NoImageError, read_format
from kie_cover_async.emulator.images import png


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def jpeg(width=30, height=20, *, frame=0xC0, before=b"", after=b""):
    size = segment(frame, struct.pack(">BHHB", 8, height, width, 0))
    scan = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"pixels \xff\x00 and \xff\xd0 more"
    return b"\xff\xd8" + segment(0xE0, b"JFIF\0") + before + size + scan + b"\xff\xd9" + after


def webp(kind, content):
    chunk = kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


WEBP = {
    "lossy": webp(b"VP8 ", b"\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", 30, 20) + b"pixels"),
    "lossless": webp(b"VP8L", b"\x2f" + struct.pack("<I", 29 | 19 << 14) + b"pixels"),
    "extended": webp(b"VP8X", b"\0\0\0\0" + b"\x1d\0\0" + b"\x13\0\0" + b"pixels"),
}
WHOLE = {
    "PNG": ("image/png", png("a", 20)),
    "JPEG": ("image/jpeg", jpeg()),
    "progressive JPEG": ("image/jpeg", jpeg(frame=0xC2)),
    "JPEG with tables first": ("image/jpeg", jpeg(before=segment(0xC4, b"\xff\xd9 table"))),
    "JPEG with a thumbnail": ("image/jpeg", jpeg(before=segment(0xE1, jpeg(3, 2)))),
    "JPEG with filling": ("image/jpeg", jpeg(before=b"\xff\xff\xff")),
    "padded JPEG": ("image/jpeg", jpeg(after=b"\0" * 100)),
    **{f"{kind} WebP": ("image/webp", content) for kind, content in WEBP.items()},
}
whole = pytest.mark.parametrize(("media_type", "content"), WHOLE.values(), ids=WHOLE)


@whole
def test_a_whole_image(media_type, content):
    """Its kind and its size are read from its bytes."""
    width, height = (20, 20) if media_type == "image/png" else (30, 20)
    wanted = Format(media_type=media_type, width=width, height=height)
    assert read_format(io.BytesIO(content)) == wanted


@whole
def test_an_image_that_is_cut_off(media_type, content):
    """Wherever an image ends too early, it is none."""
    # What follows the end of a JPEG is no part of it.
    end = content.rindex(b"\xff\xd9") + 2 if media_type == "image/jpeg" else len(content)
    for length in range(end):
        with pytest.raises(NoImageError):
            read_format(io.BytesIO(content[:length]))


OTHERS = {
    "nothing": (b"", "empty"),
    "a page": (b"<!DOCTYPE html><html>", "a page"),
    "a page after blanks": (b"\r\n  <html>", "a page"),
    "JSON": (b'{"code": 404}', "no PNG, JPEG or WebP"),
    "a GIF": (b"GIF89a\x01\x00\x01\x00", "no PNG, JPEG or WebP"),
    "a sound": (b"RIFF\x04\0\0\0WAVEfmt ", "no PNG, JPEG or WebP"),
    "a PNG without pixels": (png("a", 20).replace(struct.pack(">I", 20), b"\0\0\0\0"), "no pixels"),
    "a PNG without a header": (png("a", 20).replace(b"IHDR", b"IDAT"), "no header"),
    "a JPEG without a frame": (jpeg(frame=0xE2), "no pixels"),
    "a JPEG between whose segments is more": (jpeg(before=b"more"), "damaged"),
    "a WebP of another kind": (webp(b"ANIM", b"pixels"), "no header"),
}


@pytest.mark.parametrize(("content", "reason"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_image(content, reason):
    """It is refused, and the error says what it looks like."""
    with pytest.raises(NoImageError, match=reason):
        read_format(io.BytesIO(content))


beginnings = st.sampled_from([content[:n] for _, content in WHOLE.values() for n in (3, 12, 40)])


@given(beginnings | st.just(b""), st.binary(max_size=60))
def test_whatever_bytes_come(beginning, rest):
    """They are an image with pixels or they are none; there is no other error, and no hanging."""
    try:
        found = read_format(io.BytesIO(beginning + rest))
    except NoImageError:
        return
    assert found.width > 0
    assert found.height > 0
