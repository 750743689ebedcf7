"""`kie-cover listen`: what is written of callbacks, and what is only counted."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from attrs import frozen

from kie_cover_async import (
    CoverOutcome,
    InvalidResponseError,
    ServerError,
    SignatureError,
    structure_details,
)
from kie_cover_async.callbacks import CallbackInbox, sign_callback
from kie_cover_async.cli.callback_server import callback_keys, is_callback_host
from kie_cover_async.cli.commands.listen import CallbackQueue, listen
from kie_cover_async.cli.output import DONE, INTERRUPTED, USAGE, UsageError
from kie_cover_async.emulator import CallbackPlan, CoverScript

KEY = "a-callback-key"
TASK = "21aee3c3c2a01fa5e030b3799fa4dd56"
AT_ONCE = CoverScript(seconds=0)
FAILED = CoverScript(seconds=0, end="failure")


def body(task_id=TASK, **more):
    return json.dumps({"code": 200, "msg": "success", "data": {"taskId": task_id, **more}}).encode()


async def address(command):
    """Where the command listens, as it says."""
    talk = await command.message(" until Ctrl-C.\n")
    return talk.split()[-3]


async def leave(command):
    """What is left of it after Ctrl-C."""
    command.interrupt()
    return await asyncio.wait_for(command.end(), 20)


@frozen
class Poster:
    """Somebody who posts callbacks."""

    session: ClientSession

    async def post(self, url, task_id=TASK, key=KEY, **more):
        headers = sign_callback(task_id, key)
        async with self.session.post(url, data=body(task_id, **more), headers=headers) as answer:
            return answer.status


@pytest.fixture
async def poster() -> AsyncIterator[Poster]:
    async with ClientSession() as session:
        yield Poster(session)


def listening(started, emulator=None, **env):
    keys = {"KIE_CALLBACK_KEY": KEY, "KIE_BASE_URL": emulator.url if emulator else ""}
    return started("listen", "--port", "0", **{**keys, **env})


async def test_confirmed(started, start, poster):
    """Each callback of the emulator's has one line, which is what a poll has shown."""
    emulator = await start(callback_key=KEY)
    async with listening(started, emulator) as command:
        url = await address(command)
        jobs = [emulator.add_job(script, callback_url=url) for script in (AT_ONCE, FAILED)]
        lines = [await command.document() for _ in jobs]
        assert [await poster.post(url, job) for job in jobs] == [200, 200]
        ended = await leave(command)
    records = {line["taskId"]: line for line in lines}
    assert [records[job]["successFlag"] for job in jobs] == [1, 3]
    assert len(records[jobs[0]]["response"]["images"]) == 2
    assert {line["confirmed"] for line in lines} == {True}
    assert (ended.code, ended.out) == (INTERRUPTED, "")
    assert ended.err.startswith("callbacks: 2 received, ")
    for count in ("2 repeated", "2 confirmed"):
        assert count in ended.err


async def test_forged(started, start):
    """However many callbacks are forged, the lines have each end once and no forged image."""
    plan = CallbackPlan(forged=1.0, duplicated=0.5)
    emulator = await start(callback_key=KEY, callbacks=plan, generation_time=0.3)
    async with listening(started, emulator) as command:
        url = await address(command)
        jobs = {emulator.add_job(callback_url=url) for _ in range(10)}
        written, ended = "", set()
        while ended != jobs:
            line = await command.document()
            written += json.dumps(line)
            assert line["confirmed"] is (line["successFlag"] == 1)
            assert not (line["confirmed"] and line["taskId"] in ended)
            ended |= {line["taskId"]} if line["confirmed"] else set()
    assert "forged" not in written


async def test_before_the_end(started, start, poster):
    """A callback before the end confirms nothing, and the next one is polled again."""
    emulator = await start()
    task_id = emulator.add_job("generating, success")
    async with listening(started, emulator) as command:
        url = await address(command)
        await poster.post(url, task_id)
        first = await command.document()
        await poster.post(url, task_id, images=["https://images.example/1.png"])
        second = await command.document()
    assert [(line["successFlag"], line["confirmed"]) for line in (first, second)] == [
        (2, False),
        (1, True),
    ]


async def test_wrong_signatures(started, start, poster):
    """A callback that is wrongly signed costs no poll and has no line, but is told of."""
    emulator = await start()
    task_id = emulator.add_job(age=60)
    async with listening(started, emulator, KIE_CALLBACK_KEY=f"another, {KEY}") as command:
        url = await address(command)
        assert await poster.post(url, task_id, key="a wrong one") == 401
        assert await poster.post(url, task_id) == 200
        assert (await command.document())["taskId"] == task_id
        ended = await leave(command)
    assert ended.out == ""
    assert "callback signature does not match" in ended.err
    assert "1 signature does not match, 1 received, 1 confirmed" in ended.err
    assert KEY not in ended.err
    assert len(emulator.requests) == 1


async def test_one_line_for_two(started, start, poster):
    """Two callbacks for one end that are polled together have one line between them."""
    emulator = await start(latency=0.2)
    first, second = emulator.add_job(age=60), emulator.add_job(age=60)
    async with listening(started, emulator) as command:
        url = await address(command)
        await poster.post(url, first)
        await poster.post(url, first, images=["https://images.example/1.png"])
        await poster.post(url, second)
        lines = [await command.document(), await command.document()]
        ended = await leave(command)
    assert [line["taskId"] for line in lines] == [first, second]
    assert ended.err.endswith("callbacks: 3 received, 2 confirmed\n")


async def test_nothing_found(started, start, poster):
    """Where the poll fails, the line is the error."""
    emulator = await start()
    async with listening(started, emulator) as command:
        await poster.post(await address(command))
        line = await command.document()
    assert (line["taskId"], line["error"]) == (TASK, "TaskNotFoundError")
    assert line["confirmed"] is False


async def test_without_an_api_key(started, poster):
    """Without a key for polls the line is what the callback claims, and says that it is that."""
    async with listening(started, KIE_API_KEY="") as command:
        url = await address(command)
        assert (
            await command.message() == "What they claim is not confirmed: KIE_API_KEY has no key.\n"
        )
        images = ["https://images.example/1.png"]
        assert await poster.post(url, images=images) == 200
        assert await poster.post(url, images=images) == 200
        assert await poster.post(url, "another") == 200
        first, second = await command.document(), await command.document()
    assert first == {
        "taskId": TASK,
        "code": 200,
        "msg": "success",
        "claimedImages": images,
        "confirmed": False,
    }
    assert (second["taskId"], second["claimedImages"]) == ("another", None)


async def test_without_a_callback_key(started, poster):
    """Without a key for signatures it takes what anybody sends, and says so."""
    async with listening(started, KIE_API_KEY="", KIE_CALLBACK_KEY="") as command:
        url = await address(command)
        assert await command.message() == "Anyone can send them: KIE_CALLBACK_KEY has no key.\n"
        assert await poster.post(url, key="whatever") == 200
        assert (await command.document())["taskId"] == TASK
        await leave(command)


async def test_on_a_terminal(on_terminal, poster):
    """A person sees a line of text for each, and the counts below."""
    env = {"KIE_CALLBACK_KEY": KEY, "KIE_API_KEY": ""}
    async with on_terminal("listen", "--port", "0", **env) as terminal:
        await terminal.until(" until Ctrl-C.")
        url = terminal.shown.partition("received at ")[2].split()[0]
        await poster.post(url, images=["https://images.example/\x1b[2J1.png"])
        await poster.post(url, "another", images=["https://images.example/2.png"])
        await poster.post(url, key="a wrong one")
        await terminal.until("2 received, 1 signature does not match")
        terminal.interrupt()
        ended = await terminal.end()
    assert f"{TASK}  says 200 success\r\n" in ended.out
    assert "another  says 200 success, claims https://images.example/2.png\r\n" in ended.out
    assert ended.code == INTERRUPTED


async def test_confirmed_on_a_terminal(on_terminal, start):
    """What a poll has shown is a line of text, too."""
    emulator = await start(callback_key=KEY)
    env = {"KIE_CALLBACK_KEY": KEY, "KIE_BASE_URL": emulator.url}
    async with on_terminal("listen", "--port", "0", **env) as terminal:
        await terminal.until(" until Ctrl-C.")
        url = terminal.shown.partition("received at ")[2].split()[0]
        task_id = emulator.add_job(AT_ONCE, callback_url=url)
        # Apart from each other: between them stand the codes of a colour.
        for shown in (f"{task_id}  ", "SUCCESS", f"  {emulator.image_url}/s/"):
            await terminal.until(shown)
        await terminal.until("1 received, 1 confirmed")


async def test_nobody_reads(started, poster):
    """Where nobody reads its lines any more, it ends."""
    async with listening(started, KIE_API_KEY="") as command:
        url = await address(command)
        command.close_stdout()
        await poster.post(url)
        assert (await command.end()).code == DONE


async def test_half_a_request(started):
    """Ctrl-C does not wait for who has not yet said all."""
    async with listening(started, KIE_API_KEY="") as command:
        url = await address(command)
        port = int(url.split(":")[2].partition("/")[0])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /kie/callback HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        ended = await leave(command)
        writer.close()
    assert ended.code == INTERRUPTED
    assert ended.err.endswith("callbacks: none\n")


async def test_a_body_that_is_not_what_it_says(started, poster):
    """Who posts what cannot be unpacked writes no tracebacks over the screen."""
    async with listening(started, KIE_API_KEY="") as command:
        url = await address(command)
        for packing in ("br", "gzip"):
            headers = {"Content-Encoding": packing}
            async with poster.session.post(url, data=b"packed", headers=headers) as answer:
                assert answer.status == 400
        ended = await leave(command)
    assert "Traceback" not in ended.err
    assert ended.err.count("\n") <= 6


async def test_a_port_that_is_taken(run, emulator):
    """It cannot be had, which is said in a line."""
    port = emulator.url.rpartition(":")[2]
    ended = await run("listen", "--port", port)
    assert ended.code == USAGE
    assert ended.usage_error.startswith(f"cannot listen on 127.0.0.1, port {port}: ")


@pytest.mark.parametrize("path", ["/", "/kie/", "/a//b..c", "/\u00e9", "/a:b;c=d,e+f", "/<|>"])
async def test_paths(started, poster, path):
    """Whatever the path, callbacks are received at the URL that is said."""
    keys = {"KIE_CALLBACK_KEY": KEY, "KIE_API_KEY": ""}
    async with started("listen", "--port", "0", "--path", path, **keys) as command:
        assert await poster.post(await address(command)) == 200
        assert (await command.document())["taskId"] == TASK


NO_PATHS = ["kie", "", "/{kie}", "/a b", "/kie?key=1"]
OTHERS_IN_A_URL = ["/a%2Fb", "/%41", "/a%", "/./a", "/a/..", "/\udce9"]


@pytest.mark.parametrize("path", [*NO_PATHS, *OTHERS_IN_A_URL])
async def test_no_path(path):
    """A path is refused that no URL could have, or would have in other words."""
    with pytest.raises(UsageError, match="--path must be such as /kie/callback, not ") as refused:
        await listen(port=0, path=path)
    assert str(refused.value).endswith(repr(path))


NO_HOSTS = ["", " ", "..", "\udce9", f"{'a' * 70}.com", "me@h", "h/x", "h?x", "h#x", "[::1]"]


@pytest.mark.parametrize("host", NO_HOSTS)
async def test_no_host(run, host):
    """A host is refused that no URL could have, in one line and before anything is bound."""
    ended = await run("listen", "--port", "0", "--host", host)
    assert (ended.code, ended.out) == (USAGE, "")
    assert ended.usage_error.startswith("--host must be such as 127.0.0.1, not '")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1", "::1%1", "10.0.0.1", "example"])
def test_hosts(host):
    """Names and addresses of either kind will do, and a zone after one."""
    assert is_callback_host(host)


def test_keys(monkeypatch):
    """Keys are separated by commas, and whitespace around them is not part of them."""
    monkeypatch.setenv("KIE_CALLBACK_KEY", " one,, two three\n,")
    assert callback_keys() == ["one", "two three"]
    monkeypatch.delenv("KIE_CALLBACK_KEY")
    assert callback_keys() == []


@pytest.mark.parametrize(
    "command", ["listen --port 0", "collect an-id --listen 127.0.0.1:0", "emulator"]
)
@pytest.mark.parametrize("keys", ["secret, \udce9", "secret\nnew", "\ufeffsecret"])
async def test_keys_that_cannot_sign_are_refused(run, tmp_path, command, keys):
    """Keys that are not printable UTF-8 are refused in one line, which does not show them."""
    out = ("--out", str(tmp_path / "covers")) if command.startswith("collect") else ()
    ended = await run(*command.split(), *out, KIE_CALLBACK_KEY=keys)
    assert (ended.code, ended.out) == (USAGE, "")
    refusal = "KIE_CALLBACK_KEY must be printable UTF-8 (it is not shown here)"
    assert ended.usage_error == refusal


async def test_counts():
    """Whatever comes is counted by what it is, and what is refused stays refused."""
    queue = CallbackQueue(CallbackInbox(KEY))
    assert queue.summary() == "callbacks: none"
    signed = sign_callback(TASK, KEY)
    for sent in (body(), body(), body(images=[])):
        queue.receive(signed, sent)
    for headers, error in [({}, SignatureError), (sign_callback(TASK, "?"), SignatureError)]:
        with pytest.raises(error):
            queue.receive(headers, body())
    with pytest.raises(InvalidResponseError):
        queue.receive(signed, b"{")
    assert dict(queue.counts) == {
        "received": 1,
        "repeated": 2,
        "signature is missing": 1,
        "signature does not match": 1,
        "unreadable": 1,
    }
    assert (await queue.next()).task_id == TASK


FOUND = [
    (CoverOutcome(task_id=TASK, error=ServerError(code=500)), False),
    (CoverOutcome(task_id=TASK, details=structure_details({"taskId": TASK})), False),
    (
        CoverOutcome(task_id=TASK, details=structure_details({"taskId": TASK, "successFlag": 3})),
        True,
    ),
]


@pytest.mark.parametrize(("outcome", "is_end"), FOUND, ids=["error", "not terminal", "terminal"])
async def test_a_confirmed_end_is_no_news(outcome, is_end):
    """Once a poll has shown the end of a job, other words about it are repetitions."""
    queue = CallbackQueue(CallbackInbox())
    queue.receive({}, body())
    assert not queue.is_confirmed(TASK)
    assert queue.confirm(outcome) is is_end
    assert queue.is_confirmed(TASK) is is_end
    queue.receive({}, body(images=["https://images.example/1.png"]))
    assert queue.counts["repeated"] == is_end


async def test_flood_is_bounded(monkeypatch):
    """What is not yet polled is bounded; the rest is counted and forgotten."""
    monkeypatch.setattr("kie_cover_async.cli.commands.listen._MAX_QUEUED", 100)
    queue = CallbackQueue(CallbackInbox())
    for number in range(105):
        queue.receive({}, body(f"task-{number}"))
    assert dict(queue.counts) == {"received": 100, "dropped, too many": 5}
