"""`check` and `wait` for many ids: the sources of the ids, and a line for each."""

import asyncio
import json
import os
import sys
from contextlib import closing

import pytest

from kie_cover_async import (
    InvalidTaskIdError,
    RateLimiter,
    ServerError,
    structure_details,
)
from kie_cover_async.cli import ids
from kie_cover_async.cli.client import rate_limiter_for
from kie_cover_async.cli.commands.covers import check, wait
from kie_cover_async.cli.output import DONE, FAILED, INTERRUPTED, UsageError
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.validation import validate_task_id

# The clock of the command, not of the emulator.
FAST = "speed_up(5)"
ERROR = ServerError(code=500)


def arguments_for(emulator, *given, file=None, rate=float("inf"), as_json=True):
    url = str(emulator.url)
    return {"task_ids": given, "file": file, "base_url": url, "rate": rate, "as_json": as_json}


def documents(capsys):
    captured = capsys.readouterr()
    return {line["taskId"]: line for line in map(json.loads, captured.out.splitlines())}


async def read_ids(*arguments, file=None):
    with ids.open_ids(arguments, file) as batches:
        return [task_id async for batch in batches for task_id in batch]


@pytest.fixture
def stdin(monkeypatch):
    """Replace stdin by a pipe; return the writing end."""
    reading, writing = os.pipe()
    with open(reading) as ours, open(writing, "wb", buffering=0) as theirs:  # noqa: PTH123 - a descriptor has no path
        monkeypatch.setattr(sys, "stdin", ours)
        yield theirs


@pytest.mark.usefixtures("key", "route")
async def test_each_id_has_a_line(emulator, capsys):
    """The line has the id as it was given, whatever became of it."""
    done, failed = emulator.add_job(age=60), emulator.add_job(CoverScript(end="failure"), age=60)
    assert await check(**arguments_for(emulator, done, failed, "nobody", "no id")) == FAILED
    lines = documents(capsys)
    assert structure_details(lines[done]).is_success
    assert structure_details(lines[failed]).state.is_failure
    assert lines["nobody"]["error"] == "TaskNotFoundError"
    assert lines["no id"]["error"] == "InvalidTaskIdError"
    assert len(lines) == 4


@pytest.mark.usefixtures("key")
async def test_failed_cover_is_an_answer_to_check_and_a_failure_to_wait(emulator, capsys):
    """The exit codes say so."""
    failed = [emulator.add_job(CoverScript(end="failure"), age=60) for _ in range(2)]
    assert await check(**arguments_for(emulator, *failed)) == DONE
    assert "2 ids" in capsys.readouterr().err
    assert await wait(**arguments_for(emulator, *failed), timeout=5) == FAILED
    assert {line["error"] for line in documents(capsys).values()} == {"CoverFailedError"}


@pytest.mark.usefixtures("key")
async def test_covers_are_written_in_the_order_in_which_they_end(instant_time, emulator, capsys):
    """A summary follows on stderr."""
    slow, quick = (emulator.add_job(CoverScript(seconds=s)) for s in (1.5, 0.0))
    assert await wait(**arguments_for(emulator, slow, quick), timeout=float("inf")) == DONE
    captured = capsys.readouterr()
    assert [json.loads(line)["taskId"] for line in captured.out.splitlines()] == [quick, slow]
    assert captured.err.startswith("2 ids in ")
    assert ": 2 ok, 0 failed; " in captured.err


@pytest.mark.usefixtures("key")
async def test_wait_for_a_single_id_writes_each_change(emulator, capsys):
    """An id from a file or a pipe is one of many."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    assert await wait(**arguments_for(emulator, task_id, rate=5), timeout=5) == DONE
    captured = capsys.readouterr()
    assert json.loads(captured.out)["taskId"] == task_id
    assert captured.err.endswith(": SUCCESS\n")


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf\n"])
async def test_file_without_ids_is_rejected(tmp_path, content):
    """The message names the empty or blank file."""
    file = tmp_path / "ids.txt"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=f"^no ids found in {file}$"):
        await read_ids(file=str(file))


@pytest.mark.usefixtures("key")
async def test_nothing_is_polled_without_ids(emulator, capsys, tmp_path):
    """The command ends with the reason, and without a summary."""
    file = tmp_path / "ids.txt"
    file.touch()
    with pytest.raises(UsageError, match=r"^no ids found in "):
        await check(**arguments_for(emulator, file=str(file)))
    assert capsys.readouterr() == ("", "")
    assert not emulator.requests


async def test_blank_stdin_and_empty_file_are_rejected(stdin, tmp_path):
    """The message names both."""
    file = tmp_path / "ids.txt"
    file.touch()
    stdin.write(b"\n")
    stdin.close()
    with pytest.raises(UsageError, match=f"^no ids found in stdin and {file}$"):
        await read_ids("-", file=str(file))


async def test_empty_file_is_named_if_there_are_other_ids(tmp_path, capsys):
    """The other ids are used."""
    file = tmp_path / "ids.txt"
    file.touch()
    assert await read_ids("a", file=str(file)) == ["a"]
    assert capsys.readouterr().err == f"kie-cover: no ids found in {file}\n"


@pytest.mark.usefixtures("key")
async def test_text_has_the_id_the_state_and_the_images_or_the_error(emulator, capsys):
    """It is written unless JSON is asked for."""
    done = emulator.add_job(age=60)
    failed = emulator.add_job(CoverScript(end="failure", error_message="no\x1bluck"), age=60)
    young = emulator.add_job(CoverScript(end="never"))
    await check(**arguments_for(emulator, done, failed, young, "no\tid", as_json=False))
    lines = {line.partition("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines[done].startswith(f"{done}  SUCCESS  http")
    assert lines[failed] == rf"{failed}  GENERATE_COVER_FAILED  no\x1bluck"
    assert lines[young].rstrip() == f"{young}  GENERATING"
    assert lines[r"no\tid"].startswith(r"no\tid  InvalidTaskIdError  task_id must be")


async def test_ids_come_from_arguments_stdin_and_a_file(stdin, tmp_path):
    """They keep this order; blank lines and byte order marks are skipped."""
    file = tmp_path / "ids.txt"
    file.write_bytes(b"\xef\xbb\xbfd\r\n\n  e  \n" + b"\xef\xbb\xbf\n" + b"f")
    stdin.write(b"b\n\nc")
    stdin.close()
    assert await read_ids("a", "-", "g", file=str(file)) == ["a", "b", "c", "g", "d", "e", "f"]


@pytest.mark.parametrize(
    ("text", "task_id"),
    [
        ("an-id", "an-id"),
        ("12345", "12345"),
        ('"an-id"', "an-id"),
        ('{"taskId": "an-id", "successFlag": 1}', "an-id"),
        ('{"code":200,"msg":"success","data":{"taskId":"an-id"}}', "an-id"),
        ('{"taskId": "an-id", "data": {"taskId": "another"}}', "an-id"),
        ('{"song": "a-song", "state": "submitted", "task_id": "an-id"}', "an-id"),
        ("grüße", "grüße"),
    ],
)
def test_line_is_an_id_or_json_with_an_id(text, task_id):
    """The JSON is a string, output of this command, or an API answer."""
    assert ids.parse_id(text) == task_id


NO_ID = "JSON without a string taskId"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('["an-id"]', NO_ID),
        ('{"id":"an-id"}', NO_ID),
        ('{"taskId":5}', NO_ID),
        ('{"taskId":null,"data":{"taskId":"an-id"}}', NO_ID),
        ('{"code":422,"msg":"no","data":null}', NO_ID),
        ('{"data":["an-id"]}', NO_ID),
        ("[]", NO_ID),
        ("null", NO_ID),
        ("true", NO_ID),
        ("false", NO_ID),
        ("{an-id", "unreadable JSON"),
        ("[", "unreadable JSON"),
        ('"an-id",', "unreadable JSON"),
        ('{"a":' + "[" * 100_000, "unreadable JSON"),
        ("caf\udce9", "text that is not UTF-8"),
        ('{"taskId":"caf\udce9"}', "text that is not UTF-8"),
    ],
)
def test_other_json_is_not_an_id(text, problem):
    """It is kept unchanged, and the error about it says what it is."""
    given = ids.parse_id(text)
    assert str(given) == text
    with pytest.raises(InvalidTaskIdError) as caught:
        validate_task_id("task_id", given)
    assert f", not {problem}: {text[:20]}" in caught.value._summary()


@pytest.mark.usefixtures("key")
async def test_ids_in_json_are_polled_and_other_json_is_not(emulator, capsys, tmp_path):
    """The error about other JSON quotes it."""
    first, second = emulator.add_job(age=60), emulator.add_job(age=60)
    answer = {"code": 200, "msg": "success", "data": {"taskId": second}}
    lines = [json.dumps(first), json.dumps(answer), '["an-id"]', "null"]
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(lines), "utf-8")
    assert await check(**arguments_for(emulator, file=str(file))) == FAILED
    written = documents(capsys)
    assert written.keys() == {first, second, '["an-id"]', "null"}
    assert written["null"]["error"] == "InvalidTaskIdError"
    assert NO_ID in written["null"]["message"]
    assert {request.task_id for request in emulator.requests} == {first, second}
    await check(**arguments_for(emulator, file=str(file), as_json=False))
    assert '["an-id"]  InvalidTaskIdError  task_id must be' in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
async def test_utf_16_and_utf_32_are_rejected(tmp_path, encoding):
    """Windows shells write UTF-16. The message comes before any id."""
    file = tmp_path / "ids.txt"
    file.write_text("an-id\nanother\n", encoding)
    message = f"^{file} has a NUL in line 1: save it as UTF-8, not as UTF-16$"
    with pytest.raises(UsageError, match=message):
        await read_ids(file=str(file))


async def test_nul_is_rejected_with_its_line(stdin):
    """It may come later, too."""
    with ids.open_ids(["-"], None) as given:
        stdin.write(b"one\ntwo\n")
        assert await anext(given) == ["one", "two"]
        stdin.write(b"three\nfo\0ur\n")
        with pytest.raises(UsageError, match=r"^stdin has a NUL in line 4: "):
            await anext(given)


async def test_line_that_is_too_long_is_rejected_before_its_end(tmp_path):
    """It is longer than any id and any API answer."""
    file = tmp_path / "ids.txt"
    file.write_bytes(b"an-id\n" + b"x" * (8 << 20))
    with file.open("rb", buffering=0) as opened:
        lines = ids._lines(ids._File("ids.txt", opened.fileno()))
        assert b"an-id" in await anext(lines)
        with pytest.raises(
            UsageError, match=r"^line 2 of ids\.txt is longer than 1,048,576 bytes: "
        ):
            async for _ in lines:
                pass
        assert opened.tell() < 2 << 20


async def test_ids_come_as_soon_as_they_are_written_to_stdin(stdin):
    """The event loop runs meanwhile."""
    with ids.open_ids(["-"], None) as given:
        first = asyncio.ensure_future(anext(given))
        await asyncio.sleep(0.02)
        stdin.write(b"one\ntw")
        assert await first == ["one"]
        second = asyncio.ensure_future(anext(given))
        await asyncio.sleep(0.02)
        assert not second.done()
        stdin.write(b"o\n")
        assert await second == ["two"]
        await given.aclose()


async def test_named_pipe_without_a_writer_is_waited_for(tmp_path):
    """Its ids come when there is one."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    reading = asyncio.create_task(read_ids(file=pipe))
    await asyncio.sleep(0.02)
    assert not reading.done()
    with closing(os.fdopen(os.open(pipe, os.O_WRONLY), "wb")) as writing:
        writing.write(b"a\nb\n")
    assert await reading == ["a", "b"]


async def test_large_file_is_read_as_far_as_its_ids_are_used(tmp_path):
    """The rest is read later."""
    file = tmp_path / "ids.txt"
    file.write_text("an-id\n" * 100_000)
    descriptor = os.open(file, os.O_RDONLY)
    with closing(os.fdopen(descriptor)):
        lines = ids._lines(ids._File("ids.txt", descriptor))
        await anext(lines)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) < file.stat().st_size / 5
        await lines.aclose()


@pytest.mark.parametrize(
    ("arguments", "file", "message"),
    [
        ([], "", "--file must name a file, not ''"),
        (["a"], "", "--file must name a file, not ''"),
        (["a"], "/nowhere/ids", "cannot open /nowhere/ids: No such file"),
        ([], "/", "cannot read /: Is a directory"),
    ],
)
async def test_unreadable_source_of_ids_is_rejected(arguments, file, message):
    """The message says what is wrong."""
    with pytest.raises(UsageError, match=message):
        await read_ids(*arguments, file=file)


async def test_closed_stdin_is_rejected(monkeypatch):
    """The message says so."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="stdin is closed"):
        await read_ids("-")


@pytest.mark.parametrize(
    ("rate", "rate_limiter"),
    [
        (None, "None"),
        (10, "RateLimiter(10, per=1)"),
        (2.5, "RateLimiter(2, per=0.8)"),
        (0.5, "RateLimiter(1, per=2)"),
        (float("inf"), repr(RateLimiter.unlimited())),
    ],
)
def test_rate_may_be_any_positive_number_or_infinite(rate, rate_limiter):
    """It becomes a rate limiter."""
    assert repr(rate_limiter_for(rate)) == rate_limiter


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [(0, "above 0"), (-1, "above 0"), (float("nan"), "above 0"), (5e-324, "of at least 1e-09")],
)
def test_rate_without_requests_is_rejected(rate, wanted):
    """It is zero, negative, not a number, or too small."""
    with pytest.raises(UsageError, match=f"^--rate must be a finite number {wanted}, not {rate}"):
        rate_limiter_for(rate)


@pytest.mark.parametrize(
    ("command", "error"), [("check", "TaskNotFoundError"), ("wait", "CoverFailedError")]
)
async def test_ids_from_a_pipe_become_json_lines(run, emulator, piped, command, error):
    """The exit code is 1 because there is an error among them."""
    task_ids = [emulator.add_job(age=60) for _ in range(300)]
    failed = (
        emulator.add_job(CoverScript(end="failure"), age=60) if command == "wait" else "unknown"
    )
    stdin = piped("\n".join([*task_ids, failed, ""]))
    ended = await run(command, "-", "--rate", "inf", stdin=stdin, KIE_BASE_URL=str(emulator.url))
    assert ended.code == FAILED
    lines = {line["taskId"]: line for line in ended.documents}
    assert len(ended.documents) == len(lines) == 301
    assert all(lines[task_id]["successFlag"] == 1 for task_id in task_ids)
    assert lines[failed]["error"] == error
    assert ended.err.startswith("301 ids in ")


async def test_output_of_generate_is_input_of_wait(run, emulator, piped):
    """A command can read what another command wrote."""
    emulator.script_song("a-song", CoverScript(statuses=["success"]))
    url = {"KIE_BASE_URL": str(emulator.url)}
    generated = await run("generate", "a-song", "--callback-url", "http://x/", **url)
    ended = await run("wait", "-", stdin=piped(generated.out), **url)
    assert ended.code == DONE
    assert [line["parentTaskId"] for line in ended.documents] == ["a-song"]


async def test_rate_spreads_the_requests(run, emulator):
    """`--rate` is the number of requests per second."""
    task_ids = [emulator.add_job(age=60) for _ in range(11)]
    arguments = ("--rate", "20", "--base-url", str(emulator.url))
    ended = await run("check", *task_ids, *arguments)
    assert ended.code == DONE
    moments = [request.received for request in emulator.requests]
    assert max(moments) - min(moments) > 0.4


async def test_refusal_costs_no_id(run, emulator):
    """After a 429 all requests pause, and every id is polled."""
    emulator.fault(Fault.rate_limited(retry_after=1))
    task_ids = [emulator.add_job(age=60) for _ in range(20)]
    ended = await run(
        "check", *task_ids, "--rate", "inf", before=FAST, KIE_BASE_URL=str(emulator.url)
    )
    assert ended.code == DONE
    assert {line["taskId"] for line in ended.documents} == set(task_ids)


@pytest.mark.parametrize("command", ["check", "wait"])
async def test_ctrl_c_while_more_ids_may_come_is_130(started, emulator, tmp_path, command):
    """The line of the first id has been written."""
    task_id = emulator.add_job(age=60)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    arguments = (command, "--file", str(pipe), "--base-url", str(emulator.url))
    async with started(*arguments, PYTHONASYNCIODEBUG="1") as running:
        writing = os.open(pipe, os.O_RDWR)
        with closing(os.fdopen(writing, "wb", buffering=0)) as file:
            file.write(f"{task_id}\nan".encode())
            assert (await running.document())["taskId"] == task_id
            running.interrupt()
            ended = await running.end()
    assert (ended.code, ended.out) == (INTERRUPTED, "")
    assert "1 id in " in ended.err
    assert "Traceback" not in ended.err
    assert "Warning" not in ended.err


async def test_reader_that_goes_away_ends_the_run(started, emulator, piped):
    """The rest of the ids is not polled."""
    ids = piped("\n".join(emulator.add_job(age=60) for _ in range(500)))
    arguments = ("check", "-", "--rate", "50", "--base-url", str(emulator.url))
    async with started(*arguments, stdin=ids) as command:
        for _ in range(3):
            await command.document()
        command.close_stdout()
        ended = await command.end()
    assert len(emulator.requests) < 100
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("command", ["check", "wait"])
@pytest.mark.parametrize(("first", "code"), [("no id", FAILED), ("", DONE)])
async def test_failure_counts_if_the_reader_goes_away(
    started, emulator, tmp_path, *, command, first, code
):
    """`head -1` ends the run early; the exit code is 1 if an id had failed by then."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    first = first or emulator.add_job(age=60)
    arguments = (command, "--file", str(pipe), "--base-url", str(emulator.url))
    async with started(*arguments) as running:
        with pipe.open("w", buffering=1) as writing:
            writing.write(f"{first}\n")
            assert (await running.document())["taskId"] == first
            running.close_stdout()
            writing.write(f"{emulator.add_job(age=60)}\n")
            ended = await running.end()
    assert ended.code == code
    assert ended.err.startswith("2 ids in ")


async def test_terminal_shows_lines_above_a_live_count(on_terminal, emulator):
    """The count is erased in the end."""
    quick = [emulator.add_job(age=60) for _ in range(3)]
    slow = emulator.add_job(CoverScript(statuses=["generating", "success"]))
    arguments = ("wait", *quick, slow, "--rate", "inf")
    options = {"before": FAST, "KIE_BASE_URL": str(emulator.url)}
    async with on_terminal(*arguments, **options) as terminal:
        await terminal.wait_for("3 done")
        ended = await terminal.end()
    assert ended.code == DONE
    assert all(f"{task_id}  " in ended.out for task_id in [*quick, slow])
    assert ended.out.rpartition("\x1b[2K")[2].strip().startswith("4 ids in ")
    assert "\x1b[?25h" in ended.out


async def test_count_is_on_the_terminal_if_stdout_is_a_file(on_terminal, emulator, tmp_path):
    """The file has the lines, and the terminal does not."""
    task_ids = [emulator.add_job(CoverScript(statuses=["generating", "success"])) for _ in range(3)]
    arguments = ("wait", *task_ids, "--rate", "inf")
    options = {"before": FAST, "KIE_BASE_URL": str(emulator.url)}
    with (tmp_path / "out.jsonl").open("w+") as file:
        async with on_terminal(*arguments, stdout=file.fileno(), **options) as terminal:
            ended = await terminal.end()
        file.seek(0)
        lines = [json.loads(line) for line in file]
    assert ended.code == DONE
    assert {line["taskId"] for line in lines} == set(task_ids)
    assert "requests/s" in ended.out
    assert task_ids[0] not in ended.out
