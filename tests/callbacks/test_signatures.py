"""Whether a callback is genuine: the vendor's scheme, and everything that is not it."""

import time
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from kie_cover_async import InvalidResponseError, InvalidTaskIdError, SignatureError
from kie_cover_async.callbacks import CallbackInbox, sign_callback, verify_signature

KEY = "test-webhook-hmac-key"
TASK = "21aee3c3c2a01fa5e030b3799fa4dd56"
BODY = {"code": 200, "msg": "success", "data": {"taskId": TASK, "images": None}}
SIGNED_AT = 1769670760
STAMP, SIGNATURE = "X-Webhook-Timestamp", "X-Webhook-Signature"
GENUINE = {STAMP: str(SIGNED_AT), SIGNATURE: "RzT9hcGcvO0vUlca4+kTewzkO4SN6LV6WW4Fs0WxBlM="}

VECTORS = {
    TASK: GENUINE[SIGNATURE],
    "ee9c2715375b7837f8bb51d641ff5863": "xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb4=",
}


def verify(headers, *, body=BODY, keys=KEY, now=SIGNED_AT, **settings):
    verify_signature(headers, body, keys, now=now, **settings)


def refusal(headers, **settings):
    with pytest.raises(SignatureError) as caught:
        verify(headers, **settings)
    assert caught.value.task_id == TASK
    assert KEY not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(("task_id", "signature"), VECTORS.items())
def test_known_signatures_are_reproduced(task_id, signature):
    """Signing and verifying agree with independently made signatures."""
    assert sign_callback(task_id, KEY, timestamp=SIGNED_AT) == GENUINE | {SIGNATURE: signature}
    verify(GENUINE | {SIGNATURE: signature}, body={"data": {"taskId": task_id}})


FORMS = {
    "upper case": {name.upper(): value for name, value in GENUINE.items()},
    "lower case": {name.lower(): value for name, value in GENUINE.items()},
    "bytes": {name.encode(): value.encode() for name, value in GENUINE.items()},
    "pairs": [*GENUINE.items()],
    "pairs of bytes, as in ASGI": [
        (name.lower().encode(), value.encode()) for name, value in GENUINE.items()
    ],
    "an iterator": iter([*GENUINE.items()]),
    "a multidict": CIMultiDict(GENUINE),
    "a view of one": CIMultiDictProxy(CIMultiDict(GENUINE)),
    "among others": {"Accept": "*/*", **GENUINE, "X-Other": 5, 7: "seven", b"\xff": b"\xff"},
}


@pytest.mark.parametrize("headers", FORMS.values(), ids=FORMS)
def test_headers_of_any_framework_are_read(headers):
    """Headers are any mapping or pairs, in any case, as str or bytes."""
    verify(headers)


@pytest.mark.parametrize("missing", [STAMP, SIGNATURE])
def test_a_missing_header_is_a_missing_signature(missing):
    """A callback without either header has no signature."""
    assert refusal({name: GENUINE[name] for name in GENUINE if name != missing}) == "is missing"
    assert refusal({}) == "is missing"


MALFORMED = {
    "a time with a fraction": {STAMP: "1769670760.5"},
    "a time with a sign": {STAMP: "-1769670760"},
    "a time in other digits": {STAMP: "١٧٦٩٦٧٠٧٦٠"},
    "a time that fills a page": {STAMP: "1" * 5000},
    "no time": {STAMP: ""},
    "a time that is not text": {STAMP: SIGNED_AT},
    "no signature": {SIGNATURE: ""},
    "a short signature": {SIGNATURE: "RzT9hcGcvO0="},
    "a hex signature": {SIGNATURE: "4734fd85c19cbced2f52571ae3e9137b" * 2},
    "a signature that is not ASCII": {SIGNATURE: "é" * 44},
    "bytes that are not ASCII": {SIGNATURE: b"\xff" * 44},
    "a signature without its padding": {SIGNATURE: GENUINE[SIGNATURE].rstrip("=")},
    "a signature in the alphabet of URLs": {SIGNATURE: GENUINE[SIGNATURE].replace("+", "-")},
    "a signature in a list": {SIGNATURE: [GENUINE[SIGNATURE]]},
    "a signature with blanks": {SIGNATURE: f" {GENUINE[SIGNATURE]}"},
}


@pytest.mark.parametrize("spoilt", MALFORMED.values(), ids=MALFORMED)
def test_malformed_headers_are_rejected(spoilt):
    """A value that is not Unix time, or not Base64 of 32 bytes, is malformed."""
    assert refusal(GENUINE | spoilt) == "is malformed"


@pytest.mark.parametrize("name", GENUINE)
def test_doubled_headers_are_malformed(name):
    """Two signatures or two timestamps are malformed, even if both are genuine."""
    assert refusal([*GENUINE.items(), (name.lower(), GENUINE[name])]) == "is malformed"


MISMATCHES = {
    "another key": ({}, {"keys": "another"}),
    "another time": ({STAMP: str(SIGNED_AT + 1)}, {}),
    "another signature": ({SIGNATURE: VECTORS["ee9c2715375b7837f8bb51d641ff5863"]}, {}),
    "a time with a zero in front": ({STAMP: f"0{SIGNED_AT}"}, {}),
    "a forged one that is old as well": ({}, {"keys": "another", "now": SIGNED_AT + 1e6}),
}


@pytest.mark.parametrize(("spoilt", "settings"), MISMATCHES.values(), ids=MISMATCHES)
def test_a_wrong_signature_does_not_match(spoilt, settings):
    """A signature by another key, or of other content, does not match, whatever its age."""
    assert refusal(GENUINE | spoilt, **settings) == "does not match"


def test_a_signature_of_another_task_does_not_match():
    """A signature is valid for one task only."""
    with pytest.raises(SignatureError, match="does not match"):
        verify(GENUINE, body={"data": {"taskId": "another"}})


@pytest.mark.parametrize("away", [-301, 301, -1e9])
def test_a_stale_signature_is_rejected(away):
    """A genuine signature outside the tolerance is stale."""
    assert refusal(GENUINE, now=SIGNED_AT + away) == "is stale"


@pytest.mark.parametrize("away", [-300, 300, 0.5])
def test_a_signature_within_the_tolerance_is_accepted(away):
    """Within the tolerance, which can be set, a signature is accepted."""
    verify(GENUINE, now=SIGNED_AT + away)
    verify(GENUINE, now=SIGNED_AT + 10 * away, tolerance=3000)


def test_the_clock_is_the_default_time():
    """Without a given time, signing and verifying use the clock."""
    headers = sign_callback(TASK, KEY)
    assert abs(int(headers[STAMP]) - time.time()) < 60
    verify_signature(headers, BODY, KEY)
    with pytest.raises(SignatureError, match="is stale"):
        verify_signature(GENUINE, BODY, KEY)


@pytest.mark.parametrize("keys", [[KEY], ("old", KEY), {KEY: 1, "new": 2}, iter(["é", "x", KEY])])
def test_any_of_several_keys_may_have_signed(keys):
    """While keys are being changed, any of them may have signed."""
    verify(GENUINE, keys=keys)


def test_a_key_is_encoded_as_utf8():
    """A key is used as UTF-8."""
    verify(sign_callback(TASK, "ключ", timestamp=SIGNED_AT), keys="ключ")


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ("", ValueError),
        ([], ValueError),
        (["secret", ""], ValueError),
        ("secret\n", ValueError),
        ("secret\r\n", ValueError),
        (["new", " secret"], ValueError),
        ("secret\t", ValueError),
        ("secret\u00a0", ValueError),
        ("\ufeffsecret", ValueError),
        ("secret\nnew", ValueError),
        ("secret\ud800", ValueError),
        (b"secret", TypeError),
        ([b"secret"], TypeError),
        (["secret", None], TypeError),
        (5, TypeError),
    ],
)
def test_invalid_keys_are_rejected_and_not_shown(keys, error):
    """Invalid keys are rejected, and not shown."""
    for use in (partial(verify, GENUINE), CallbackInbox):
        with pytest.raises(error, match=r"keys must") as caught:
            use(keys=keys)
        assert "secret" not in str(caught.value)


def test_no_keys_are_rejected():
    """An empty collection of keys is rejected, so that it does not accept everything."""
    with pytest.raises(TypeError, match="keys must"):
        verify(GENUINE, keys=None)


@pytest.mark.parametrize("headers", [None, 5, "text", ["secret"], [("a", "b", "secret")]])
def test_invalid_headers_are_rejected_and_not_shown(headers):
    """Headers of an unknown form raise `TypeError`, and are not shown."""
    with pytest.raises(TypeError, match="headers must be") as caught:
        verify(headers)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"tolerance": -1}, "tolerance"), ({"tolerance": None}, "tolerance"), ({"now": "x"}, "now")],
)
def test_invalid_numbers_are_named(settings, name):
    """A tolerance or a time that is not a number is rejected by name."""
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        verify(GENUINE, **settings)


def test_signing_rejects_invalid_arguments():
    """Signing rejects an invalid id, key or time."""
    with pytest.raises(InvalidTaskIdError):
        sign_callback("", KEY)
    with pytest.raises(TypeError, match="keys must be str"):
        sign_callback(TASK, b"key")
    with pytest.raises(ValueError, match=r"keys must be printable texts, .* without whitespace"):
        sign_callback(TASK, "key\n")
    with pytest.raises(TypeError, match="timestamp must be"):
        sign_callback(TASK, KEY, timestamp=0.5)


def test_a_body_without_an_id_cannot_be_verified():
    """The signature covers the id, so a body without one cannot be verified."""
    with pytest.raises(InvalidResponseError):
        verify(GENUINE, body=b"{}")


texts = st.text(st.characters(exclude_categories=[]), max_size=60)
values = texts | st.binary(max_size=60) | st.sampled_from([*GENUINE.values()])


@given(values, values)
@example(GENUINE[STAMP], "\ud800" * 44)
@example(GENUINE[STAMP], "=" * 44)
def test_any_headers_are_genuine_or_a_signature_error(stamp, signature):
    """Any headers are genuine, or raise `SignatureError`."""
    given_headers = {STAMP: stamp, SIGNATURE: signature}
    if [*map(_text, given_headers.values())] == [*GENUINE.values()]:
        verify(given_headers)
    else:
        assert refusal(given_headers) in {"is malformed", "does not match"}


def _text(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value


@given(st.dictionaries(values, values | st.none() | st.integers()))
def test_any_mapping_without_signatures_is_missing_one(headers):
    """Any mapping without the headers has a missing signature."""
    assert refusal(headers) == "is missing"
