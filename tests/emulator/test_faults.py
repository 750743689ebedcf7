import asyncio
import json
from email.utils import parsedate_to_datetime
from random import Random

import aiohttp
import pytest

from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault
from kie_cover_async.emulator.faults import FaultPlan, FaultRule

CREDIT = "/api/v1/chat/credit"
DOWNLOAD = "/api/v1/common/download-url"
GENERATE = "/api/v1/suno/cover/generate"
RECORD = "/api/v1/suno/cover/record-info"
KEY = {"Authorization": "Bearer a-key"}
IMPATIENT = aiohttp.ClientTimeout(total=0.05)


async def credit(caller, fault=None, **request):
    """Status, headers and body of an answer that `fault` happened to."""
    if fault is not None:
        caller.emulator.fault(fault)
    async with caller.session.get(caller.emulator.url + CREDIT, headers=KEY, **request) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_rate_limited_in_the_body(caller, recorded):
    """By default the refusal is an envelope in HTTP 200, as reported, without a Retry-After."""
    status, headers, body = await credit(caller, Fault.rate_limited())
    assert (status, json.loads(body)) == (200, recorded("rate-limited-reported"))
    assert "Retry-After" not in headers


@pytest.mark.parametrize("code", [405, 429, 430, 433, 499])
async def test_rate_limited_by_status(caller, code):
    """By status it is HTTP 429, with any of the codes in the envelope."""
    fault = Fault.rate_limited(in_body=False, code=code)
    status, _, body = await credit(caller, fault)
    assert (status, json.loads(body)["code"]) == (429, code)


async def test_retry_after_in_seconds(caller):
    """A Retry-After may be a number of seconds."""
    _, headers, _ = await credit(caller, Fault.rate_limited(retry_after=7))
    assert headers["Retry-After"] == "7"


async def test_retry_after_as_a_date(caller):
    """A Retry-After may be a date, that many seconds after the answer's own."""
    _, headers, _ = await credit(caller, Fault.rate_limited(retry_after=7, as_date=True))
    ahead = parsedate_to_datetime(headers["Retry-After"]) - parsedate_to_datetime(headers["Date"])
    assert ahead.total_seconds() == 7


async def test_server_error_in_the_envelope(caller, recorded):
    """A server error is an envelope in HTTP 200, as documented."""
    status, _, body = await credit(caller, Fault.server_error())
    assert (status, json.loads(body)) == (200, recorded("server-error-documented"))


async def test_server_error_by_status(caller):
    """A server error may be an HTTP status, with the same envelope."""
    status, _, body = await credit(caller, Fault.server_error(503, in_envelope=False))
    assert (status, json.loads(body)["code"]) == (503, 503)


async def test_a_server_error_may_have_no_body(caller):
    """A server error may be an HTTP status without a body."""
    fault = Fault.server_error(in_envelope=False, empty=True)
    status, headers, body = await credit(caller, fault)
    assert (status, body) == (500, b"")
    assert "Content-Encoding" not in headers


@pytest.mark.parametrize("status", [502, 504, 522])
async def test_a_gateway_page_is_html(caller, status):
    """A gateway answers in HTML."""
    seen, headers, body = await credit(caller, Fault.gateway_page(status))
    assert (seen, headers["Content-Type"]) == (status, "text/html; charset=UTF-8")
    assert f"<title>{status} ".encode() in body


@pytest.mark.parametrize(
    ("body", "sent"), [(b"\xff", b"\xff"), ("é", "é".encode()), ({"a": None}, b'{"a":null}')]
)
async def test_any_answer_can_be_given(caller, body, sent):
    """Bytes, str or any JSON may be answered, with any status and headers."""
    fault = Fault.answer(403, body, {"X-Odd": "1"})
    status, headers, received = await credit(caller, fault)
    assert (status, headers["X-Odd"], received) == (403, "1", sent)
    assert headers["Content-Type"] == "application/json;charset=UTF-8"


async def test_headers_of_any_other_answer(caller):
    """Given headers replace the usual ones, whatever their case."""
    fault = Fault.answer(200, "", {"content-type": "text/plain", "CF-RAY": "1-X"})
    _, headers, _ = await credit(caller, fault)
    assert headers.getall("Content-Type") == ["text/plain"]
    assert headers.getall("cf-ray") == ["1-X"]


async def test_reset_before_the_headers(caller):
    """A reset comes before any byte, so the client cannot know whether it was accepted."""
    caller.emulator.fault(Fault.reset())
    with pytest.raises(aiohttp.ClientOSError, match="reset"):
        await caller.post(DOWNLOAD, {})


async def test_reset_of_a_get_is_repeated_by_aiohttp(caller):
    """aiohttp itself repeats a GET once after a reset, and gives up after the second."""
    assert (await credit(caller, Fault.reset()))[0] == 200
    assert len(caller.emulator.requests) == 2
    caller.emulator.fault(Fault.reset(), count=2)
    with pytest.raises(aiohttp.ClientOSError, match="reset"):
        await credit(caller)


async def test_a_reset_midway_follows_the_headers(caller):
    """A reset midway comes after the headers."""
    caller.emulator.fault(Fault.reset(midway=True))
    async with caller.session.get(caller.emulator.url + CREDIT, headers=KEY) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_reset_is_a_tcp_reset(caller):
    """The connection ends with a TCP reset, after half the body, and not with a close."""
    caller.emulator.fault(Fault.reset(midway=True))
    port = int(caller.emulator.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {CREDIT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(21) == b'{"code":200,"msg":"su'
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_stall_sends_nothing(caller):
    """A stalled request gets nothing until the client leaves, and leaves nothing behind."""
    caller.emulator.fault(Fault.stall())
    with pytest.raises(TimeoutError):
        await credit(caller, timeout=IMPATIENT)
    await caller.eventually(lambda: caller.emulator.open_connections == 0)


async def test_a_stall_midway_sends_half_the_body(caller):
    """A stall midway comes after the headers and half of the body."""
    caller.emulator.fault(Fault.stall(midway=True))
    url = caller.emulator.url + CREDIT
    async with caller.session.get(url, headers=KEY, timeout=IMPATIENT) as answer:
        assert answer.status == 200
        with pytest.raises(TimeoutError):
            await answer.read()


async def test_a_slow_answer_is_late(caller):
    """A slow answer is the right one, late."""
    begin = asyncio.get_running_loop().time()
    status, _, _ = await credit(caller, Fault.slow(0.05))
    assert status == 200
    assert asyncio.get_running_loop().time() - begin >= 0.05


async def test_truncated_json_is_half_the_answer(caller):
    """Truncated JSON is its first half in a complete answer."""
    _, _, body = await credit(caller, Fault.truncated_json())
    assert body == b'{"code":200,"msg":"su'


@pytest.mark.parametrize("value", [7, "1", None, True, 0.5, [], {"a": 1}])
async def test_replace_changes_one_field(caller, value):
    """Any field may have any value; the others are unchanged."""
    task_id = caller.emulator.add_job()
    plain = await caller.record(task_id)
    caller.emulator.fault(Fault.replace("data.successFlag", value))
    expected = {**plain, "data": {**plain["data"], "successFlag": value}}
    assert await caller.record(task_id) == expected


@pytest.mark.parametrize(
    ("fault", "data"),
    [
        (Fault.replace("data", "x"), "x"),
        (Fault.replace("data.a.b", 1), {"a": {"b": 1}, "list": [1, {"x": 2}], "none": None}),
        (Fault.replace("data.none.b", 1), {"list": [1, {"x": 2}], "none": {"b": 1}}),
        (Fault.replace("data.list.0", None), {"list": [None, {"x": 2}], "none": None}),
        (Fault.replace("data.list.1.x", 3), {"list": [1, {"x": 3}], "none": None}),
        (Fault.replace("data.list.9", 3), {"list": [1, {"x": 2}, 3], "none": None}),
        (Fault.remove("data.list"), {"none": None}),
        (Fault.remove("data.list.0"), {"list": [{"x": 2}], "none": None}),
        (Fault.remove("data.list.1.x"), {"list": [1, {}], "none": None}),
        (Fault.remove("data.none.b"), {"list": [1, {"x": 2}], "none": None}),
        (Fault.remove("data.other.b"), {"list": [1, {"x": 2}], "none": None}),
    ],
)
def test_field_paths_lead_through_objects_and_lists(fault, data):
    """Missing parents are created by `replace` and ignored by `remove`."""
    answer = Fault.answer(body={"data": {"list": [1, {"x": 2}], "none": None}}).replacement
    assert json.loads(fault.apply_to(answer, 0.0).body) == {"data": data}


def test_removed_field_leaves_no_trace():
    """A removed field is absent, not null."""
    answer = Fault.answer(body={"code": 200, "msg": ""}).replacement
    assert Fault.remove("msg").apply_to(answer, 0.0).body == b'{"code":200}'


async def test_a_script_may_contain_a_fault(caller):
    """A status may be a fault, which changes the answer to that poll."""
    spoilt = ("success", Fault.replace("data.response.images", "none"))
    task_id = caller.emulator.add_job(CoverScript(statuses=["429", spoilt, "success"]))
    assert (await caller.record(task_id))["code"] == 429
    data = (await caller.record(task_id))["data"]
    assert (data["successFlag"], data["response"]["images"]) == (1, "none")
    assert len((await caller.record(task_id))["data"]["response"]["images"]) == 2
    names = [request.fault and request.fault.name for request in caller.emulator.requests]
    assert names == ["rate-limited", "replace", None]


async def test_lost_polls_do_not_use_up_statuses(caller):
    """A poll that a fault loses does not count in the script; one with a changed answer does."""
    task_id = caller.emulator.add_job(CoverScript(statuses=["missing", "pending", "success"]))
    caller.emulator.fault(Fault.server_error())
    caller.emulator.fault(Fault.replace("msg", "odd"))
    answers = [await caller.record(task_id) for _ in range(3)]
    assert answers[0]["code"] == 500
    assert answers[1] == {"code": 200, "msg": "odd", "data": None}
    assert answers[2]["data"]["successFlag"] == 0
    assert caller.emulator.poll_count(task_id) == 3


@pytest.mark.parametrize(
    "fault",
    [Fault.server_error(), Fault.gateway_page(), Fault.truncated_json(), Fault.slow(0.0)],
)
async def test_accepted_although_the_answer_is_lost(caller, fault):
    """A submit with a lost answer is accepted and paid for: the song then has a cover."""
    caller.emulator.fault(fault)
    async with caller.session.post(
        caller.emulator.url + GENERATE, json={"taskId": "song", "callBackUrl": "x"}, headers=KEY
    ) as answer:
        await answer.read()
    assert caller.emulator.credits == 5916.0
    assert (await caller.generate("song"))["code"] == 400


@pytest.mark.parametrize("midway", [False, True])
@pytest.mark.parametrize("accepted", [False, True])
async def test_reset_of_a_submit_may_accept_it(caller, midway, accepted):
    """A reset may come before or after the job was created; the next request shows which."""
    caller.emulator.fault(Fault.reset(midway=midway, accepted=accepted))
    with pytest.raises(aiohttp.ClientError):
        await caller.generate("song")
    assert (await caller.generate("song"))["code"] == (400 if accepted else 200)


async def test_a_stalled_submit_is_accepted(caller):
    """A stalled submit is accepted as well."""
    caller.emulator.fault(Fault.stall())
    body = {"taskId": "song", "callBackUrl": "x"}
    with pytest.raises(TimeoutError):
        await caller.session.post(
            caller.emulator.url + GENERATE, json=body, headers=KEY, timeout=IMPATIENT
        )
    assert (await caller.generate("song"))["code"] == 400


@pytest.mark.parametrize("fault", [Fault.rate_limited(), Fault.answer(body={"code": 455})])
async def test_a_rate_limited_submit_is_not_accepted(caller, fault):
    """A refused submit creates nothing, so repeating it is free."""
    caller.emulator.fault(fault)
    await caller.generate("song")
    assert caller.emulator.credits == 5916.25
    assert (await caller.generate("song"))["code"] == 200


async def test_faults_come_in_order(caller):
    """Several faults happen one after the other, each for its count."""
    caller.emulator.fault(Fault.server_error(), count=2)
    caller.emulator.fault(Fault.rate_limited())
    assert [(await caller.get(CREDIT))["code"] for _ in range(4)] == [500, 500, 429, 200]


async def test_faults_can_be_cleared(caller):
    """Cleared faults do not happen."""
    caller.emulator.fault(Fault.server_error(), rate=1.0)
    caller.emulator.clear_faults()
    assert (await caller.get(CREDIT))["code"] == 200


async def test_faults_without_an_endpoint_affect_any_path(caller):
    """Faults without an endpoint happen on any path."""
    caller.emulator.fault(Fault.server_error())
    assert (await caller.get("/elsewhere"))["code"] == 500


async def test_an_unknown_endpoint_is_rejected():
    """The error names the unknown endpoint and the existing ones."""
    with pytest.raises(ValueError, match="'records': record-info, generate"):
        CoverEmulator().fault(Fault.stall(), endpoint="records")


def plan(**settings):
    made = FaultPlan(Random(1))
    made.rules.append(FaultRule(fault=Fault.stall(), **settings))
    return made


def affected(made, *requests):
    return [made.choose(*request) is not None for request in requests]


@pytest.mark.parametrize("fault", [Fault.replace("data.url", 1), Fault.remove("data.url")])
def test_an_image_has_no_fields(fault):
    """A fault that changes one field cannot affect an image, and the error names the field."""
    with pytest.raises(ValueError, match=r"an image has no field 'data\.url' to change"):
        CoverEmulator().fault(fault, endpoint="image")


def test_a_fault_may_be_for_one_endpoint():
    """A fault of one endpoint does not affect the others."""
    requests = [("credit", None), ("generate", "a"), ("generate", "a")]
    assert affected(plan(endpoint="generate"), *requests) == [False, True, False]


def test_a_fault_may_be_for_one_id():
    """A fault of one id does not affect the others."""
    requests = [("record-info", "b"), ("record-info", "a"), ("record-info", "a")]
    assert affected(plan(task_id="a"), *requests) == [False, True, False]


def test_a_fault_affects_images_only_by_name():
    """A fault affects images only if it names their endpoint."""
    assert affected(plan(), ("image", "a"), ("credit", None)) == [False, True]
    assert affected(plan(endpoint="image"), ("credit", None), ("image", "a")) == [False, True]


def test_a_fault_may_skip_requests():
    """The first matching requests may be skipped; others do not count."""
    requests = [("credit", None), ("generate", "a"), ("credit", None), ("credit", None)]
    assert affected(plan(endpoint="credit", after=2), *requests) == [False, False, False, True]


def test_skipped_requests_may_have_other_faults():
    """A request with another fault counts as skipped."""
    made = plan()
    made.rules.append(FaultRule(fault=Fault.reset(), after=1))
    names = [fault.name for fault in (made.choose("credit", None) for _ in range(2)) if fault]
    assert names == ["stall", "reset"]


def test_a_rate_affects_that_share():
    """A rate affects about that share of all requests, determined by the seed alone."""
    requests = [("credit", None)] * 2000
    first = affected(plan(rate=0.05), *requests)
    assert first.count(True) == pytest.approx(100, abs=40)
    assert first == affected(plan(rate=0.05), *requests)


def test_a_count_bounds_a_rate():
    """A count bounds how many requests a rate affects."""
    assert affected(plan(rate=0.5, count=3), *[("credit", None)] * 100).count(True) == 3
