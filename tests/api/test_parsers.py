"""JSON is read the same by both parsers, whatever it holds."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.parsers import parsed_by

from kie_cover_async.api import responses
from kie_cover_async.api.responses import orjson_parser, parse_body

REPLIES = sorted((Path(__file__).parents[1] / "replies").glob("*.json"))


class Text(str):
    """A text of a type of its own, as a framework may pass it."""

    __slots__ = ()


def nested(depth, of="1"):
    """An envelope whose data is an array in an array, and so on."""
    return ('{"code":200,"data":' + "[" * depth + of + "]" * depth + "}").encode()


def lists(depth, of=1):
    for _ in range(depth):
        of = [of]
    return {"code": 200, "data": of}


UNREAD = object()  # the body comes back as it is

BODIES = {
    "an answer": (
        b'{"code":200,"msg":"\xe2\x9c\x93","data":null}',
        {"code": 200, "msg": "✓", "data": None},
    ),
    "a text": ('{"code":200}', {"code": 200}),
    "a text of another type": (Text('{"code":200}'), {"code": 200}),
    # Names.
    "a name twice": (b'{"code":1,"msg":"a","code":2}', {"code": 2, "msg": "a"}),
    "an empty name": (b'{"":1}', {"": 1}),
    # Whole numbers.
    "minus zero": (b'{"n":-0}', {"n": 0}),
    "the largest of 63 bits": (b'{"n":9223372036854775807}', {"n": 2**63 - 1}),
    "64 bits": (b'{"n":18446744073709551615}', {"n": 2**64 - 1}),
    "65 bits": (b'{"n":18446744073709551616}', {"n": 2**64}),
    "the smallest of 64 bits": (b'{"n":-9223372036854775808}', {"n": -(2**63)}),
    "one below that": (b'{"n":-9223372036854775809}', {"n": -(2**63) - 1}),
    "a large one": (b'{"n":1' + b"0" * 30 + b"}", {"n": 10**30}),
    "a large one within data": (b'{"data":{"n":1' + b"0" * 30 + b"}}", {"data": {"n": 10**30}}),
    "a large one in a list": (b'{"a":{"b":[1' + b"0" * 30 + b"]}}", {"a": {"b": [10**30]}}),
    "a large one alone": (b"1" + b"0" * 30, 10**30),
    "a large one in a list alone": (b"[1" + b"0" * 30 + b"]", [10**30]),
    "one past all floats": (b'{"n":' + b"9" * 400 + b"}", {"n": int("9" * 400)}),
    "one that Python does not read": (b'{"n":' + b"9" * 5000 + b"}", {"n": math.inf}),
    "its negative": (b'{"n":-' + b"9" * 5000 + b"}", {"n": -math.inf}),
    "a zero before it": (b'{"n":01}', UNREAD),
    "a plus before it": (b'{"n":+1}', UNREAD),
    "hexadecimal": (b'{"n":0x10}', UNREAD),
    # Numbers with a point or an exponent.
    "minus zero with a point": (b'{"n":-0.0}', {"n": -0.0}),
    "a float": (b'{"n":5916.25}', {"n": 5916.25}),
    "a float of a whole value": (b'{"n":1.0}', {"n": 1.0}),
    "a large float": (b'{"n":1e19,"m":9223372036854775808.0}', {"n": 1e19, "m": 2.0**63}),
    "the largest float": (b'{"n":1.7976931348623157e308}', {"n": sys.float_info.max}),
    "a float past all floats": (b'{"n":1e400,"m":-1e400}', {"n": math.inf, "m": -math.inf}),
    "a float below all floats": (b'{"n":1e-400,"m":-1e-400}', {"n": 0.0, "m": -0.0}),
    "the smallest float": (b'{"n":5e-324}', {"n": 5e-324}),
    "halfway between two floats": (b'{"n":9007199254740993.0}', {"n": 9007199254740992.0}),
    "many digits": (b'{"n":0.1' + b"0" * 800 + b"1}", {"n": 0.1}),
    "no digit after the point": (b'{"n":1.}', UNREAD),
    "no digit before the point": (b'{"n":.5}', UNREAD),
    "not a number": (b'{"n":NaN}', {"n": math.nan}),
    "endless": (b'{"n":Infinity,"m":-Infinity}', {"n": math.inf, "m": -math.inf}),
    "not a number, in small letters": (b'{"n":nan}', UNREAD),
    # Texts.
    "a surrogate pair": (rb'{"t":"\ud83c\udfb5"}', {"t": "🎵"}),
    "half a surrogate pair": (rb'{"t":"\ud800"}', {"t": "\ud800"}),
    "the other half": (rb'{"t":"\udc00 \ud800"}', {"t": "\udc00 \ud800"}),
    "half a pair as a name": (rb'{"\ud800":1}', {"\ud800": 1}),
    "half a pair in UTF-8": (b'{"t":"\xed\xa0\x80"}', {"t": "\ud800"}),
    "half a pair in a text": ('{"t":"\ud800"}', {"t": "\ud800"}),
    "an escaped zero": (rb'{"t":"\u0000"}', {"t": "\x00"}),
    "a zero": (b'{"t":"\x00"}', UNREAD),
    "a line break": (b'{"t":"a\nb"}', UNREAD),
    "DEL": (b'{"t":"\x7f"}', {"t": "\x7f"}),
    "an unknown escape": (rb'{"t":"\x41"}', UNREAD),
    "half a character": (b'{"t":"\xe2\x9c"}', UNREAD),
    "more bytes than a character needs": (b'{"t":"\xc0\xaf"}', UNREAD),
    "single quotes": (b"{'t':1}", UNREAD),
    # What is around it.
    "blanks": (b' \t\r\n{"code" : 200 ,\n"data": [ ] }\n\n', {"code": 200, "data": []}),
    "blanks around a large number": (b' {"n":1' + b"0" * 30 + b"} ", {"n": 10**30}),
    "a blank of another kind": (b'\x0c{"code":200}', UNREAD),
    "a blank that JSON does not know": ('{"code":200}\u00a0', UNREAD),
    "a byte order mark": (b'\xef\xbb\xbf{"code":200}', {"code": 200}),
    "a byte order mark in a text": ('\ufeff{"code":200}', UNREAD),
    "UTF-16": ('{"code":200}'.encode("utf-16"), {"code": 200}),
    "UTF-16 without a mark": ('{"code":200}'.encode("utf-16-le"), {"code": 200}),
    "UTF-32": ('{"code":200}'.encode("utf-32"), {"code": 200}),
    "Latin-1": ('{"t":"ü"}'.encode("latin-1"), UNREAD),
    "a zero after it": (b'{"code":200}\x00', UNREAD),
    "a comma after it": (b'{"code":200},', UNREAD),
    "a comma within": (b'{"code":200,}', UNREAD),
    "a comment": (b'{"code":200}// yes', UNREAD),
    "two": (b'{"code":200}{"code":200}', UNREAD),
    "half of one": (b'{"code":200', UNREAD),
    "nothing": (b"", UNREAD),
    "a blank alone": (b" ", UNREAD),
    "a page": (b"<html>", UNREAD),
    # Other values.
    "null": (b"null", None),
    "true": (b"true", True),
    "a string": (b'"success"', "success"),
    "a number": (b"200", 200),
    "an array": (b'[{"code":200}]', [{"code": 200}]),
    "Python's words": (b'{"a":None}', UNREAD),
    # Nesting.
    "a few levels": (nested(3), lists(3)),
    "many levels": (nested(300), lists(300)),
    "many levels around a large number": (nested(300, "1" + "0" * 30), lists(300, 10**30)),
    "levels past the recursion limit": (nested(200_000), UNREAD),
    "levels that do not end": (b"[" * 200_000, UNREAD),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
@pytest.mark.usefixtures("parser")
def test_body(body, expected):
    """Each body is the row's value, type by type, or is returned as it came."""
    value = parse_body(body)
    if expected is UNREAD:
        assert value is body
    else:
        # Unlike `==`, this tells 1, 1.0 and True apart, 0.0 and -0.0, and finds NaN the same.
        assert repr(value) == repr(expected)


@pytest.mark.parametrize("body", [bytes(2**20), b'{"a":"' + b"x" * 2**20 + b'"}'])
@pytest.mark.usefixtures("parser", "bounded")
def test_a_large_body_takes_little_memory(body):
    """Of a body as long as any that is read, neither parser makes more than a few copies."""
    parse_body(body)


NUMBERS = st.builds(
    "{}{}{}".format,
    st.integers(-(10**25), 10**25) | st.just("-0"),
    st.just("") | st.integers(0, 10**20).map(".{:020}".format),
    st.just("") | st.integers(-999, 999).map("e{}".format) | st.just("E+9"),
) | st.floats().map(json.dumps)
STRINGS = st.builds(
    json.dumps,
    st.text(st.characters(exclude_categories=[]), max_size=4),
    ensure_ascii=st.booleans(),
)
BLANKS = st.sampled_from(["", " ", "\n", "\t"])


def arrays(values):
    return st.lists(values, max_size=3).map(lambda each: "[" + ",".join(each) + "]")


def objects(values):
    pairs = st.tuples(st.sampled_from(['"a"', '"b"', '"data"']) | STRINGS, BLANKS, values)
    return st.lists(pairs, max_size=3).map(
        lambda each: "{" + ",".join(f"{name}:{blank}{value}" for name, blank, value in each) + "}"
    )


JSON = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["null", "true", "false"]),
    lambda inner: arrays(inner) | objects(inner),
    max_leaves=8,
)


def encoded(text):
    return text.encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def both_parsers():
    """Reads a body with `json` and with orjson."""
    pytest.importorskip("orjson")

    def read(body):
        values = []
        for name in ("json", "orjson"):
            with parsed_by(name):
                values.append(parse_body(body))
        return values

    return read


@given(objects(JSON) | JSON)
def test_any_json(both_parsers, text):
    """Any JSON, as a text and as bytes, is the same from both."""
    for body in (text, encoded(text)):
        first, second = both_parsers(body)
        assert repr(first) == repr(second)


@given(JSON.map(encoded), st.integers(0, 200), st.binary(max_size=3))
@example(b'{"a":1', 6, b"}")
def test_any_spoilt_json(both_parsers, body, place, piece):
    """So is JSON with some bytes of it replaced by others."""
    first, second = both_parsers(body[:place] + piece + body[place + 1 :])
    assert repr(first) == repr(second)


@pytest.mark.parametrize("name", [reply.stem for reply in REPLIES])
def test_orjson_reads_the_apis_own_answers_alone(name, monkeypatch):
    """None of the API's answers is parsed a second time, a balance with decimals included."""
    pytest.importorskip("orjson")
    parse = orjson_parser()
    [body] = [reply.read_bytes().rstrip() for reply in REPLIES if reply.stem == name]
    monkeypatch.delattr(responses, "parse_with_json")
    assert parse(body) == json.loads(body)


def test_without_orjson_there_is_json(monkeypatch):
    """If orjson is not installed, the standard library's parser is the only one."""
    monkeypatch.setitem(sys.modules, "orjson", None)
    assert orjson_parser() is None


def test_orjson_is_used_if_it_is_installed():
    """Nothing has to be switched on: it is chosen on import."""
    script = (
        "from kie_cover_async.api import responses as r\n"
        "print(r.parse_quickly is r.parse_with_json)"
    )
    command = [sys.executable, "-c", script]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(orjson_parser() is None)
