"""Names of image files, and part files."""

import errno
import os
import re
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kie_cover_async.archive.files import FileIO, PartFile, file_stem, verify_file
from kie_cover_async.emulator.images import png

IMAGE = png("an image", 64)

ids = st.text(st.characters(codec=None), min_size=1, max_size=80) | st.text(
    "abAB-_.~/1", min_size=1, max_size=6
)
numbers = st.integers(1, 12)


@pytest.mark.parametrize("task_id", ["a", "21aee3c3c2a01fa5e030b3799fa4dd56", "a_b-c", "0" * 64])
def test_a_safe_id_is_used_as_the_name(task_id):
    """The file of such a cover is found by its id."""
    assert file_stem(task_id, 2) == f"{task_id}-2"


@pytest.mark.parametrize(
    "task_id",
    ["../../etc/passwd", "..", ".", "a/b", "a\\b", "A", "-rf", "a.b", "ä", "\ud800", "a:b", "a\n"],
)
def test_an_unsafe_id_is_replaced_by_its_hash(task_id):
    """A plus precedes the hash."""
    assert re.fullmatch(r"\+[0-9a-f]{64}-1", file_stem(task_id, 1))


@given(ids, numbers)
def test_a_name_stays_in_its_folder(task_id, number):
    """For any id, the name has only safe characters and is not hidden."""
    assert re.fullmatch(r"[a-z0-9+][a-z0-9_-]{0,67}", file_stem(task_id, number))


@given(ids, numbers, ids, numbers)
def test_no_two_images_share_a_name(one, first, other, second):
    """That holds on file systems that ignore case, too."""
    names = file_stem(one, first).casefold(), file_stem(other, second).casefold()
    assert (names[0] == names[1]) == ((one, first) == (other, second))


def test_an_id_of_more_than_64_characters_is_replaced():
    """64 characters are the maximum."""
    assert file_stem("a" * 64, 1) == "a" * 64 + "-1"
    assert file_stem("a" * 65, 1).startswith("+")


@pytest.fixture
def part(tmp_path):
    return PartFile(tmp_path)


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_discarded_part_file_is_not_written(part, tmp_path):
    """A thread that comes too late creates no file."""
    part.discard()
    with pytest.raises(RuntimeError, match="discarded"):
        part.write([b"too late"])
    assert names(tmp_path) == []


def test_a_partial_write_is_continued(part, tmp_path, monkeypatch):
    """If the disk takes only a part of the bytes, the rest is written after them."""

    class SlowFile(FileIO):
        def write(self, content, /):
            return super().write(content[:100])

    monkeypatch.setattr("kie_cover_async.archive.files.FileIO", SlowFile)
    file = part.keep_image([IMAGE[:50], IMAGE[50:]], restart=True, stem="a")
    assert names(tmp_path) == ["a.png"]
    assert (file.path.read_bytes(), file.size) == (IMAGE, len(IMAGE))


def test_a_full_disk_is_an_error_that_names_the_file(part, tmp_path, monkeypatch):
    """After the part file is discarded, the folder is empty."""

    class FullFile(FileIO):
        def write(self, content, /):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("kie_cover_async.archive.files.FileIO", FullFile)
    with pytest.raises(OSError, match=r"No space left on device: .*\.part"):
        part.keep_image([IMAGE], restart=True, stem="a")
    part.discard()
    assert names(tmp_path) == []


def test_bytes_after_an_image_are_part_of_its_file(tmp_path):
    """The hash and the size are those of the whole file."""
    path, content = tmp_path / "a.png", IMAGE + bytes(1_000_000)
    path.write_bytes(content)
    file = verify_file(path)
    assert (file.sha256, file.size) == (sha256(content).hexdigest(), len(content))
