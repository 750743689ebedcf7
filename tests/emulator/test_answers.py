import asyncio
import json
import re
import time
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from kie_cover_async.emulator import CoverScript

RECORD = "/api/v1/suno/cover/record-info"
CREDIT = "/api/v1/chat/credit"
DOWNLOAD = "/api/v1/common/download-url"
KEY = {"Authorization": "Bearer a-key"}


async def test_an_unknown_id_has_no_data(caller, recorded):
    """An unknown id is answered with success and no data, as recorded."""
    assert await caller.record("unknown") == recorded("record-unknown-id-live")


async def test_success_has_the_recorded_shape(caller, recorded):
    """A finished cover has the fields of the recorded one, in order and with their types."""
    task_id = caller.emulator.add_job(CoverScript(seconds=1), age=2)
    data, known = (await caller.record(task_id))["data"], recorded("record-success-live")["data"]
    assert [(name, type(data[name])) for name in data] == [
        (name, type(known[name])) for name in known
    ]
    assert (data["taskId"], data["successFlag"]) == (task_id, 1)


async def test_success_times_are_milliseconds_of_the_wall_clock(caller):
    """A job's creation and end are in epoch milliseconds."""
    before = time.time()
    task_id = caller.emulator.add_job(CoverScript(seconds=7), age=10)
    data = (await caller.record(task_id))["data"]
    assert before - 10 - 0.01 <= data["createTime"] / 1000 <= time.time() - 10
    assert data["completeTime"] - data["createTime"] in (6999, 7000, 7001)


async def test_a_generating_cover_has_flag_2(caller):
    """A cover that is being generated has flag 2, no response and no error."""
    task_id = caller.emulator.add_job(CoverScript(seconds=60), music_task_id="song")
    data = (await caller.record(task_id))["data"]
    assert data.pop("createTime") > 0
    assert data == {
        "taskId": task_id,
        "parentTaskId": "song",
        "completeTime": None,
        "response": None,
        "successFlag": 2,
        "errorCode": None,
        "errorMessage": None,
    }


async def test_a_failed_cover_has_flag_3(caller):
    """A failed cover has flag 3, a code, a message and no response."""
    script = CoverScript(seconds=1, end="failure", error_code=531, error_message="No luck")
    data = (await caller.record(caller.emulator.add_job(script, age=2)))["data"]
    assert (data["successFlag"], data["errorCode"], data["errorMessage"]) == (3, 531, "No luck")
    assert data["response"] is None


async def test_a_missing_id_is_a_validation_error(caller):
    """A poll without an id is a validation error."""
    assert (await caller.get(RECORD))["code"] == 422


@pytest.mark.parametrize(
    ("setting", "header"),
    [
        (None, None),
        (None, "Bearer "),
        (None, "Basic a-key"),
        ("right", "Bearer wrong"),
    ],
)
async def test_wrong_keys_are_refused(start, recorded, setting, header):
    """A missing, empty or wrong key is refused in an envelope without data, as recorded."""
    caller = await start(api_key=setting)
    headers = {} if header is None else {"Authorization": header}
    async with caller.session.get(caller.emulator.url + CREDIT, headers=headers) as answer:
        assert answer.status == 200
        assert await answer.json() == recorded("unauthorised-live-sister")


async def test_the_right_key_is_accepted(start):
    """The configured key is accepted."""
    caller = await start(api_key="a-key")
    assert (await caller.get(CREDIT))["code"] == 200


async def test_credits_are_a_bare_number(caller, recorded):
    """The balance is a bare number with decimals, as recorded."""
    assert await caller.get(CREDIT) == recorded("credits-live")


async def test_a_download_url_serves_the_same_image(caller):
    """An image of this emulator gets a fresh link, which serves the same bytes."""
    data = (await caller.record(caller.emulator.add_job(age=10)))["data"]
    [image, _] = data["response"]["images"]
    link = (await caller.post(DOWNLOAD, {"url": image}))["data"]
    async with caller.session.get(image) as plain, caller.session.get(link) as fresh:
        assert link != image
        assert await fresh.read() == await plain.read()


@pytest.mark.parametrize("url", ["http://127.0.0.1/s/1_a.png", "/s/1_a.png", None])
async def test_a_foreign_url_is_refused(caller, recorded, url):
    """A URL of another host is wrong, as recorded."""
    assert await caller.post(DOWNLOAD, {"url": url}) == recorded("download-url-foreign-live")


async def test_a_known_path_on_another_host_is_refused(caller):
    """The path of a real image on another host is wrong."""
    data = (await caller.record(caller.emulator.add_job(age=10)))["data"]
    url = data["response"]["images"][0].replace("127.0.0.1", "localhost")
    assert (await caller.post(DOWNLOAD, {"url": url}))["code"] == 422


async def test_an_unknown_image_is_refused(caller):
    """An unknown image on the right host is wrong."""
    url = caller.emulator.image_url + "/s/1_a.png"
    assert (await caller.post(DOWNLOAD, {"url": url}))["code"] == 422


async def test_answers_have_cloudflare_headers(caller):
    """Answers have a type, a date, a ray id, gzip, chunks and a cookie, like Cloudflare's."""
    url, seen = caller.emulator.url + CREDIT, []
    for _ in range(2):
        async with caller.session.get(url, headers=KEY) as answer:
            seen.append(answer.headers)
    assert seen[0]["Content-Type"] == "application/json;charset=UTF-8"
    assert abs(parsedate_to_datetime(seen[0]["Date"]).timestamp() - time.time()) < 5
    assert seen[0]["Content-Encoding"] == "gzip"
    assert seen[0]["Transfer-Encoding"] == "chunked"
    assert re.match("JSESSIONID=[0-9A-F]{32};", seen[0]["Set-Cookie"])
    assert re.fullmatch("[0-9a-f]{16}-FRA", seen[0]["CF-RAY"])
    assert seen[0]["CF-RAY"] != seen[1]["CF-RAY"]
    assert "Retry-After" not in seen[0]


async def test_a_cookie_is_set_once(caller):
    """A client that sends the cookie back gets no other."""
    headers = {**KEY, "Cookie": "JSESSIONID=1"}
    async with caller.session.get(caller.emulator.url + CREDIT, headers=headers) as answer:
        assert "Set-Cookie" not in answer.headers


async def test_gzip_is_optional(caller):
    """A client that does not accept gzip gets plain answers."""
    headers = {**KEY, "Accept-Encoding": "identity"}
    async with caller.session.get(caller.emulator.url + CREDIT, headers=headers) as answer:
        assert "Content-Encoding" not in answer.headers


async def test_http_1_0_is_answered_without_chunks(caller):
    """A client of HTTP/1.0 is answered without chunks."""
    port = int(caller.emulator.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {CREDIT} HTTP/1.0\r\nAuthorization: Bearer k\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert b"chunked" not in head
    assert json.loads(body)["data"] == 5916.25


async def test_the_clock_may_be_wrong(start):
    """`clock_offset` shifts the dates and the times alike."""
    caller = await start(clock_offset=86_400)
    task_id = caller.emulator.add_job()
    url = f"{caller.emulator.url}{RECORD}?taskId={task_id}"
    async with caller.session.get(url, headers=KEY) as answer:
        created = (await answer.json())["data"]["createTime"] / 1000
        date = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    assert created - time.time() == pytest.approx(86_400, abs=5)
    assert date == pytest.approx(created, abs=5)


async def test_an_unknown_path_is_404(caller):
    """A path that the API does not have is not found."""
    assert (await caller.get("/api/v2"))["code"] == 404
    assert caller.emulator.requests[0].endpoint == ""


async def test_latency_delays_every_answer(start):
    """With a latency, no answer comes sooner."""
    caller = await start(latency=(0.05, 0.06))
    begin = asyncio.get_running_loop().time()
    await caller.get(CREDIT)
    assert asyncio.get_running_loop().time() - begin >= 0.05


async def test_large_bodies_are_recorded(caller):
    """A posted body is recorded as bytes, whatever its size below a mebibyte."""
    await caller.post(DOWNLOAD, {"url": "x" * 200_000})
    assert len(caller.emulator.requests[0].body) > 200_000


async def test_a_client_may_time_out(start):
    """A client whose timeout is shorter than the latency times out."""
    caller = await start(latency=30)
    with pytest.raises(TimeoutError):
        await caller.session.get(caller.emulator.url, timeout=aiohttp.ClientTimeout(total=0.05))
