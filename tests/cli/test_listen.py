"""`listen`: the callbacks that have a line, and those that are only counted."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial

import pytest
from aiohttp import ClientSession
from attrs import frozen

from kie_cover_async import (
    CoverOutcome,
    CoverState,
    InvalidResponseError,
    ServerError,
    SignatureError,
    structure_details,
)
from kie_cover_async.callbacks import CallbackInbox, sign_callback
from kie_cover_async.cli.callback_server import callback_keys, is_callback_host
from kie_cover_async.cli.commands.collect import collect
from kie_cover_async.cli.commands.emulator import emulator as emulate
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
    """Return the callback URL that the command has announced."""
    message = await command.message(" until Ctrl-C.\n")
    return message.split()[-3]


async def leave(command):
    """Interrupt the command and return its output."""
    command.interrupt()
    return await asyncio.wait_for(command.end(), 20)


@frozen
class Poster:
    """A client that posts callbacks."""

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


@pytest.mark.usefixtures("route")
async def test_confirmed_callback_has_one_line_with_the_poll(started, start, poster):
    """Repetitions have none."""
    emulator = await start(callback_key=KEY)
    async with listening(started, emulator) as command:
        url = await address(command)
        jobs = [emulator.add_job(script, callback_url=url) for script in (AT_ONCE, FAILED)]
        lines = [await command.document() for _ in jobs]
        assert [await poster.post(url, job) for job in jobs] == [200, 200]
        ended = await leave(command)
    records = {line["taskId"]: line for line in lines}
    states = [structure_details(records[job]).state for job in jobs]
    assert states == [CoverState.SUCCESS, CoverState.GENERATE_COVER_FAILED]
    assert len(records[jobs[0]]["response"]["images"]) == 2
    assert {line["confirmed"] for line in lines} == {True}
    assert (ended.code, ended.out) == (INTERRUPTED, "")
    assert ended.err.startswith("callbacks: 2 received, ")
    for count in ("2 repeated", "2 confirmed"):
        assert count in ended.err


async def test_forged_callbacks_add_no_images_and_no_ends(started, start):
    """Each end has one line."""
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


async def test_callback_before_the_end_confirms_nothing(started, start, poster):
    """The next one is polled again."""
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


async def test_callback_with_a_wrong_signature_costs_no_poll(started, start, poster):
    """It has no line on stdout, but one on stderr."""
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


async def test_two_callbacks_for_one_end_have_one_line(started, start, poster):
    """They were queued together."""
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


async def test_failed_poll_has_a_line_with_its_error(started, start, poster):
    """It confirms nothing."""
    emulator = await start()
    async with listening(started, emulator) as command:
        await poster.post(await address(command))
        line = await command.document()
    assert (line["taskId"], line["error"]) == (TASK, "TaskNotFoundError")
    assert line["confirmed"] is False


async def test_without_an_api_key_the_line_is_the_claim(started, poster):
    """It is not confirmed."""
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


async def test_without_a_callback_key_anyone_can_send_callbacks(started, poster):
    """A line on stderr says so."""
    async with listening(started, KIE_API_KEY="", KIE_CALLBACK_KEY="") as command:
        url = await address(command)
        assert await command.message() == "Anyone can send them: KIE_CALLBACK_KEY has no key.\n"
        assert await poster.post(url, key="whatever") == 200
        assert (await command.document())["taskId"] == TASK
        await leave(command)


async def test_terminal_shows_claims_above_the_counts(on_terminal, poster):
    """A claim is a line of text."""
    env = {"KIE_CALLBACK_KEY": KEY, "KIE_API_KEY": ""}
    async with on_terminal("listen", "--port", "0", **env) as terminal:
        await terminal.wait_for(" until Ctrl-C.")
        url = terminal.shown.partition("received at ")[2].split()[0]
        await poster.post(url, images=["https://images.example/\x1b[2J1.png"])
        await poster.post(url, "another", images=["https://images.example/2.png"])
        await poster.post(url, key="a wrong one")
        await terminal.wait_for("2 received, 1 signature does not match")
        terminal.interrupt()
        ended = await terminal.end()
    assert f"{TASK}  says 200 success\r\n" in ended.out
    assert "another  says 200 success, claims https://images.example/2.png\r\n" in ended.out
    assert ended.code == INTERRUPTED


async def test_terminal_shows_polls_as_text(on_terminal, start):
    """The counts stand below."""
    emulator = await start(callback_key=KEY)
    env = {"KIE_CALLBACK_KEY": KEY, "KIE_BASE_URL": emulator.url}
    async with on_terminal("listen", "--port", "0", **env) as terminal:
        await terminal.wait_for(" until Ctrl-C.")
        url = terminal.shown.partition("received at ")[2].split()[0]
        task_id = emulator.add_job(AT_ONCE, callback_url=url)
        # One by one, because there are codes of a colour between them.
        for shown in (f"{task_id}  ", "SUCCESS", f"  {emulator.image_url}/s/"):
            await terminal.wait_for(shown)
        await terminal.wait_for("1 received, 1 confirmed")


async def test_reader_that_goes_away_ends_the_command(started, poster):
    """That is not an error."""
    async with listening(started, KIE_API_KEY="") as command:
        url = await address(command)
        command.close_stdout()
        await poster.post(url)
        assert (await command.end()).code == DONE


async def test_ctrl_c_does_not_wait_for_half_a_request(started):
    """The client has not sent the body."""
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


async def test_undecodable_body_is_not_a_traceback(started, poster):
    """It is answered with 400."""
    async with listening(started, KIE_API_KEY="") as command:
        url = await address(command)
        for packing in ("br", "gzip"):
            headers = {"Content-Encoding": packing}
            async with poster.session.post(url, data=b"packed", headers=headers) as answer:
                assert answer.status == 400
        ended = await leave(command)
    assert "Traceback" not in ended.err
    assert ended.err.count("\n") <= 6


async def test_port_in_use_is_a_usage_error(run, emulator):
    """The message names the address."""
    port = emulator.url.rpartition(":")[2]
    ended = await run("listen", "--port", port)
    assert ended.code == USAGE
    assert ended.usage_error.startswith(f"cannot listen on 127.0.0.1, port {port}: ")
    assert "attempting" not in ended.usage_error


@pytest.mark.parametrize("path", ["/", "/kie/", "/a//b..c", "/\u00e9", "/a:b;c=d,e+f", "/<|>"])
async def test_callbacks_are_received_at_the_announced_url(started, poster, path):
    """The path may be unusual."""
    keys = {"KIE_CALLBACK_KEY": KEY, "KIE_API_KEY": ""}
    async with started("listen", "--port", "0", "--path", path, **keys) as command:
        assert await poster.post(await address(command)) == 200
        assert (await command.document())["taskId"] == TASK


NO_PATHS = ["kie", "", "/{kie}", "/a b", "/kie?key=1"]
OTHERS_IN_A_URL = ["/a%2Fb", "/%41", "/a%", "/./a", "/a/..", "/\udce9"]


@pytest.mark.parametrize("path", [*NO_PATHS, *OTHERS_IN_A_URL])
async def test_invalid_path_is_rejected(path):
    """A URL cannot have it, or would write it differently."""
    with pytest.raises(
        UsageError, match="--path must be a path such as /kie/callback, not "
    ) as refused:
        await listen(port=0, path=path)
    assert str(refused.value).endswith(repr(path))


NO_HOSTS = ["", " ", "..", "\udce9", f"{'a' * 70}.com", "me@h", "h/x", "h?x", "h#x", "[::1]"]


@pytest.mark.parametrize("host", NO_HOSTS)
async def test_invalid_host_is_rejected(host):
    """Nothing is bound."""
    with pytest.raises(UsageError, match=r"^--host must be a host such as 127\.0\.0\.1, not '"):
        await listen(port=0, host=host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1", "::1%1", "10.0.0.1", "example"])
def test_host_may_be_a_name_or_an_address(host):
    """An IPv6 address may have a zone."""
    assert is_callback_host(host)


def test_keys_are_separated_by_commas(monkeypatch):
    """Whitespace around them is not part of them."""
    monkeypatch.setenv("KIE_CALLBACK_KEY", " one,, two three\n,")
    assert callback_keys() == ["one", "two three"]
    monkeypatch.delenv("KIE_CALLBACK_KEY")
    assert callback_keys() == []


COMMANDS = {
    "listen": partial(listen, port=0),
    "collect": partial(collect, ["an-id"], listen="127.0.0.1:0"),
    "emulator": emulate,
}


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("keys", ["secret, \udce9", "secret\nnew", "\ufeffsecret"])
async def test_keys_that_cannot_sign_are_rejected(monkeypatch, tmp_path, command, keys):
    """The message does not show them."""
    monkeypatch.setenv("KIE_CALLBACK_KEY", keys)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as rejected:
        await command()
    message = "KIE_CALLBACK_KEY must be printable UTF-8 (it is not shown here)"
    assert str(rejected.value) == message


async def test_callbacks_are_counted_by_kind():
    """Refused callbacks raise as they do without the queue."""
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
async def test_callback_after_the_confirmed_end_is_a_repetition(outcome, is_end):
    """It may have other content."""
    queue = CallbackQueue(CallbackInbox())
    queue.receive({}, body())
    assert not queue.is_confirmed(TASK)
    assert queue.confirm(outcome) is is_end
    assert queue.is_confirmed(TASK) is is_end
    queue.receive({}, body(images=["https://images.example/1.png"]))
    assert queue.counts["repeated"] == is_end


async def test_queue_is_bounded(monkeypatch):
    """Further callbacks are counted and dropped."""
    monkeypatch.setattr("kie_cover_async.cli.commands.listen._MAX_QUEUED", 100)
    queue = CallbackQueue(CallbackInbox())
    for number in range(105):
        queue.receive({}, body(f"task-{number}"))
    assert dict(queue.counts) == {"received": 100, "dropped, too many": 5}
