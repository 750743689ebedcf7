"""What the emulator answers on the Market route, over the jobs that the Suno route shows too."""

import json

import pytest

from kie_cover_async.callbacks import parse_callback
from kie_cover_async.emulator import CoverScript, Fault, Limits

RECORD = "/api/v1/jobs/recordInfo?taskId="
CREATE = "/api/v1/jobs/createTask"
MODEL = "ai-music-api/cover-generate"


def create(caller, song="song", **more):
    return caller.post(CREATE, {"model": MODEL, "input": {"task_id": song}, **more})


async def data_of(caller, script):
    task_id = caller.emulator.add_job(script)
    return (await caller.get(RECORD + task_id))["data"]


async def test_submit_answers_with_both_ids(caller):
    """The id has two names, and its job is on both routes."""
    answer = await create(caller)
    task_id = answer["data"]["taskId"]
    assert answer == {
        "code": 200,
        "msg": "success",
        "data": {"taskId": task_id, "recordId": task_id},
    }
    assert (await caller.record(task_id))["data"]["parentTaskId"] == "song"
    assert (await caller.get(RECORD + task_id))["data"]["taskId"] == task_id


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], 400),
        ({"input": {"task_id": "song"}}, 404),
        ({"model": "other", "input": {"task_id": "song"}}, 404),
        ({"model": MODEL}, 422),
        ({"model": MODEL, "input": "song"}, 422),
        ({"model": MODEL, "input": {"task_id": 7}}, 422),
        ({"model": MODEL, "input": {"task_id": "song"}, "callBackUrl": 7}, 422),
    ],
)
async def test_bad_submit_is_refused(caller, body, code):
    """Nothing is created for a wrong model or without a song."""
    assert (await caller.post(CREATE, body))["code"] == code
    assert caller.emulator.credits == 5916.25


async def test_second_cover_of_a_song_is_refused_on_either_route(caller):
    """The refusal is that of the Suno route: the Market's own was never recorded."""
    task_id = (await create(caller))["data"]["taskId"]
    for answer in (await create(caller), await caller.generate()):
        assert (answer["code"], answer["data"]) == (400, {"taskId": task_id})


async def test_unknown_and_fresh_ids_have_no_record(start):
    """Both have code 422, as have a scripted job's and a missing id."""
    caller = await start(visible_after=60)
    ids = [caller.emulator.add_job(), caller.emulator.add_job("missing"), "unknown", ""]
    for task_id in ids:
        answer = await caller.get(RECORD + task_id)
        assert answer == {"code": 422, "msg": "recordInfo is null", "data": None}


@pytest.mark.parametrize(("stage", "state"), [("pending", "waiting"), ("generating", "generating")])
async def test_unfinished_record_has_the_recorded_quirks(caller, recorded, stage, state):
    """`successFlag` is 0, `resultJson` an empty text, and the other results are null."""
    data = await data_of(caller, stage)
    assert [*data] == [*recorded("market-record-generating-2026-09-live-sister")["data"]]
    assert (data["state"], data["successFlag"], data["resultJson"]) == (state, 0, "")
    assert {data[name] for name in ("failCode", "failMsg", "costTime", "completeTime")} == {None}


async def test_request_is_json_within_json(caller):
    """`param` has the callback URL if there is one, and `input` is a text."""
    for more, url in (({}, None), ({"callBackUrl": "http://x"}, "http://x")):
        task_id = (await create(caller, f"song of {url}", **more))["data"]["taskId"]
        data = (await caller.get(RECORD + task_id))["data"]
        param = json.loads(data["param"])
        assert json.loads(param["input"]) == {"task_id": f"song of {url}"}
        assert param.get("callBackUrl") == url
        assert data["paramJson"] == data["param"]


async def test_success_has_its_images_twice(caller, recorded):
    """`response` is `resultJson`, parsed; `costTime` is in whole seconds."""
    task_id = caller.emulator.add_job(CoverScript(seconds=47.5), age=60)
    data = (await caller.get(RECORD + task_id))["data"]
    seen = recorded("market-record-suno-sounds-success-live-sister")["data"]
    assert {*data} < {*seen}
    assert (data["state"], data["successFlag"], data["status"]) == ("success", 1, "SUCCESS")
    assert json.loads(data["resultJson"]) == data["response"]
    assert len(data["response"]["resultUrls"]) == 2
    assert data["costTime"] == 47
    assert data["completeTime"] - data["createTime"] in (47500, 47499, 47501)
    assert data["creditsConsumed"] == 0.25


async def test_success_may_come_before_its_images(caller):
    """A bare success has an empty `resultJson` and no `response`."""
    data = await data_of(caller, "bare-success")
    assert (data["state"], data["resultJson"], data.get("response")) == ("success", "", None)


async def test_failure_has_code_and_message(caller):
    """A failed record has the script's code and message only."""
    script = CoverScript(statuses="failure", error_code="524", error_message="timeout.")
    data = await data_of(caller, script)
    assert (data["state"], data["failCode"], data["failMsg"]) == ("fail", "524", "timeout.")
    assert (data["resultJson"], data["costTime"], data["completeTime"]) == (None, None, None)


async def test_routes_share_their_limits(start):
    """Submits of both routes are counted together, and so are their polls."""
    caller = await start(limits=Limits(polls=(1, 60.0), submits=(1, 60.0)))
    task_id = (await caller.generate())["data"]["taskId"]
    assert (await create(caller, "another"))["code"] == 429
    assert (await caller.record(task_id))["code"] == 200
    assert (await caller.get(RECORD + task_id))["code"] == 429
    assert caller.emulator.poll_count(task_id) == 2


async def test_faults_of_polls_and_submits_are_of_both_routes(caller):
    """An endpoint `poll` or `submit` means either route's, and a submit's id is the song's."""
    task_id = caller.emulator.add_job()
    caller.emulator.fault(Fault.server_error(), endpoint="poll", count=2)
    caller.emulator.fault(Fault.rate_limited(), endpoint="submit", task_id="song", count=2)
    assert (await create(caller, "another"))["code"] == 200
    codes = [await caller.record(task_id), await caller.get(RECORD + task_id)]
    codes += [await caller.generate(), await create(caller), await create(caller)]
    assert [answer["code"] for answer in codes] == [500, 500, 429, 429, 200]
    assert [request.endpoint for request in caller.emulator.requests] == [
        "createTask",
        "record-info",
        "recordInfo",
        "generate",
        "createTask",
        "createTask",
    ]


@pytest.mark.parametrize(
    ("end", "reply"),
    [
        ("success", "market-callback-success-documented"),
        ("failure", "market-callback-failure-documented"),
    ],
)
async def test_callback_has_the_body_of_the_submits_route(caller, receiver, recorded, end, reply):
    """A job that was submitted here is called back in the Market's words, and can be read."""
    caller.emulator.script_song("song", CoverScript(seconds=0, end=end))
    task_id = (await create(caller, callBackUrl=receiver.url))["data"]["taskId"]
    await caller.eventually(lambda: receiver.bodies)
    [body] = receiver.bodies
    documented = recorded(reply)
    assert (body["code"], body["msg"]) == (documented["code"], documented["msg"])
    assert {*body["data"]} <= {*documented["data"]}
    callback = parse_callback(body)
    assert callback.task_id == task_id
    record = (await caller.record(task_id))["data"]["response"]
    assert callback.images == (tuple(record["images"]) if record else None)


async def test_submit_without_a_callback_url_gets_no_callback(caller, receiver):
    """The URL is optional on this route."""
    caller.emulator.script_song("song", CoverScript(seconds=0))
    await create(caller)
    await create(caller, "another", callBackUrl="")
    await caller.record("unknown")
    assert receiver.bodies == caller.emulator.callbacks == []
