"""The commands' own work, in the process of the tests."""

import json

import pytest

from kie_cover_async import CoverFailedError, CoverTimeoutError, TaskNotFoundError
from kie_cover_async.cli.commands import covers
from kie_cover_async.cli.output import DONE, UsageError
from kie_cover_async.emulator import CoverScript, Fault

pytestmark = pytest.mark.usefixtures("key")


async def test_get_for_programs(emulator, capsys):
    """The record is one JSON line, in the API's own shape."""
    task_id = emulator.add_job(age=10)
    assert await covers.get(task_id, base_url=emulator.url, as_json=True) == DONE
    (line,) = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert record["taskId"] == task_id
    assert record["successFlag"] == 1
    assert len(record["response"]["images"]) == 2


async def test_get_for_people(emulator, capsys):
    """The facts have a line each, and the links are in one piece."""
    task_id = emulator.add_job(CoverScript(seconds=4), music_task_id="the-song", age=10)
    await covers.get(task_id, base_url=emulator.url, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert f"cover    {task_id}" in lines
    assert "state    SUCCESS" in lines
    assert "song     the-song" in lines
    assert "took     4.0 s" in lines
    assert sum(f" {emulator.image_url}/s/" in line and line.endswith(".png") for line in lines) == 2


async def test_get_of_a_failed_cover(emulator, capsys):
    """A poll that found a failure is a good poll, and shows what the record says of it."""
    task_id = emulator.add_job(CoverScript(seconds=1, end="failure"), age=10)
    assert await covers.get(task_id, base_url=emulator.url, as_json=False) == DONE
    out = capsys.readouterr().out
    assert "state    GENERATE_COVER_FAILED" in out
    assert "error    501 Cover generation failed" in out


async def test_get_of_a_record_with_little_in_it(emulator, capsys):
    """What the record does not say has no line, and an unknown flag is shown as it is."""
    task_id = emulator.add_job()
    record = {"code": 200, "msg": "success", "data": {"taskId": task_id, "successFlag": 7}}
    emulator.fault(Fault.answer(body=record))
    await covers.get(task_id, base_url=emulator.url, as_json=False)
    assert capsys.readouterr().out == f"cover    {task_id}\nstate    UNKNOWN (flag 7)\n"


async def test_get_of_a_hostile_record(emulator, capsys):
    """What a terminal would obey is shown instead, and rich's markup is text like any other."""
    task_id = emulator.add_job(
        CoverScript(seconds=1, end="failure", error_message="[red]x[/]\x1b]0;title\x07\u202e"),
        age=10,
    )
    await covers.get(task_id, base_url=emulator.url, as_json=False)
    assert r"501 [red]x[/]\x1b]0;title\x07\u202e" in capsys.readouterr().out


async def test_raw(emulator, capsys, key):
    """The answer as it came, with the key masked wherever it stands, and the cookies."""
    headers = {"X-Echo": f"Bearer {key}", "Set-Cookie": "JSESSIONID=secret"}
    emulator.fault(Fault.answer(418, body=f'{{"you": "{key}"}}\nand more', headers=headers))
    assert await covers.get("an-id", raw=True, base_url=emulator.url, as_json=False) == DONE
    out = capsys.readouterr().out
    assert key not in out
    assert "secret" not in out
    lines = out.splitlines()
    assert lines[0].endswith("/api/v1/suno/cover/record-info?taskId=an-id")
    assert "HTTP 418" in lines
    assert "X-Echo: Bearer ***" in lines
    assert "Set-Cookie: ***" in lines
    assert lines[-3:] == ["", '{"you": "***"}', "and more"]


async def test_raw_for_programs(emulator, capsys):
    """The same as one JSON line, bytes that are no text written so that one can tell."""
    emulator.fault(Fault.answer(200, body=b"\xff{}"))
    await covers.get("an-id", raw=True, base_url=emulator.url, as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == 200
    assert answer["body"] == r"\xff{}"
    assert ["Server", "cloudflare"] in answer["headers"]


async def test_raw_is_one_request(emulator, capsys):
    """Nothing is repeated: what is wrong with the answer is what one wants to see."""
    emulator.fault(Fault.gateway_page(502))
    await covers.get("an-id", raw=True, base_url=emulator.url, as_json=False)
    assert "<h1>502 Bad Gateway</h1>" in capsys.readouterr().out
    assert len(emulator.requests) == 1


async def test_wait(emulator, capsys):
    """The finished record is written, once."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    assert await covers.wait([task_id], timeout=5, base_url=emulator.url, as_json=True) == DONE
    assert json.loads(capsys.readouterr().out)["successFlag"] == 1


async def test_wait_for_ever(emulator, capsys):
    """A timeout of `inf` is none."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    assert (
        await covers.wait([task_id], timeout=float("inf"), base_url=emulator.url, as_json=True)
        == DONE
    )
    assert json.loads(capsys.readouterr().out)["successFlag"] == 1


async def test_wait_for_a_failure(emulator, capsys):
    """A job that failed raises, and nothing is written."""
    task_id = emulator.add_job(CoverScript(statuses=["failure"]))
    with pytest.raises(CoverFailedError):
        await covers.wait([task_id], timeout=5, base_url=emulator.url, as_json=True)
    assert not capsys.readouterr().out


async def test_wait_out_of_time(emulator):
    """A timeout of 0 is one poll."""
    task_id = emulator.add_job(CoverScript(end="never"))
    with pytest.raises(CoverTimeoutError):
        await covers.wait([task_id], timeout=0, base_url=emulator.url, as_json=True)
    assert emulator.poll_count(task_id) == 1


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("-inf")])
async def test_wait_for_no_time_at_all(emulator, timeout):
    """A timeout that is none is refused before anything is asked."""
    with pytest.raises(UsageError, match="--timeout must be a finite number of at least 0"):
        await covers.wait(["an-id"], timeout=timeout, base_url=emulator.url, as_json=True)
    assert not emulator.requests


async def generate(emulator, callback_url="http://x/", *, as_json):
    url = emulator.url
    return await covers.generate("a-song", callback_url=callback_url, base_url=url, as_json=as_json)


async def test_generate(emulator, capsys):
    """The new id is written, and said too: whatever becomes of stdout, it has been paid for."""
    assert await generate(emulator, as_json=True) == DONE
    heard = capsys.readouterr()
    task_id = json.loads(heard.out)["taskId"]
    assert heard.err == f"requested; next: kie-cover wait {task_id}\n"
    assert json.loads(emulator.requests[0].body) == {"taskId": "a-song", "callBackUrl": "http://x/"}


async def test_generate_for_people(emulator, capsys):
    """On a terminal the id stands alone."""
    await generate(emulator, as_json=False)
    task_id = capsys.readouterr().out.rstrip("\n")
    await covers.get(task_id, base_url=emulator.url, as_json=True)


async def test_generate_without_a_place_to_call_back(emulator):
    """What is no URL is refused before anything is paid for."""
    with pytest.raises(UsageError, match="--callback-url must be an absolute http or https URL"):
        await generate(emulator, "nowhere", as_json=True)
    assert not emulator.requests


@pytest.mark.parametrize(
    ("as_json", "written"), [(True, '{"credits": 5916.25}\n'), (False, "5,916.25 credits\n")]
)
async def test_credits(emulator, capsys, as_json, written):
    """What is left on the account."""
    assert await covers.credits(emulator.url, as_json=as_json) == DONE
    assert capsys.readouterr().out == written


async def test_an_unknown_id(emulator):
    """No record is an error like any other."""
    with pytest.raises(TaskNotFoundError):
        await covers.get("an-id", base_url=emulator.url, as_json=True)


async def test_changes_are_said(emulator, capsys):
    """Where nobody watches a board, each change of a wait has a line."""
    task_id = emulator.add_job(CoverScript(statuses=["500", "success"]))
    await covers.wait([task_id], timeout=30, base_url=emulator.url, as_json=True)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("temporary failure: ServerError 500")
    assert last.endswith(": SUCCESS")
