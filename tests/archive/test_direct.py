"""Content put together in memory, and its way to the disk past the cache."""

import errno
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kie_cover_async.archive import direct
from kie_cover_async.archive.direct import ROOM, Content
from kie_cover_async.archive.parts import part_files
from kie_cover_async.emulator.images import png

IMAGE = png("an image", 64)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 300)),
        st.tuples(st.just("seek"), st.integers(0, 300), st.just(os.SEEK_SET)),
        st.tuples(
            st.just("seek"), st.integers(0, 300), st.sampled_from([os.SEEK_CUR, os.SEEK_END])
        ),
        st.tuples(st.sampled_from(["read", "tell"])),
    )
)


@pytest.fixture
def part(tmp_path):
    return next(part_files(tmp_path))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@given(st.lists(st.binary(max_size=100)), STEPS)
def test_content_is_read_like_a_file(pieces, steps):
    """Whatever is read of it, and wherever, is what a file with these bytes in it gives."""
    content, file = Content(pieces), io.BytesIO(b"".join(pieces))
    for name, *arguments in steps:
        assert getattr(content, name)(*arguments) == getattr(file, name)(*arguments)


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 1_500_000, ROOM])
def test_content_of_any_size(tmp_path, size):
    """The file has these bytes and no more, though disks are written to by the page."""
    content, path = Content([os.urandom(size)]), tmp_path / "a"
    # Not every file system can do it, and then there is no file.
    there = [bytes(content.view)] if content.write_past_cache(path) else []
    assert [each.read_bytes() for each in tmp_path.iterdir()] == there


def test_what_was_there_before():
    """Content that is shorter than the one before it brings nothing of that one."""
    Content([b"x" * 10_000])
    content = Content([b"a", b"bc"])
    assert (content.read(), content.read(), bytes(content.view)) == (b"abc", b"", b"abc")


@pytest.mark.parametrize("refused_by", ["open", "write"])
def test_a_file_system_that_cannot_do_it(part, tmp_path, monkeypatch, refused_by):
    """Some say so when a file is made, some when it is written; either way the image is kept."""
    refused, really = [], getattr(os, refused_by)

    def refuse(*given):
        if refused:
            return really(*given)
        refused.append(refused_by)
        raise OSError(errno.EINVAL, "Invalid argument")

    with monkeypatch.context() as patch:
        patch.setattr(direct, "_PAST_THE_CACHE", os.O_SYNC)
        patch.setattr(os, refused_by, refuse)
        whole = part.keep_image([IMAGE], anew=True, stem="a")
    assert refused == [refused_by]
    assert names(tmp_path) == ["a.png"]
    assert whole.path.read_bytes() == IMAGE


def test_a_system_that_knows_no_such_way(part, tmp_path, monkeypatch):
    """The image is kept through the cache."""
    monkeypatch.setattr(direct, "_PAST_THE_CACHE", 0)
    whole = part.keep_image([IMAGE[:50], IMAGE[50:]], anew=True, stem="a")
    assert names(tmp_path) == ["a.png"]
    assert (whole.path.read_bytes(), whole.size) == (IMAGE, len(IMAGE))


def test_a_disk_that_takes_a_part(part, tmp_path, monkeypatch):
    """What is left over is written after it."""
    write = os.write

    def a_little(file, content):
        return write(file, content[:100])

    with monkeypatch.context() as patch:
        patch.setattr(direct, "_PAST_THE_CACHE", os.O_SYNC)
        patch.setattr(os, "write", a_little)
        assert part.keep_image([IMAGE], anew=True, stem="a").path.read_bytes() == IMAGE
    assert names(tmp_path) == ["a.png"]


def test_a_disk_that_is_full(part, tmp_path, monkeypatch):
    """The error names the file; once that is discarded, nothing is left."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(direct, "_PAST_THE_CACHE", os.O_SYNC)
        patch.setattr(os, "write", refuse)
        with pytest.raises(OSError, match=r"No space left on device: .*\.part"):
            part.keep_image([IMAGE], anew=True, stem="a")
    part.discard()
    assert names(tmp_path) == []
