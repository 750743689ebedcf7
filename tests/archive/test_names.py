import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kie_cover_async.archive.names import stem

ids = st.text(st.characters(codec=None), min_size=1, max_size=80) | st.text(
    "abAB-_.~/1", min_size=1, max_size=6
)
numbers = st.integers(1, 12)


@pytest.mark.parametrize("task_id", ["a", "21aee3c3c2a01fa5e030b3799fa4dd56", "a_b-c", "0" * 64])
def test_an_id_that_is_fit_for_a_name(task_id):
    """It stands in the name as it is, where a person finds it."""
    assert stem(task_id, 2) == f"{task_id}-2"


@pytest.mark.parametrize(
    "task_id",
    ["../../etc/passwd", "..", ".", "a/b", "a\\b", "A", "-rf", "a.b", "ä", "\ud800", "a:b", "a\n"],
)
def test_an_id_that_is_not(task_id):
    """Its hash stands in its place."""
    assert re.fullmatch(r"\+[0-9a-f]{64}-1", stem(task_id, 1))


@given(ids, numbers)
def test_a_name_stays_in_its_folder(task_id, number):
    """Whatever an id looks like, the name is one of a short list of letters, and not hidden."""
    assert re.fullmatch(r"[a-z0-9+][a-z0-9_-]{0,67}", stem(task_id, number))


@given(ids, numbers, ids, numbers)
def test_no_two_images_share_a_name(one, first, other, second):
    """Not even where capitals and small letters are the same."""
    names = stem(one, first).casefold(), stem(other, second).casefold()
    assert (names[0] == names[1]) == ((one, first) == (other, second))


def test_an_id_that_is_too_long_for_a_name():
    """Sixty-four letters are the most."""
    assert stem("a" * 64, 1) == "a" * 64 + "-1"
    assert stem("a" * 65, 1).startswith("+")
