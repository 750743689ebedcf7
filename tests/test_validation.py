from fractions import Fraction
from math import inf, nan

import attrs
import pytest
from yarl import URL

from kie_cover_async import InvalidTaskIdError
from kie_cover_async.validation import (
    is_http_url,
    is_one_word,
    number_validator,
    short_repr,
    validate_callable,
    validate_http_url,
    validate_number,
    validate_task_id,
)


class FailingRepr:
    def __repr__(self):
        raise ZeroDivisionError


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        ("a", "'a'"),
        ("a\n\ud800\x1b", r"'a\n\ud800\x1b'"),
        ("x" * 58, "'" + "x" * 58 + "'"),
        ("x" * 59, "'" + "x" * 58 + "…"),
        ("x" * 2**20, "'" + "x" * 58 + "…"),
        (b"x" * 2**20, "b'" + "x" * 57 + "…"),
        ([1, 2], "[1, 2]"),
        (list(range(1000)), str(list(range(1000)))[:59] + "…"),
        (10**5000, "a int"),
        (nested(100_000), "a list"),
        (FailingRepr(), "a FailingRepr"),
    ],
    ids=range(12),
)
def test_a_repr_in_a_message_is_short(value, text):
    """A repr in a message has at most sixty characters, whatever the value."""
    assert short_repr(value) == text
    assert len(short_repr(value)) <= 60


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (0, {}),
        (-1e300, {}),
        (0.001, {"above": 0}),
        (0, {"at_least": 0}),
        (0.0, {"at_least": 0, "below": 1}),
        (0.999, {"at_least": 0, "below": 1}),
        (1, {"at_least": 1, "whole": True}),
        (10**100, {"whole": True}),
    ],
)
def test_a_number_within_its_bounds_is_accepted(value, bounds):
    """A valid number passes, also as a field."""
    validate_number("it", value, **bounds)
    number_validator(**bounds)(None, attrs.fields(Sample).share, value)


@attrs.frozen
class Sample:
    share: float = attrs.field(default=0.5, validator=number_validator(at_least=0, below=1))


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (0, {"above": 0}, "it must be a finite number above 0, not 0"),
        (-1, {"at_least": 0}, "it must be a finite number of at least 0, not -1"),
        (
            1,
            {"at_least": 0, "below": 1},
            "it must be a finite number of at least 0 and below 1, not 1",
        ),
        (nan, {}, "it must be a finite number, not nan"),
        (nan, {"above": 0}, "it must be a finite number above 0, not nan"),
        (inf, {}, "it must be a finite number, not inf"),
        (-inf, {}, "it must be a finite number, not -inf"),
        (0, {"at_least": 1, "whole": True}, "it must be a whole number of at least 1, not 0"),
        (
            -(10**400),
            {"at_least": 1, "whole": True},
            f"it must be a whole number of at least 1, not -1{'0' * 57}…",
        ),
        (10**400, {}, f"it must be a finite number, not 1{'0' * 58}…"),
    ],
)
def test_a_number_out_of_bounds_is_rejected(value, bounds, message):
    """The error names the argument, what is accepted and what was given."""
    with pytest.raises(ValueError, match="must be") as caught:
        validate_number("it", value, **bounds)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "value", [None, "1", b"1", True, False, 1j, [1], Fraction(1)], ids=short_repr
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_str_or_bool_is_not_a_number(value, whole):
    """A str and a bool are rejected."""
    with pytest.raises(TypeError) as caught:
        validate_number("it", value, whole=whole)
    kind = "whole" if whole else "finite"
    assert str(caught.value) == f"it must be a {kind} number, not {value!r}"


def test_a_float_is_not_a_whole_number():
    """A float is rejected, even one without decimals."""
    with pytest.raises(TypeError, match=r"it must be a whole number, not 1\.0"):
        validate_number("it", 1.0, whole=True)


def test_a_rejected_field_is_named():
    """The error names the attrs field."""
    with pytest.raises(ValueError, match="share must be a finite number of at least 0 and below 1"):
        Sample(share=1)


WORDS = ["a", "21aee3c3c2a01fa5e030b3799fa4dd56", "a/b?c&d=é%", "日本", "-", "x" * 10_000]
NO_WORDS = ["", " ", "a b", "a\n", "\ta", "a\u00a0b", "\u2028", "\ud800", "\x00", "\x7f"]


@pytest.mark.parametrize("value", WORDS, ids=short_repr)
def test_a_valid_task_id_is_returned(value):
    """Any word is a task id, and is returned unchanged."""
    assert validate_task_id("task_id", value) is value
    assert is_one_word(value)


@pytest.mark.parametrize(
    "value", [*NO_WORDS, None, 7, True, b"abc", ["abc"], {"taskId": "abc"}], ids=short_repr
)
def test_an_invalid_task_id_is_rejected(value):
    """The error names the argument, and nothing is sent."""
    with pytest.raises(InvalidTaskIdError) as caught:
        validate_task_id("music_task_id", value)
    wanted = "a non-empty str without blanks or control characters"
    message = f"music_task_id must be {wanted}, not {value!r}"
    assert str(caught.value) == message
    assert (caught.value.argument, caught.value.given) == ("music_task_id", repr(value))
    assert caught.value.task_id is None
    assert not is_one_word(value)


@pytest.mark.parametrize(
    "value",
    [
        "https://h",
        "http://h/a?b=c#d",
        "HTTPS://H:8443/",
        "https://u:p@h/",
        "http://[::1]:80/x",
        f"https://{'h' * 63}.{'i' * 63}/",
        "https://xn--bcher-kva.example/",
        "https://bücher.example./",
    ],
)
def test_an_http_url_is_accepted(value):
    """A URL may be a str or a `URL`."""
    assert validate_http_url("base_url", value) == URL(value)
    assert validate_http_url("base_url", URL(value)) == URL(value)
    assert is_http_url(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "h",
        "/path",
        "//h/path",
        "ftp://h",
        "https:",
        "https:h",
        "https:///path",
        "https://[::1",
        "https://h:port",
        "https://h:99999",
        "https://a b/",
        "https://h\n",
        " https://h",
        "https://h/\ud800",
        "https://h/\x00",
    ],
    ids=short_repr,
)
def test_an_invalid_url_is_rejected(value):
    """A str that is not an absolute http or https URL is rejected, and not repaired."""
    with pytest.raises(ValueError, match="image_url") as caught:
        validate_http_url("image_url", value)
    expected = f"image_url must be an absolute http or https URL, not {value!r}"
    assert str(caught.value) == expected
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert not is_http_url(value)


@pytest.mark.parametrize(
    "host",
    ["h..i", ".h", "h" * 64, f"{'h' * 64}.i", "xn--", "i.XN--.h", "xn--.ö", "[::1]@", "u@[::1]@"],
)
@pytest.mark.parametrize("rest", ["", "/path", "/ö"])
def test_an_invalid_host_is_rejected(host, rest):
    """A host that resolvers or URL parsers do not accept makes the URL invalid."""
    value = f"https://{host}{rest}"
    with pytest.raises(ValueError, match="image_url must be an absolute") as caught:
        validate_http_url("image_url", value)
    assert type(caught.value) is ValueError
    assert not is_http_url(value)


@pytest.mark.parametrize("value", [None, 7, True, b"https://h", ["https://h"]])
def test_a_url_of_another_type_is_a_type_error(value):
    """A value that is neither str nor `URL` raises `TypeError`."""
    with pytest.raises(TypeError, match="image_url must be an absolute http or https URL, not"):
        validate_http_url("image_url", value)
    assert not is_http_url(value)


def test_a_relative_url_object_is_rejected():
    """A `URL` must be absolute, too."""
    with pytest.raises(ValueError, match="image_url must be an absolute"):
        validate_http_url("image_url", URL("/path"))


@pytest.mark.parametrize("value", [None, print, Sample, lambda: None])
def test_a_callable_or_none_is_accepted(value):
    """A hook is any callable, or `None`."""
    validate_callable("on_update", value)


@pytest.mark.parametrize("value", [7, "print", [print], Sample()])
def test_a_hook_that_is_not_callable_is_rejected(value):
    """Other values are rejected before they would be called."""
    with pytest.raises(TypeError, match="on_update must be callable, not "):
        validate_callable("on_update", value)
