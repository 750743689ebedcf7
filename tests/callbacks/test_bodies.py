"""What a callback's body says, and that nothing but an error of ours comes of a bad one."""

import json
from collections import UserDict
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.strategies import KEY, SIGNED_AT, check_callback

from kie_cover_async import InvalidResponseError
from kie_cover_async.callbacks import CoverCallback, parse_callback, sign_callback

TASK = "21aee3c3c2a01fa5e030b3799fa4dd56"
IMAGE = "https://tempfile.aiquickdraw.com/s/1753958521_6c1b3015141849d1a9bf17b738ce9347.png"
REPLIES = Path(__file__).parents[1] / "replies"


def recorded(name):
    return (REPLIES / f"{name}.json").read_bytes()


def refusal(body):
    with pytest.raises(InvalidResponseError) as caught:
        parse_callback(body)
    return caught.value.path


def test_a_success():
    """The documented callback of a success is read as it stands."""
    callback = parse_callback(recorded("callback-success-documented"))
    assert (callback.task_id, callback.code, callback.msg) == (TASK, 200, "success")
    assert callback.images is not None
    assert len(callback.images) == 2


def test_a_failure():
    """The documented callback of a failure has a code, a reason and no images."""
    callback = parse_callback(recorded("callback-failure-documented"))
    assert callback == CoverCallback(task_id=TASK, code=501, msg="Cover generation failed")


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"taskId": TASK}},
        {"data": {"task_id": TASK, "callbackType": "complete"}},
        {"taskId": TASK},
        {"taskId": TASK, "data": None},
        {"taskId": TASK, "data": "text"},
        {"taskId": TASK, "data": {"taskId": TASK, "task_id": TASK}},
        {"taskId": None, "data": {"taskId": TASK, "task_id": None}},
    ],
)
def test_where_the_id_stands(body):
    """The id is read from each of the three places in which callbacks of the vendor have it."""
    assert parse_callback(body).task_id == TASK


WRITTEN = json.dumps({"code": "200", "data": {"taskId": TASK, "images": [IMAGE]}})
FORMS = {
    "text": WRITTEN,
    "bytes": WRITTEN.encode(),
    "a bytearray": bytearray(WRITTEN.encode()),
    "a memoryview": memoryview(WRITTEN.encode()),
    "UTF-16": WRITTEN.encode("utf-16"),
    "a dict": json.loads(WRITTEN),
    "another mapping": UserDict(json.loads(WRITTEN)),
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
def test_a_body_of_any_framework(body):
    """A body is bytes, text, or what JSON has made of it."""
    assert parse_callback(body) == CoverCallback(task_id=TASK, code=200, images=(IMAGE,))


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$.data.taskId"),
        ({"data": {"taskId": ""}}, "$.data.taskId"),
        ({"data": {"taskId": 5}}, "$.data.taskId"),
        ({"data": {"taskId": ["x"]}}, "$.data.taskId"),
        ({"data": {"task_id": "a b"}}, "$.data.task_id"),
        ({"taskId": "a\nb"}, "$.taskId"),
        ({"taskId": "\ud800"}, "$.taskId"),
        ({"taskId": "x" * 201}, "$.taskId"),
        ({"taskId": TASK, "data": {"taskId": 7}}, "$.data.taskId"),
        ({"data": {"taskId": TASK, "task_id": "another"}}, "$.data.task_id"),
        ({"data": {"taskId": TASK}, "taskId": "another"}, "$.taskId"),
        ({"data": {"task_id": TASK}, "taskId": "another"}, "$.taskId"),
    ],
)
def test_an_id_that_is_none(body, path):
    """Without an id that could be asked for, or with two that differ, there is no callback."""
    assert refusal(body) == path


BODIES = {
    "empty": b"",
    "no JSON": b"<html>",
    "no text": b"\xff\xfe\xff",
    "a truncated one": b'{"data":{"taskId":"x"',
    "a list": b"[]",
    "a text": '"text"',
    "a number": "5",
    "NaN": "NaN",
    "nesting that exhausts the recursion limit": "[" * 100_000,
    "None": None,
    "a list already": [],
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_none(body):
    """What is no JSON object cannot be read."""
    assert refusal(body) == "$"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"code": None, "msg": None}, {}),
        ({"code": True, "msg": 5}, {}),
        ({"code": 1.5, "msg": []}, {}),
        ({"code": "many", "msg": "said"}, {"msg": "said"}),
        ({"code": "501"}, {"code": 501}),
    ],
)
def test_what_only_informs(fields, expected):
    """A code or a message that cannot be read costs nobody the callback."""
    body = {**fields, "data": {"taskId": TASK}}
    assert parse_callback(body) == CoverCallback(task_id=TASK, **expected)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (None, None),
        ([], None),
        (IMAGE, None),
        ({"0": IMAGE}, None),
        (["nowhere", None], None),
        ([IMAGE, "javascript:alert()", 5], (IMAGE,)),
    ],
)
def test_the_images_that_are_claimed(images, expected):
    """Of the images what is a URL is kept, and where there is none it is `None`."""
    body = {"data": {"taskId": TASK, "images": images}}
    assert parse_callback(body).images == expected


def test_a_number_of_many_digits():
    """A number longer than Python reads does not hide the id."""
    body = f'{{"code": {"9" * 5000}, "data": {{"taskId": "{TASK}"}}}}'
    assert parse_callback(body) == CoverCallback(task_id=TASK)


texts = st.text(st.characters(exclude_categories=[]), max_size=20)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just(TASK),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
ids = st.just(TASK) | anything
data = st.fixed_dictionaries({}, optional={"taskId": ids, "task_id": ids, "images": anything})
bodies = st.fixed_dictionaries(
    {}, optional={"code": anything, "msg": anything, "data": data | anything, "taskId": ids}
)


@given(bodies | anything)
def test_any_json(body):
    """Of any JSON comes a callback whose id can be asked for, or an error of ours."""
    for form in (body, json.dumps(body), json.dumps(body).encode()):
        try:
            callback = parse_callback(form)
        except InvalidResponseError:
            continue
        assert callback.task_id.isprintable()
        assert " " not in callback.task_id
        hash(callback)


@given(st.binary(max_size=100) | texts)
@example(b'{"taskId":"x"}')
def test_any_bytes(body):
    """Of any bytes, and of any text, comes nothing worse."""
    try:
        callback = parse_callback(body)
    except InvalidResponseError:
        return
    assert isinstance(callback, CoverCallback)


genuine = [*sign_callback(TASK, KEY, timestamp=SIGNED_AT).items()]
names = st.sampled_from([name for name, _ in genuine]) | texts
fields = st.lists(st.sampled_from(genuine) | st.tuples(names, texts), max_size=3)


@given(fields, bodies.map(json.dumps))
@example(genuine, json.dumps({"taskId": TASK}))
def test_any_callback(headers, body):
    """Of any headers and body comes an error of ours, or the key has signed the body's id."""
    check_callback(headers, body)
