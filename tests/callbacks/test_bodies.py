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


def test_a_documented_success_is_parsed():
    """The documented callback of a success is parsed."""
    callback = parse_callback(recorded("callback-success-documented"))
    assert (callback.task_id, callback.code, callback.msg) == (TASK, 200, "success")
    assert callback.images is not None
    assert len(callback.images) == 2


def test_a_documented_failure_is_parsed():
    """The documented callback of a failure has a code, a message and no images."""
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
def test_the_id_is_found_in_three_places(body):
    """The id is read from each of the three places in which the vendor's callbacks have it."""
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
def test_a_body_may_be_bytes_str_or_parsed(body):
    """A body is bytes, str, or parsed JSON."""
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
def test_a_body_without_a_usable_id_is_rejected(body, path):
    """Without a valid id, or with two that differ, the callback is rejected."""
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
def test_a_body_without_a_json_object_is_rejected(body):
    """A body that is not a JSON object cannot be read."""
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
def test_unreadable_code_and_message_are_ignored(fields, expected):
    """An unreadable code or message does not reject the callback."""
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
def test_claimed_images_are_the_valid_urls(images, expected):
    """Valid image URLs are kept; without any, `images` is `None`."""
    body = {"data": {"taskId": TASK, "images": images}}
    assert parse_callback(body).images == expected


def test_a_very_long_number_does_not_hide_the_id():
    """A number longer than Python parses does not hide the id."""
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
def test_any_json_is_parsed_or_rejected(body):
    """Any JSON gives a callback with a valid id, or our own error."""
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
def test_any_bytes_are_parsed_or_rejected(body):
    """Any bytes and any str give a callback, or our own error."""
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
def test_only_signed_callbacks_are_verified(headers, body):
    """Any headers and body give our own error, unless the key has signed the body's id."""
    check_callback(headers, body)


@pytest.mark.parametrize("results", ["{broken", '{"resultUrls":{"a":1}}'])
def test_images_of_the_market_that_cannot_be_read_are_left_out(results):
    """A callback is a reason to poll, whatever its images are."""
    body = {"code": 200, "data": {"taskId": "a", "state": "success", "resultJson": results}}
    assert parse_callback(body).images is None
