"""Callbacks as a receiver gets them, over real sockets."""

import asyncio
import logging

import pytest

from kie_cover_async.emulator import CallbackPlan, CoverEmulator, CoverScript, Fault
from kie_cover_async.emulator.callbacks import compose
from kie_cover_async.emulator.jobs import Instant, Job

AT_ONCE = CoverScript(seconds=0)
FAILED_AT_ONCE = CoverScript(seconds=0, end="failure")


def now():
    return asyncio.get_running_loop().time()


async def sent(caller, number):
    """The tries, once there are so many."""
    await caller.eventually(lambda: len(caller.emulator.callbacks) >= number)
    return caller.emulator.callbacks


@pytest.fixture
def talk(caplog):
    caplog.set_level(logging.INFO, "kie_cover_async.emulator")
    return caplog


async def test_a_success_has_the_images_of_its_record(caller, receiver):
    """The callback of a success has the images of its record, and they exist."""
    task_id = caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    await sent(caller, 1)
    images = (await caller.record(task_id))["data"]["response"]["images"]
    assert receiver.bodies == [
        {"code": 200, "msg": "success", "data": {"taskId": task_id, "images": images}}
    ]
    async with caller.session.get(images[0]) as answer:
        assert answer.content_type == "image/png"
    _, request, _ = receiver.heard[0]
    assert (request.method, request.content_type) == ("POST", "application/json")


async def test_the_images_exist_before_the_first_poll(caller, receiver):
    """The images in a callback exist before the record has been polled."""
    caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    await sent(caller, 1)
    async with caller.session.get(receiver.bodies[0]["data"]["images"][1]) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("script", "code", "msg"),
    [
        (FAILED_AT_ONCE, 501, "Cover generation failed"),
        (CoverScript(seconds=0, end="failure", error_code=531, error_message="x"), 531, "x"),
        (
            CoverScript(seconds=0, end="failure", error_code="E1", error_message=None),
            501,
            "Cover generation failed",
        ),
    ],
    ids=["as documented", "of the script", "not for callbacks"],
)
async def test_a_failure_has_a_code_and_no_images(caller, receiver, script, code, msg):
    """The callback of a failure has its code, always a number, and no images."""
    task_id = caller.emulator.add_job(script, callback_url=receiver.url)
    await sent(caller, 1)
    data = {"taskId": task_id, "images": None}
    assert receiver.bodies == [{"code": code, "msg": msg, "data": data}]


@pytest.mark.parametrize(
    ("task_id", "signature"),
    [
        ("21aee3c3c2a01fa5e030b3799fa4dd56", "RzT9hcGcvO0vUlca4+kTewzkO4SN6LV6WW4Fs0WxBlM="),
        ("ee9c2715375b7837f8bb51d641ff5863", "xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb4="),
    ],
)
def test_the_signature_is_the_vendors(task_id, signature):
    """The signatures are those of the vendor's own implementation."""
    job = Job(
        task_id=task_id,
        music_task_id="a-song",
        script=AT_ONCE,
        seconds=0,
        visible_after=0,
        created=Instant(0, 0),
    )
    _, headers = compose(job, "genuine", lambda job: [], "test-webhook-hmac-key", 1769670760.9)
    assert headers["X-Webhook-Timestamp"] == "1769670760"
    assert headers["X-Webhook-Signature"] == signature


async def test_callbacks_are_signed_by_the_servers_clock(start, receiver):
    """The timestamp is that of the emulated server, whose clock may be wrong."""
    caller = await start(callback_key="a-key", clock_offset=-86_400)
    caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    await sent(caller, 1)
    record = caller.emulator.add_job(AT_ONCE)
    created = (await caller.record(record))["data"]["createTime"] / 1000
    _, request, _ = receiver.heard[0]
    assert float(request.headers["X-Webhook-Timestamp"]) == pytest.approx(created, abs=5)


async def test_without_a_key_there_is_no_signature(caller, receiver):
    """Without a key there is no signature."""
    caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    await sent(caller, 1)
    assert not [name for name in receiver.heard[0][1].headers if name.startswith("X-Webhook")]


async def test_the_key_is_not_shown(start, receiver):
    """The key is in no repr and in nothing that is sent."""
    caller = await start(callback_key="an-open-secret")
    caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    (callback,) = await sent(caller, 1)
    everything = (caller.emulator, caller.emulator._callbacks, callback, callback.headers)
    assert "an-open-secret" not in "".join(map(repr, everything))


async def test_a_submitted_job_has_a_callback(start, receiver, instant_time):
    """A submitted job's callback comes when it ends, and its record agrees."""
    caller = await start(generation_time=60)
    begin = now()
    task_id = (await caller.generate("song", callback=receiver.url))["data"]["taskId"]
    await asyncio.sleep(59)
    assert receiver.heard == []
    await asyncio.sleep(1000)
    assert receiver.times == pytest.approx([begin + 60], abs=0.01)
    assert receiver.bodies[0]["data"]["taskId"] == task_id
    assert (await caller.record(task_id))["data"]["successFlag"] == 1


async def test_only_accepted_jobs_have_callbacks(start, receiver, instant_time):
    """A refused submit has no callback; an accepted one has, even if its answer was lost."""
    caller = await start(generation_time=1, unknown_songs=["no-song"])
    await caller.generate("no-song", callback=receiver.url)
    caller.emulator.fault(Fault.server_error(accepted=False), endpoint="generate")
    await caller.generate("a-song", callback=receiver.url)
    caller.emulator.fault(Fault.server_error(accepted=True), endpoint="generate")
    await caller.generate("a-song", callback=receiver.url)
    await asyncio.sleep(100)
    assert len(receiver.heard) == 1


async def test_a_job_without_end_or_url_has_no_callback(caller, receiver, instant_time):
    """A job that never ends has no callback, and neither has one without a URL."""
    caller.emulator.add_job(CoverScript(end="never", seconds=0), callback_url=receiver.url)
    caller.emulator.add_job(AT_ONCE)
    await asyncio.sleep(100)
    assert receiver.heard == []


async def test_an_old_job_has_its_callback_immediately(caller, receiver):
    """The callback of a job that has already ended is sent immediately."""
    caller.emulator.add_job(CoverScript(seconds=60), age=3600, callback_url=receiver.url)
    await sent(caller, 1)


async def test_callbacks_due_before_the_start_are_sent_then(receiver):
    """Callbacks that are due before the emulator starts are sent when it starts."""
    emulator = CoverEmulator()
    emulator.add_job(AT_ONCE, callback_url=receiver.url)
    async with emulator:
        await asyncio.wait_for(eventually(lambda: emulator.callbacks), 10)


async def eventually(condition):
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


async def test_a_scripted_job_has_its_callback_at_the_last_status(caller, receiver, instant_time):
    """With scripted statuses the callback is sent once, when the last one was polled."""
    statuses = "missing, generating, bare-success, failure, success"
    task_id = caller.emulator.add_job(statuses, callback_url=receiver.url)
    for _ in range(3):
        await caller.record(task_id)
        await asyncio.sleep(100)
    assert receiver.heard == []
    for _ in range(3):
        await caller.record(task_id)
        await asyncio.sleep(100)
    assert receiver.bodies == [
        {
            "code": 501,
            "msg": "Cover generation failed",
            "data": {"taskId": task_id, "images": None},
        }
    ]


async def test_seconds_decide_the_callback_of_a_scripted_job(caller, receiver, instant_time):
    """With statuses and `seconds` the callback is sent by time, whatever the statuses."""
    script = CoverScript(statuses="generating, generating, success", seconds=5)
    begin = now()
    task_id = caller.emulator.add_job(script, callback_url=receiver.url)
    await asyncio.sleep(100)
    assert receiver.times == pytest.approx([begin + 5], abs=0.01)
    flags = [(await caller.record(task_id))["data"]["successFlag"] for _ in range(3)]
    assert flags == [2, 2, 1]
    images = (await caller.record(task_id))["data"]["response"]["images"]
    assert receiver.bodies[0]["data"]["images"] == images
    assert len(receiver.heard) == 1


async def test_a_record_may_lag_behind_its_callback(caller, receiver, instant_time):
    """With statuses that never end, `seconds` still sends the callback."""
    script = CoverScript(statuses="generating", seconds=5)
    task_id = caller.emulator.add_job(script, callback_url=receiver.url)
    await asyncio.sleep(1000)
    assert receiver.bodies[0]["code"] == 200
    assert (await caller.record(task_id))["data"]["successFlag"] == 2


async def test_failed_attempts_are_repeated(start, receiver, instant_time):
    """A callback that is not answered with 200 is sent again, newly signed, until it is."""
    caller = await start(callback_key="a-key", callbacks=CallbackPlan(retry_interval=30))
    receiver.answers = [500, 204]
    task_id = caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    begin = now()
    await asyncio.sleep(1000)
    callbacks = caller.emulator.callbacks
    assert [(each.attempt, each.status, each.error) for each in callbacks] == [
        (1, 500, None),
        (2, 204, None),
        (3, 200, None),
    ]
    assert receiver.times == pytest.approx([begin, begin + 30, begin + 60], abs=0.01)
    assert [each.sent for each in callbacks] == pytest.approx(receiver.times, abs=0.01)
    assert {each.task_id for each in callbacks} == {task_id}
    stamps = [int(request.headers["X-Webhook-Timestamp"]) for _, request, _ in receiver.heard]
    assert stamps[2] - stamps[0] == pytest.approx(60, abs=1)


async def test_three_failed_attempts_are_the_limit(caller, receiver, instant_time, talk):
    """After three failed attempts the emulator gives up, and logs it without the URL's path."""
    receiver.answers = [500] * 9
    task_id = caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    await asyncio.sleep(1000)
    assert len(receiver.heard) == 3
    (message,) = talk.messages
    assert message == (
        f"gave up the callback for {task_id}: attempts at 127.0.0.1 failed 3 times, "
        "the last by HTTP 500"
    )


async def test_max_attempts_can_be_set(start, receiver, instant_time):
    """The plan sets the number of attempts."""
    caller = await start(callbacks=CallbackPlan(max_attempts=5))
    receiver.answers = [500] * 9
    caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    await asyncio.sleep(1000)
    assert len(receiver.heard) == 5


async def test_a_receiver_has_15_seconds(caller, receiver, instant_time):
    """A receiver has fifteen seconds for its answer; then the connection is closed."""
    receiver.answers = [0]
    begin = now()
    caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    await asyncio.sleep(1000)
    first, second = caller.emulator.callbacks
    assert (first.status, first.error) == (None, "no answer within 15 s")
    assert second.status == 200
    # aiohttp rounds a timeout of more than five seconds up to a whole one.
    assert begin + 16 <= second.sent <= begin + 17.01
    assert receiver.waiting == 0


async def test_a_refused_connection_is_recorded(caller, instant_time):
    """If no server listens, the error says so."""
    caller.emulator.add_job(AT_ONCE, callback_url="http://127.0.0.1:1/covers")
    await asyncio.sleep(1000)
    callbacks = caller.emulator.callbacks
    assert all(each.error.startswith("ClientConnectorError: ") for each in callbacks)
    assert [each.status for each in callbacks] == [None] * 3


async def test_redirects_are_not_followed(caller, receiver, instant_time):
    """A redirect is an answer other than 200."""
    receiver.answers = [302, 307, 308]
    caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    await asyncio.sleep(100)
    assert [each.status for each in caller.emulator.callbacks] == [302, 307, 308]


async def test_a_forged_callback_has_a_correct_signature(start, receiver, instant_time):
    """A forged callback is signed correctly, has other images, and may come early."""
    plan = CallbackPlan(forged=1.0)
    caller = await start(callback_key="a-key", callbacks=plan, generation_time=100)
    jobs = [caller.emulator.add_job(callback_url=receiver.url) for _ in range(30)]
    begin = now()
    await asyncio.sleep(1000)
    callbacks = caller.emulator.callbacks
    forged = [each for each in callbacks if each.kind == "forged"]
    assert [each for each in forged if b"forged.example" not in each.body] == []
    assert {each.task_id for each in forged} == set(jobs)
    assert all("X-Webhook-Signature" in each.headers for each in forged)
    assert min(each.sent for each in forged) < begin + 50
    genuine = [each for each in callbacks if each.kind == "genuine"]
    assert [each for each in genuine if b"forged.example" in each.body] == []
    assert 10 < len(genuine) < 30


async def test_a_forged_callback_does_not_end_a_job(start, receiver, instant_time):
    """A forged callback does not change its job."""
    caller = await start(callbacks=CallbackPlan(forged=1.0), generation_time=100, seed="early")
    jobs = [caller.emulator.add_job(callback_url=receiver.url) for _ in range(30)]
    await asyncio.sleep(99)
    callbacks = caller.emulator.callbacks
    assert callbacks[0].kind == "forged"
    flags = {(await caller.record(job))["data"]["successFlag"] for job in jobs}
    assert flags == {2}


async def test_a_wrong_signature_is_well_formed(start, receiver):
    """A wrong signature looks like a correct one."""
    caller = await start(callback_key="a-key", callbacks=CallbackPlan(wrong_signature=1.0))
    task_id = caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    (callback,) = await sent(caller, 1)
    assert callback.kind == "wrong-signature"
    stamp = float(callback.headers["X-Webhook-Timestamp"])
    job = caller.emulator._service.jobs[task_id]
    _, right = compose(job, "genuine", lambda job: [], "a-key", stamp)
    assert right["X-Webhook-Timestamp"] == callback.headers["X-Webhook-Timestamp"]
    assert right["X-Webhook-Signature"] != callback.headers["X-Webhook-Signature"]
    assert len(right["X-Webhook-Signature"]) == len(callback.headers["X-Webhook-Signature"])


async def test_a_repeated_callback_has_the_same_content(start, receiver):
    """A repeated callback has the same content."""
    caller = await start(callbacks=CallbackPlan(duplicated=1.0, duplicate_after=0))
    caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    callbacks = await sent(caller, 2)
    assert {each.kind for each in callbacks} == {"genuine", "repeated"}
    assert receiver.bodies[0] == receiver.bodies[1]


async def test_the_order_of_requests_changes_nothing(start, receiver, instant_time):
    """A song's callbacks depend only on the seed and the song."""
    plan = CallbackPlan(delay=(0, 9), lost=0.3, duplicated=0.3, forged=0.3, wrong_signature=0.3)
    seen = []
    for songs in (range(40), reversed(range(40))):
        caller = await start(callbacks=plan, seed=7, generation_time=(5, 50))
        begin = now()
        for song in songs:
            caller.emulator.add_job(music_task_id=f"song-{song}", callback_url=receiver.url)
        await asyncio.sleep(100)
        seen.append(
            {(c.task_id, c.kind, round(c.sent - begin, 2)) for c in caller.emulator.callbacks}
        )
    assert seen[0] == seen[1]
    assert len(seen[0]) > 30


@pytest.mark.parametrize(
    "url",
    [
        "http://x/covers",
        "https://example.com/covers",
        "http://10.0.0.1/covers",
        "http://0.0.0.0/covers",
        "http://localhost.example.com/covers",
        "http://127.0.0.1@example.com/covers",
        "no URL",
        "http://[",
    ],
)
async def test_remote_callbacks_are_dropped(caller, url, talk, instant_time):
    """Callbacks to other machines are dropped, which is logged once for each host."""
    for _ in range(3):
        caller.emulator.add_job(AT_ONCE, callback_url=url)
        caller.emulator.add_job("success", callback_url=url)
    await asyncio.sleep(100)
    assert caller.emulator.callbacks == []
    (message,) = talk.messages
    assert message.endswith("are dropped: the emulator posts to loopback only")


async def test_remote_callbacks_can_be_allowed(start, receiver):
    """With `allow_remote`, the emulator posts to any host."""
    caller = await start(callbacks=CallbackPlan(allow_remote=True))
    elsewhere = receiver.url.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 - which leads here, too
    caller.emulator.add_job(AT_ONCE, callback_url=elsewhere)
    (callback,) = await sent(caller, 1)
    assert callback.status == 200


async def test_an_invalid_url_is_a_failed_attempt(start, instant_time):
    """A str that is not a URL is a failed attempt."""
    caller = await start(callbacks=CallbackPlan(allow_remote=True))
    caller.emulator.add_job(AT_ONCE, callback_url="no URL")
    await asyncio.sleep(1000)
    callbacks = caller.emulator.callbacks
    assert callbacks[0].error.startswith("InvalidUrl")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
async def test_all_loopback_names_are_reached(start, receiver, host):
    """Loopback has several names, and the emulator posts to each."""
    caller = await start(callbacks=CallbackPlan(max_attempts=1))
    url = receiver.url.replace("127.0.0.1", host)
    caller.emulator.add_job(AT_ONCE, callback_url=url)
    (callback,) = await sent(caller, 1)
    assert callback.url == url


async def test_sent_callbacks_need_not_be_kept(start, receiver):
    """With `keep_requests=False`, sent callbacks are not recorded."""
    caller = await start(keep_requests=False)
    caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    await caller.eventually(lambda: not caller.emulator._callbacks._timers)
    assert len(receiver.heard) == 1
    assert caller.emulator.callbacks == []


async def test_closing_ends_callbacks(caller, receiver, instant_time):
    """Closing waits neither for answers nor for pending callbacks, and leaves no task."""
    tasks = asyncio.all_tasks()
    receiver.answers = [0] * 5
    for _ in range(5):
        caller.emulator.add_job(AT_ONCE, callback_url=receiver.url)
    caller.emulator.add_job(CoverScript(seconds=5), callback_url=receiver.url)
    await caller.eventually(lambda: receiver.waiting == 5)
    begin = now()
    await caller.emulator.aclose()
    assert now() == begin
    left = asyncio.all_tasks() - tasks
    assert not [task for task in left if "emulator" in repr(task)]
    await asyncio.sleep(100)
    assert len(receiver.heard) == 5


async def test_a_restart_repeats_cut_off_attempts(start, receiver, instant_time):
    """After a restart, attempts that were cut off or became due are made."""
    caller = await start(callbacks=CallbackPlan(max_attempts=1))
    receiver.answers = [200, 0]
    done, cut_off, due, later = (
        caller.emulator.add_job(CoverScript(seconds=seconds), callback_url=receiver.url)
        for seconds in (1, 2, 5, 60)
    )
    begin = now()
    await asyncio.sleep(3)
    await caller.emulator.aclose()
    assert [each.task_id for each in caller.emulator.callbacks] == [done]
    await asyncio.sleep(17)
    await caller.emulator.start()
    await asyncio.sleep(100)
    sent = [(each.task_id, round(each.sent - begin)) for each in caller.emulator.callbacks]
    assert sorted(sent) == sorted([(done, 1), (cut_off, 20), (due, 20), (later, 60)])


async def test_a_thousand_callbacks_share_100_connections(caller, receiver):
    """A thousand simultaneous callbacks use a bounded number of connections."""
    jobs = {caller.emulator.add_job(AT_ONCE, callback_url=receiver.url) for _ in range(1000)}
    await sent(caller, 1000)
    assert {body["data"]["taskId"] for body in receiver.bodies} == jobs
    assert len(receiver.heard) == 1000
    assert receiver.most_at_once <= 100
