"""The emulator's limits: what it takes, what it refuses and how, and what it counts."""

import asyncio
import json
import signal
import sys
from contextlib import suppress

import pytest
from aiohttp import ClientSession

from kie_cover_async.emulator import CoverEmulator, Fault, Limits
from kie_cover_async.emulator.service import SlidingWindow

KEY = {"Authorization": "Bearer a-key"}
GENERATE = "/api/v1/suno/cover/generate"
CREDIT = "/api/v1/chat/credit"
DOWNLOAD = "/api/v1/common/download-url"
CODE = 429
# Long enough that no request of a test comes after it.
FEW = Limits(polls=(3, 1000.0), submits=(2, 1000.0))


def taken(limit, *times):
    """Return for each time whether a request was taken, and how many were refused."""
    window = SlidingWindow(limit)
    return [window.take(time) for time in times], window.refusals


async def codes(calls):
    return [(await call)["code"] for call in calls]


def test_the_default_limits_are_the_vendors():
    """The service takes ten polls in any second, and twenty submits in any ten."""
    limits = Limits()
    assert taken(limits.polls, *[n / 20 for n in range(11)]) == ([True] * 10 + [False], 1)
    assert taken(limits.submits, *[n / 3 for n in range(21)]) == ([True] * 20 + [False], 1)


def test_a_window_slides():
    """A request counts until its seconds are over, and not until the next whole second."""
    times = [0.5, 0.75, 1.0, 1.25, 1.49, 1.5, 1.625, 1.74, 1.75, 2.0, 2.49, 2.5]
    expected = [time in (0.5, 0.75, 1.5, 1.75, 2.5) for time in times]
    assert taken((2, 1.0), *times) == (expected, expected.count(False))


def test_a_refused_request_does_not_count():
    """However often a request is refused, the next one is taken when the window allows it."""
    times = [n / 8 for n in range(17)]
    expected = [time in (0.0, 1.0, 2.0) for time in times]
    assert taken((1, 1.0), *times) == (expected, expected.count(False))


async def test_requests_other_than_submits_count_as_polls(start):
    """Status checks, credits and links share a window; submits have another one."""
    caller = await start(limits=Limits(polls=(3, 1000.0), submits=(1, 1000.0)))
    url = {"url": "https://elsewhere.example/s/x.png"}
    polls = [caller.record("an-id"), caller.get(CREDIT), caller.post(DOWNLOAD, url)]
    refused = [caller.get(CREDIT), caller.record("an-id")]
    codes_of_polls = await codes([*polls, *refused])
    assert [code == CODE for code in codes_of_polls] == [False, False, False, True, True]
    codes_of_submits = await codes([caller.generate("one"), caller.generate("two")])
    assert [code == CODE for code in codes_of_submits] == [False, True]
    assert caller.emulator.refusals == {"polls": 2, "submits": 1}


@pytest.mark.parametrize("limits", [None, Limits(polls=None, submits=None)])
def test_without_limits_every_request_is_taken(limits):
    """All requests are taken, which is the default."""
    emulator = CoverEmulator(limits=limits)
    for window in emulator._service.windows.values():
        assert all(window.take(0.0) for _ in range(1000))
    assert emulator.refusals == {"polls": 0, "submits": 0}


async def test_refusals_are_as_reported(start, recorded):
    """A refusal is as reported by the vendor's clients, for each kind of request separately."""
    caller = await start(limits=FEW)
    task_id = caller.emulator.add_job("success")
    polls = [caller.record(task_id), caller.get(CREDIT), caller.post(DOWNLOAD, {"url": "x"})]
    assert await codes(polls) == [200, 200, 422]
    refusal = recorded("rate-limited-reported")
    for again in (caller.record(task_id), caller.get(CREDIT), caller.post(DOWNLOAD, {})):
        assert await again == refusal
    assert await codes([caller.generate("one"), caller.generate("two")]) == [200, 200]
    balance = caller.emulator.credits
    assert await caller.generate("three") == refusal
    assert caller.emulator.credits == balance
    assert caller.emulator.refusals == {"polls": 3, "submits": 1}
    assert len(caller.emulator.requests) == 9
    assert caller.emulator.poll_count(task_id) == 2


async def test_a_refusal_is_http_200_without_retry_after(start):
    """A refusal is HTTP 200 with the code in the envelope, without a Retry-After."""
    caller = await start(limits=Limits(polls=(1, 1000.0)))
    await caller.get(CREDIT)
    async with caller.session.get(caller.emulator.url + CREDIT, headers=KEY) as answer:
        assert answer.status == 200
        assert "Retry-After" not in answer.headers


async def test_a_refused_poll_uses_up_no_status(start):
    """After a refused poll, the next one gets the status that would have come."""
    caller = await start(limits=Limits(polls=(1, 0.2)))
    task_id = caller.emulator.add_job("generating, success")
    flags = []
    while len(flags) < 2:
        answer = await caller.record(task_id)
        if answer["code"] == 200:
            flags.append(answer["data"]["successFlag"])
        await asyncio.sleep(0.01)
    assert flags == [2, 1]
    assert caller.emulator.poll_count(task_id) == 2 + caller.emulator.refusals["polls"]


async def test_wrong_keys_images_and_lost_requests_do_not_count(start):
    """Wrong keys, unknown paths, images and lost requests do not count."""
    caller = await start(limits=Limits(polls=(1, 1000.0)), api_key="a-key", price=0)
    emulator, session = caller.emulator, caller.session
    [image, *_] = emulator._service.publish(emulator._service.jobs[emulator.add_job("success")])
    emulator.fault(Fault.gateway_page(), count=3)
    for _ in range(3):
        async with session.get(emulator.url + CREDIT, headers=KEY) as answer:
            assert answer.status == 502
    for _ in range(3):
        async with session.get(emulator.url + CREDIT) as answer:
            assert (await answer.json())["code"] == 401
        async with session.get(emulator.url + "/elsewhere", headers=KEY) as answer:
            assert answer.status == 404
        async with session.get(image) as answer:
            assert answer.status == 200
    assert await codes([caller.get(CREDIT), caller.get(CREDIT)]) == [200, CODE]
    assert emulator.refusals == {"polls": 1, "submits": 0}


async def test_a_refusal_may_have_a_fault(start):
    """A fault that changes an answer changes a refusal, which is counted once."""
    caller = await start(limits=Limits(polls=(1, 1000.0)))
    await caller.get(CREDIT)
    caller.emulator.fault(Fault.replace("msg", "later"))
    assert await caller.get(CREDIT) == {"code": CODE, "msg": "later", "data": None}
    assert caller.emulator.refusals["polls"] == 1


async def test_the_command_has_limits():
    """`kie-cover emulator --limits` has the vendor's limits; without it there are none."""
    for options, refused in ([], 0), (["--limits"], 5):
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "kie_cover_async.cli", "emulator", "--json", *options],
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            url = json.loads(await process.stdout.readline())["url"]
            async with ClientSession(url, headers=KEY) as session:
                answers = []
                for number in range(25):
                    song = {"taskId": f"song-{number}", "callBackUrl": "http://192.0.2.1/"}
                    async with session.post(GENERATE, json=song) as answer:
                        answers.append((await answer.json())["code"])
            assert answers.count(CODE) == refused
            process.send_signal(signal.SIGINT)
            await process.wait()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def test_limits_outlive_a_restart(start):
    """After a restart the windows and counts continue."""
    caller = await start(limits=Limits(polls=(1, 1000.0)))
    assert (await caller.get(CREDIT))["code"] == 200
    await caller.emulator.aclose()
    await caller.emulator.start()
    assert (await caller.get(CREDIT))["code"] == CODE
