"""`emulator`: the announcement, the options, and the end."""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from attrs import define, field

from kie_cover_async import CoverClient, CoverFailedError, KieCoverError, RetryPolicy
from kie_cover_async.cli.commands.emulator import fault_rates, parse_range
from kie_cover_async.cli.output import INTERRUPTED, USAGE, UsageError


@define
class Receiver:
    """A server that receives callbacks."""

    url: str = ""
    received: asyncio.Queue[tuple[Mapping[str, str], bytes]] = field(factory=asyncio.Queue)

    async def receive(self, request: web.Request) -> web.Response:
        self.received.put_nowait((request.headers, await request.read()))
        return web.Response()

    async def next(self) -> tuple[Mapping[str, str], bytes]:
        return await asyncio.wait_for(self.received.get(), 10)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/covers", receiver.receive)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/covers"))
        yield receiver


IMPATIENT = RetryPolicy(max_attempts=1, initial_delay=0.001, max_delay=0.001)


async def test_emulator_announces_its_url_and_serves_until_ctrl_c(started):
    """The announcement has the environment to export."""
    arguments = ("emulator", "--generation-time", "0", "--failure-rate", "1", "--seed", "7")
    async with started(*arguments) as command:
        announced = await command.document()
        settings = announced["environment"]
        assert announced["url"] == settings["KIE_BASE_URL"]
        assert announced["pollUrls"] == {
            "suno": f"{announced['url']}/api/v1/suno/cover/record-info",
            "market": f"{announced['url']}/api/v1/jobs/recordInfo",
        }
        async with CoverClient(settings["KIE_API_KEY"], base_url=announced["url"]) as client:
            with pytest.raises(CoverFailedError):
                await client.generate_and_wait("a-song", callback_url="http://x")
        command.interrupt()
        ended = await command.end()
    assert ended.code == INTERRUPTED
    assert ended.err == "callbacks to 'x' are dropped: the emulator posts to loopback only\n"


async def test_callbacks_are_duplicated_and_signed_as_the_options_say(started, receiver):
    """The first of several keys signs."""
    arguments = ("emulator", "--generation-time", "0", "--duplicated-callbacks", "1")
    async with started(*arguments, KIE_CALLBACK_KEY=" a-key , another") as command:
        settings = (await command.document())["environment"]
        async with CoverClient(
            settings["KIE_API_KEY"], base_url=settings["KIE_BASE_URL"]
        ) as client:
            task_id = await client.generate_cover("a-song", callback_url=receiver.url)
        requests = [await receiver.next(), await receiver.next()]
    for headers, body in requests:
        assert json.loads(body)["data"]["taskId"] == task_id
        signed = f"{task_id}.{headers['X-Webhook-Timestamp']}".encode()
        right = base64.b64encode(hmac.digest(b"a-key", signed, "sha256")).decode()
        assert headers["X-Webhook-Signature"] == right


async def test_callbacks_are_lost_and_forged_as_the_options_say(started, receiver):
    """The forged one has no signature without a key."""
    arguments = ("emulator", "--generation-time", "0", "--lost-callbacks", "1")
    more = ("--forged-callbacks", "1", "--late-callbacks", "1", "--wrong-signatures", "1")
    async with started(*arguments, *more, before="speed_up(10)") as command:
        settings = (await command.document())["environment"]
        async with CoverClient(
            settings["KIE_API_KEY"], base_url=settings["KIE_BASE_URL"]
        ) as client:
            await client.generate_cover("a-song", callback_url=receiver.url)
        headers, body = await receiver.next()
    assert b"forged.example" in body
    assert "X-Webhook-Signature" not in headers


async def test_terminal_gets_two_lines_to_copy(on_terminal):
    """And commands to try, one for each route."""
    async with on_terminal("emulator") as terminal:
        await terminal.wait_for("generate some-song --callback-url http://127.0.0.1:8080/")
        await terminal.wait_for("generate some-song --route market")
        terminal.interrupt()
        ended = await terminal.end()
    assert "\r\nexport KIE_BASE_URL=http://127.0.0.1:" in ended.out
    assert "\r\nexport KIE_API_KEY=" in ended.out
    assert ended.code == INTERRUPTED


async def test_port_in_use_is_a_usage_error(run, emulator):
    """The message names it."""
    port = urlsplit(emulator.url).port
    ended = await run("emulator", "--port", str(port))
    assert ended.code == USAGE
    assert ended.usage_error.startswith(f"cannot listen on port {port}: ")


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ("--failure-rate 0.7 --stuck-rate 0.7", "--failure-rate and --stuck-rate must be"),
        ("--seed \udce9", r"--seed must be UTF-8, not '\udce9'"),
        ("--generation-time soon", "--generation-time must be seconds"),
    ],
)
async def test_invalid_options_are_rejected_by_name(run, arguments, refusal):
    """The message is the emulator's or the command's own."""
    ended = await run("emulator", *arguments.split())
    assert (ended.code, ended.out) == (USAGE, "")
    assert ended.usage_error.startswith(refusal)


async def test_fault_rate_of_1_leaves_no_right_answer(started):
    """The faults are of several kinds."""
    async with started("emulator", "--fault-rate", "1", "--seed", "1") as command:
        url = (await command.document())["url"]
        async with CoverClient("a-key", base_url=url, retry=IMPATIENT) as client:
            seen = {await trouble(client) for _ in range(8)}
    assert len(seen) > 2


async def trouble(client: CoverClient) -> type[KieCoverError]:
    with pytest.raises(KieCoverError) as caught:
        await client.get_credits()
    return caught.type


def test_every_fault_is_equally_frequent():
    """The rules apply one after the other, each to the same share of all answers."""
    untouched, shares = 1.0, []
    for rate in fault_rates(0.5):
        shares.append(untouched * rate)
        untouched *= 1 - rate
    assert shares == pytest.approx([0.1] * 5)
    assert untouched == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "range_"),
    [("5", (5, 5)), ("2-8", (2, 8)), ("0", (0, 0)), ("5-", (5, 5)), ("0.5-0.75", (0.5, 0.75))],
)
def test_generation_time_is_a_number_or_a_range(text, range_):
    """Both are in seconds."""
    assert parse_range(text) == range_


@pytest.mark.parametrize("text", ["", "-", "-1", "8-2", "inf", "2-inf", "nan", "1-nan", "1e"])
def test_invalid_generation_time_is_rejected(text):
    """The message has examples."""
    with pytest.raises(UsageError, match="such as 5 or 2-8"):
        parse_range(text)
