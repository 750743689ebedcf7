"""`get`, `wait`, `generate` and `credits` for one cover, in the process of the tests."""

import json

import pytest

from kie_cover_async import (
    CoverFailedError,
    CoverTimeoutError,
    TaskNotFoundError,
    structure_details,
)
from kie_cover_async.cli.commands import covers
from kie_cover_async.cli.output import DONE, UsageError
from kie_cover_async.emulator import CoverScript, Fault

pytestmark = pytest.mark.usefixtures("key")


async def test_get_writes_the_record_as_one_json_line(emulator, capsys, route):
    """It has the shape of the suno route's records, and the cost if the record says it."""
    task_id = emulator.add_job(age=10)
    assert await covers.get(task_id, base_url=emulator.url, as_json=True) == DONE
    (line,) = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert record["taskId"] == task_id
    assert structure_details(record).is_success
    assert len(record["response"]["images"]) == 2
    assert record["creditsConsumed"] == (0.25 if route == "market" else None)


async def test_get_writes_one_fact_per_line(emulator, capsys, route):
    """Links are never wrapped."""
    task_id = emulator.add_job(CoverScript(seconds=4), music_task_id="the-song", age=10)
    await covers.get(task_id, base_url=emulator.url, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert f"cover    {task_id}" in lines
    assert "state    SUCCESS" in lines
    assert "song     the-song" in lines
    assert "took     4.0 s" in lines
    assert ("cost     0.25 credits" in lines) is (route == "market")
    assert sum(f" {emulator.image_url}/s/" in line and line.endswith(".png") for line in lines) == 2


@pytest.mark.usefixtures("route")
async def test_get_of_a_failed_cover_succeeds(emulator, capsys):
    """The text shows the error of the record."""
    task_id = emulator.add_job(CoverScript(seconds=1, end="failure"), age=10)
    assert await covers.get(task_id, base_url=emulator.url, as_json=False) == DONE
    out = capsys.readouterr().out
    assert "state    GENERATE_COVER_FAILED" in out
    assert "error    501 Cover generation failed" in out


async def test_missing_facts_have_no_line(emulator, capsys):
    """An unknown flag is shown as it is."""
    task_id = emulator.add_job()
    record = {"code": 200, "msg": "success", "data": {"taskId": task_id, "successFlag": 7}}
    emulator.fault(Fault.answer(body=record))
    await covers.get(task_id, base_url=emulator.url, as_json=False)
    assert capsys.readouterr().out == f"cover    {task_id}\nstate    UNKNOWN (flag 7)\n"


SHAPE = "kie-cover: unknown to this version; please report its keys and types: "


@pytest.mark.parametrize("raw", [False, True])
async def test_shape_of_an_unknown_record_is_on_stderr(emulator, capsys, route, raw):
    """It has keys and types only, so that it can be reported."""
    task_id = emulator.add_job(age=10)
    field = "data.state" if route == "market" else "data.successFlag"
    emulator.fault(Fault.replace(field, "a-secret"))
    await covers.get(task_id, raw=raw, base_url=emulator.url, as_json=True)
    err = capsys.readouterr().err
    assert err.startswith(f"{SHAPE}{{taskId: str, ")
    assert f"{field.removeprefix('data.')}: str" in err
    assert err.count("\n") == 1
    assert "a-secret" not in err


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ({"taskId": ["a"]}, "{code: int, msg: str, data: {taskId: [str]}}"),
        (None, ""),
    ],
)
@pytest.mark.usefixtures("route")
async def test_raw_answer_that_cannot_be_read_has_its_shape_on_stderr(
    emulator, capsys, data, shape
):
    """The shape of a known refusal is not shown."""
    emulator.fault(Fault.answer(body={"code": 200, "msg": "success", "data": data}))
    await covers.get("an-id", raw=True, base_url=emulator.url, as_json=True)
    assert capsys.readouterr().err == (f"{SHAPE}{shape}\n" if shape else "")


async def test_hostile_text_is_escaped(emulator, capsys):
    """A terminal does not obey it, and rich's markup stays text."""
    task_id = emulator.add_job(
        CoverScript(seconds=1, end="failure", error_message="[red]x[/]\x1b]0;title\x07\u202e"),
        age=10,
    )
    await covers.get(task_id, base_url=emulator.url, as_json=False)
    assert r"501 [red]x[/]\x1b]0;title\x07\u202e" in capsys.readouterr().out


async def test_raw_answer_has_the_key_and_cookies_masked(emulator, capsys, key, route):
    """Everything else is unchanged."""
    headers = {"X-Echo": f"Bearer {key}", "Set-Cookie": "JSESSIONID=secret"}
    emulator.fault(Fault.answer(418, body=f'{{"you": "{key}"}}\nand more', headers=headers))
    assert await covers.get("an-id", raw=True, base_url=emulator.url, as_json=False) == DONE
    out = capsys.readouterr().out
    assert key not in out
    assert "secret" not in out
    lines = out.splitlines()
    path = {"suno": "suno/cover/record-info", "market": "jobs/recordInfo"}[route]
    assert lines[0].endswith(f"/api/v1/{path}?taskId=an-id")
    assert "HTTP 418" in lines
    assert "X-Echo: Bearer ***" in lines
    assert "Set-Cookie: ***" in lines
    assert lines[-3:] == ["", '{"you": "***"}', "and more"]


async def test_raw_answer_as_json_escapes_bytes(emulator, capsys):
    """They are those that are not UTF-8. Such an answer has no shape."""
    emulator.fault(Fault.answer(200, body=b"\xff{}"))
    await covers.get("an-id", raw=True, base_url=emulator.url, as_json=True)
    written = capsys.readouterr()
    assert written.err == ""
    answer = json.loads(written.out)
    assert answer["status"] == 200
    assert answer["body"] == r"\xff{}"
    assert ["Server", "cloudflare"] in answer["headers"]


async def test_raw_request_is_not_repeated(emulator, capsys):
    """The user wants to see what is wrong with the answer."""
    emulator.fault(Fault.gateway_page(502))
    await covers.get("an-id", raw=True, base_url=emulator.url, as_json=False)
    assert "<h1>502 Bad Gateway</h1>" in capsys.readouterr().out
    assert len(emulator.requests) == 1


@pytest.mark.usefixtures("route")
async def test_wait_writes_the_record_once(emulator, capsys):
    """The job has ended."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    assert await covers.wait([task_id], timeout=5, base_url=emulator.url, as_json=True) == DONE
    assert structure_details(json.loads(capsys.readouterr().out)).is_success


async def test_infinite_timeout_is_no_timeout(emulator, capsys):
    """`--timeout inf` waits until the end."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    assert (
        await covers.wait([task_id], timeout=float("inf"), base_url=emulator.url, as_json=True)
        == DONE
    )
    assert json.loads(capsys.readouterr().out)["successFlag"] == 1


@pytest.mark.usefixtures("route")
async def test_wait_for_a_failed_cover_raises(emulator, capsys):
    """Nothing is written to stdout."""
    task_id = emulator.add_job(CoverScript(statuses=["failure"]))
    with pytest.raises(CoverFailedError):
        await covers.wait([task_id], timeout=5, base_url=emulator.url, as_json=True)
    assert not capsys.readouterr().out


async def test_timeout_of_0_is_one_poll(emulator):
    """The wait times out after it."""
    task_id = emulator.add_job(CoverScript(end="never"))
    with pytest.raises(CoverTimeoutError):
        await covers.wait([task_id], timeout=0, base_url=emulator.url, as_json=True)
    assert emulator.poll_count(task_id) == 1


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("-inf")])
async def test_invalid_timeout_is_rejected(emulator, timeout):
    """No request is sent."""
    with pytest.raises(UsageError, match="--timeout must be a finite number of at least 0"):
        await covers.wait(["an-id"], timeout=timeout, base_url=emulator.url, as_json=True)
    assert not emulator.requests


async def generate(emulator, callback_url="http://x/", route=None, *, as_json):
    url = emulator.url
    return await covers.generate(
        "a-song", callback_url=callback_url, route=route, base_url=url, as_json=as_json
    )


async def test_generate_writes_the_new_id_to_stdout_and_stderr(emulator, capsys):
    """If stdout is lost, the id is not: it has been paid for."""
    assert await generate(emulator, as_json=True) == DONE
    captured = capsys.readouterr()
    task_id = json.loads(captured.out)["taskId"]
    assert captured.err == f"requested; next: kie-cover wait {task_id}\n"
    assert json.loads(emulator.requests[0].body) == {"taskId": "a-song", "callBackUrl": "http://x/"}


@pytest.mark.usefixtures("route")
async def test_new_id_can_be_waited_for(emulator, capsys):
    """It is the id of the route of the environment."""
    await generate(emulator, as_json=False)
    task_id = capsys.readouterr().out.strip()
    assert await covers.wait([task_id], timeout=20, base_url=emulator.url, as_json=True) == DONE


async def test_generate_needs_no_callback_url_on_the_market_route(emulator, capsys):
    """The next command on stderr names the route that was given."""
    assert await generate(emulator, None, "market", as_json=False) == DONE
    captured = capsys.readouterr()
    task_id = captured.out.strip()
    assert captured.err == f"requested; next: kie-cover wait {task_id} --route market\n"
    assert "callBackUrl" not in json.loads(emulator.requests[0].body)


async def test_missing_callback_url_is_rejected_on_the_suno_route(emulator):
    """Nothing is sent; the message says which route needs none."""
    with pytest.raises(UsageError, match=r"--callback-url must be given.* --route market"):
        await generate(emulator, None, "suno", as_json=True)
    assert not emulator.requests


async def test_generate_writes_only_the_id_as_text(emulator, capsys):
    """It can be used as an argument."""
    await generate(emulator, as_json=False)
    task_id = capsys.readouterr().out.rstrip("\n")
    await covers.get(task_id, base_url=emulator.url, as_json=True)


async def test_invalid_callback_url_is_rejected_before_the_submit(emulator):
    """Nothing is paid for."""
    with pytest.raises(UsageError, match="--callback-url must be an absolute http or https URL"):
        await generate(emulator, "nowhere", as_json=True)
    assert not emulator.requests


@pytest.mark.parametrize(
    ("as_json", "written"), [(True, '{"credits": 5916.25}\n'), (False, "5,916.25 credits\n")]
)
async def test_credits_are_the_remaining_ones(emulator, capsys, as_json, written):
    """As text they have a thousands separator."""
    assert await covers.credits(emulator.url, as_json=as_json) == DONE
    assert capsys.readouterr().out == written


async def test_unknown_id_raises(emulator):
    """It is an error like any other."""
    with pytest.raises(TaskNotFoundError):
        await covers.get("an-id", base_url=emulator.url, as_json=True)


async def test_each_change_of_a_wait_has_a_line_on_stderr(emulator, capsys):
    """That is so without a terminal."""
    task_id = emulator.add_job(CoverScript(statuses=["500", "success"]))
    await covers.wait([task_id], timeout=30, base_url=emulator.url, as_json=True)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("temporary failure: ServerError 500")
    assert last.endswith(": SUCCESS")
