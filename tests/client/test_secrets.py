import asyncio
import copy
import json
import logging
import pickle
import traceback
from functools import partial

import aiohttp
import attrs
import pytest
from multidict import CIMultiDict
from support.raw_peer import RESET, SILENCE

from kie_cover_async import (
    ClientClosedError,
    CoverClient,
    CoverFailedError,
    CoverTimeoutError,
    KieCoverError,
    RateLimiter,
    RetryPolicy,
)
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault

KEY = 'sk-S3CR3T/k"e\\y+42=='
CALLBACK = "https://example.com/covers"

AS_JSON = json.dumps(f"no such key: Bearer {KEY}")
SLASHED = AS_JSON.replace("/", "\\/")
ESCAPED = "".join(f"\\u{ord(letter):04X}" for letter in KEY)

ECHOES = {
    "in the message": Fault.answer(200, {"code": 401, "msg": f"bad key {KEY}"}),
    "with slashes escaped": Fault.answer(200, f'{{"code":422,"msg":{SLASHED}}}'),
    "with all escaped": Fault.answer(200, f'{{"code":500,"msg":"{ESCAPED}"}}'),
    "by a rate limit": Fault.answer(429, {"code": 429, "msg": KEY}, {"Retry-After": "0.01"}),
    "in HTML": Fault.answer(502, f"<html>{KEY}</html>", {"Content-Type": "text/html"}),
    "in HTML with status 200": Fault.answer(200, KEY, {"Content-Type": "text/html"}),
    "in the data": Fault.answer(200, {"code": 200, "data": KEY}),
    "as a field's name": Fault.answer(200, {KEY: KEY}),
    "as the code": Fault.answer(200, {"code": KEY}),
    "in the request's id": Fault.answer(500, b"", {"cf-ray": KEY}),
    "in a redirect": Fault.answer(302, b"", {"Location": f"http://127.0.0.1:9/{KEY}"}),
    "in a record": Fault.answer(200, {"code": 200, "data": {"taskId": KEY, "successFlag": KEY}}),
    "in a wrong flag": Fault.replace("data.successFlag", [KEY]),
    "in an unknown flag": Fault.replace("data.successFlag", KEY),
    "in a state of another type": Fault.replace("data.state", [KEY]),
    "in an unknown state": Fault.replace("data.state", KEY),
    "in an unreadable result": Fault.replace("data.resultJson", KEY),
    "in an odd time": Fault.replace("data.createTime", KEY),
    "in unreadable images": Fault.replace("data.response", {"images": [KEY]}),
    "in an encoding": Fault.answer(200, b"abc", {"Content-Encoding": "gzip", "cf-ray": KEY}),
    "by silence": Fault.stall(),
    "by a reset": Fault.reset(),
    "by a reset midway": Fault.reset(midway=True),
}


def chain(error):
    """The error, and whatever hangs on it."""
    found, left = [], [error]
    while left:
        error = left.pop()
        if error is not None and error not in found:
            found.append(error)
            left += [error.__cause__, error.__context__]
    return found


def texts(error):
    """All that could be printed of an error: by hand, by a traceback, by a log."""
    for each in chain(error):
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)))
        yield from getattr(each, "__notes__", ())
        yield "".join(traceback.format_exception(each))
        yield from locals_of(each)
        for part in getattr(each, "exceptions", ()):
            yield from texts(part)


def locals_of(error):
    """What stood in the frames below the test's own, as some loggers show it with a traceback."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename != __file__:
            yield from map(repr, frame.f_locals.values())


def shows_the_key(text):
    return any(form in text for form in (KEY, AS_JSON[-17:-1], repr(KEY)[1:-1], "S3CR3T"))


@pytest.fixture
def secretive(stack, caplog):
    """Make a client with a key that must not be shown, with all logging on."""
    caplog.set_level(logging.DEBUG)

    def connect(server, **settings):
        settings = {
            "request_timeout": 0.25,
            "submit_timeout": 0.25,
            "retry": RetryPolicy(max_attempts=2, initial_delay=0.01),
            "rate_limiter": RateLimiter.unlimited(),
            "submit_rate_limiter": RateLimiter.unlimited(),
            **settings,
        }
        client = CoverClient(KEY, base_url=server.url, **settings)
        stack.push_async_callback(client.aclose)
        return client

    yield connect
    for record in caplog.get_records("call"):
        said = [record.getMessage(), repr(record.args), record.exc_text or ""]
        assert not any(map(shows_the_key, said)), said


async def errors_of(*calls):
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    return [outcome for outcome in outcomes if isinstance(outcome, BaseException)]


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
async def test_an_echo_of_the_key_is_hidden(route, emulator, secretive, echo):
    """If a server repeats the key, no error and no log line shows it."""
    asyncio.get_running_loop().set_debug(True)
    events = []
    client = secretive(emulator, observer=events.append)
    task_ids = [emulator.add_job(CoverScript(statuses=["success"])) for _ in range(2)]
    emulator.fault(echo, rate=1.0)
    errors = await errors_of(
        client.get_cover_details(task_ids[0]),
        client.wait_for_cover(task_ids[1], timeout=0.1),
        client.generate_cover("one", callback_url=CALLBACK),
        client.generate_and_wait("two", callback_url=CALLBACK, timeout=0.1),
        client.get_credits(),
        client.get_download_url("https://example.com/image.png"),
    )
    errors += [event.error for event in events if getattr(event, "error", None) is not None]
    assert errors
    assert all(isinstance(error, KieCoverError) for error in errors)
    assert not [text for error in errors for text in texts(error) if shows_the_key(text)]


async def test_a_failure_that_names_the_key_is_hidden(emulator, secretive):
    """The key is masked in the error of a failed or unfinished job, too."""
    client = secretive(emulator)
    failed = emulator.add_job(CoverScript(statuses=["failure"], error_message=KEY, error_code=KEY))
    with pytest.raises(CoverFailedError) as caught:
        await client.wait_for_cover(failed)
    assert "***" in str(caught.value)
    assert not any(map(shows_the_key, texts(caught.value)))
    emulator.fault(Fault.replace("data.successFlag", KEY), rate=1.0)
    with pytest.raises(CoverTimeoutError) as caught:
        await client.wait_for_cover(emulator.add_job(), timeout=0.1)
    assert not any(map(shows_the_key, texts(caught.value)))


@pytest.mark.parametrize("line", [f"{KEY}\r\n", f"HTTP/1.1 200 OK\r\n{KEY}\r\n"])
async def test_an_echo_in_invalid_http_is_hidden(play, secretive, line):
    """aiohttp's error about bytes that it cannot parse does not show the key."""
    server = await play([line.encode() + b"\r\n"])
    [error] = await errors_of(secretive(server).get_credits())
    assert isinstance(error, KieCoverError)
    assert not any(map(shows_the_key, texts(error)))


HEADERS = f"HTTP/1.1 500 Oops\r\ncf-ray: {KEY}\r\nX-Echo: {KEY}\r\nContent-Length: 999\r\n\r\n"


@pytest.mark.parametrize("ending", [[], [SILENCE], [RESET]], ids=["end", "silence", "reset"])
@pytest.mark.parametrize("status", [200, 407, 500])
async def test_an_echo_in_a_broken_answer_is_hidden(play, secretive, status, ending):
    """An answer that repeats the key and breaks off leaves no trace of it."""
    said = HEADERS.replace("500 Oops", f"{status} So") + KEY
    client = secretive(await play([said.encode(), *ending]))
    errors = await errors_of(
        client.get_credits(),
        client.wait_for_cover("id", timeout=0.1),
        client.generate_cover("song", callback_url=CALLBACK),
    )
    assert len(errors) == 3
    assert not [text for error in errors for text in texts(error) if shows_the_key(text)]


async def test_a_cancellation_in_a_body_shows_no_key(play, secretive, eventually):
    """What a call was reading when it was cancelled is not among its frames' variables."""
    peer = await play([HEADERS.encode(), KEY.encode(), SILENCE])
    client = secretive(peer, request_timeout=5.0)
    call = asyncio.create_task(client.get_credits())
    await eventually(lambda: peer.bytes_sent == len(HEADERS) + len(KEY))
    await asyncio.sleep(0.05)
    call.cancel()
    [error] = await errors_of(call)
    assert isinstance(error, asyncio.CancelledError)
    assert not any(map(shows_the_key, texts(error)))


async def test_a_connection_that_fails_shows_no_key(emulator, secretive):
    """If no server listens, the error has no trace of the request."""
    client = secretive(emulator)
    await emulator.aclose()
    for error in await errors_of(
        client.get_credits(),
        client.wait_for_cover("id", timeout=0.1),
        client.generate_cover("song", callback_url=CALLBACK),
    ):
        assert not any(map(shows_the_key, texts(error)))


async def test_ending_a_call_shows_no_key(emulator, secretive, eventually):
    """A call that is closed, cancelled or refused does not show the key."""
    client = secretive(emulator, request_timeout=5.0, submit_timeout=5.0)
    emulator.fault(Fault.stall(), rate=1.0)
    calls = [
        asyncio.create_task(client.generate_cover(song, callback_url=CALLBACK)) for song in "ab"
    ]
    await eventually(lambda: len(emulator.requests) == 2)
    calls[0].cancel()
    await asyncio.sleep(0)
    await client.aclose()
    errors = await errors_of(*calls, client.get_credits())
    assert [type(error) for error in errors] == [
        asyncio.CancelledError,
        ClientClosedError,
        ClientClosedError,
    ]
    assert not [text for error in errors for text in texts(error) if shows_the_key(text)]


async def test_a_callers_timeout_shows_no_key(emulator, secretive):
    """The cancellation that caused it has no frames with the request."""
    client = secretive(emulator, request_timeout=5.0, submit_timeout=5.0)
    emulator.fault(Fault.stall(), rate=1.0)
    for call in (client.get_credits, partial(client.generate_cover, "song", callback_url=CALLBACK)):
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(call(), 0.05)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert not any(map(shows_the_key, texts(caught.value)))


async def test_a_session_that_cannot_be_used_shows_no_key(
    emulator, secretive, make_session, monkeypatch, tmp_path
):
    """The error for a session with other credentials shows neither these nor the key."""
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {KEY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    [error] = await errors_of(
        secretive(emulator, session=make_session(trust_env=True)).get_credits()
    )
    assert isinstance(error, ValueError)
    assert not any(map(shows_the_key, texts(error)))


def traced(fail, *signals):
    """Tracing of a session's owner that fails."""
    tracing = aiohttp.TraceConfig()
    for signal in signals:
        getattr(tracing, signal).append(fail)
    return [tracing]


async def fail(session, context, params):
    raise RuntimeError("mine")


async def fail_with_cause(session, context, params):
    try:
        return {}["one"]
    except KeyError as error:
        raise LookupError("mine") from error


async def fail_with_group(session, context, params):
    try:
        return {}["one"]
    except KeyError as error:
        raise ExceptionGroup("mine", [error, ZeroDivisionError("two")])  # noqa: B904


@pytest.mark.parametrize("failing", [fail, fail_with_cause, fail_with_group])
@pytest.mark.parametrize("signal", ["on_request_start", "on_request_end"])
async def test_tracing_that_fails_shows_no_key(emulator, secretive, make_session, failing, signal):
    """What the owner of an external session raises is passed on, and tells why it has no
    traceback.
    """
    client = secretive(emulator, session=make_session(trace_configs=traced(failing, signal)))
    errors = await errors_of(
        client.get_credits(),
        client.wait_for_cover("id"),
        client.generate_cover("song", callback_url=CALLBACK),
    )
    assert len(errors) == 3
    for error in errors:
        assert str(error).startswith("mine")
        assert "left out: the headers of the request" in error.__notes__[0]
        assert not any(map(shows_the_key, texts(error)))


async def test_a_failure_after_a_failure_shows_no_key(emulator, secretive, make_session):
    """Tracing that fails on hearing of aiohttp's error takes that error with it."""
    tracing = traced(fail, "on_request_exception")
    client = secretive(emulator, session=make_session(trace_configs=tracing))
    emulator.fault(Fault.reset(), rate=1.0)
    [error] = await errors_of(client.get_credits())
    assert (type(error), str(error)) == (RuntimeError, "mine")
    assert not any(map(shows_the_key, texts(error)))


def test_a_session_of_another_event_loop_shows_no_key():
    """aiohttp's error about a session of another loop does not show the key."""

    async def external():
        return aiohttp.ClientSession()

    async def use(session):
        async with CoverEmulator() as emulator:
            client = CoverClient(KEY, base_url=emulator.url, session=session)
            async with client:
                return await errors_of(
                    client.get_credits(), client.generate_cover("song", callback_url=CALLBACK)
                )

    with asyncio.Runner() as runner:
        session = runner.run(external())
        for error in asyncio.run(use(session)):
            assert isinstance(error, RuntimeError)
            assert not any(map(shows_the_key, texts(error)))
        runner.run(session.close())


async def test_no_repr_shows_the_key(emulator, secretive):
    """No object that holds the key has it in its repr."""
    client = secretive(emulator)
    await client.get_credits()
    transport = client._transport
    parts = [getattr(transport, part.name) for part in attrs.fields(type(transport))]
    for shown in (client, transport, *parts, *vars(transport.http_client).values()):
        if not isinstance(shown, CIMultiDict):  # the headers, which are shown to the API
            assert not shows_the_key(repr(shown))


@pytest.mark.parametrize("again", [copy.deepcopy, pickle.dumps], ids=["copied", "pickled"])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
async def test_a_client_cannot_be_pickled(emulator, secretive, used, again):
    """Pickling a client raises before it reaches the key."""
    client = secretive(emulator)
    if used:
        await client.get_credits()
    with pytest.raises(TypeError, match="a CoverClient must not be pickled"):
        again(client)


async def test_a_very_short_key_is_not_masked(emulator):
    """A key so short that it occurs in ordinary words is not masked in answers."""
    async with CoverClient("a", base_url=emulator.url) as client:
        task_id = emulator.add_job(CoverScript(statuses=["success"]), task_id="a-cat")
        assert (await client.get_cover_details(task_id)).is_success
