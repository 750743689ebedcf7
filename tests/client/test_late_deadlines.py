"""A deadline whose timer fires late throws away nothing that arrived in the meantime.

The peers here write their answer and then block the event loop, which is also the client's, until
the deadline is over: the answer is in the client's socket, and no task could read it.
"""

import asyncio
import json
import time

import pytest
from aiohttp import TraceConfig
from support.raw_peer import REQUEST, SILENCE

from kie_cover_async import (
    AuthenticationError,
    CoverTimeoutError,
    DownloadError,
    RetryPolicy,
    TransportError,
)

ONCE = RetryPolicy(max_attempts=1)
CALLBACK = "https://example.com/covers"
# Seconds: a deadline, and a time for which the loop is blocked from somewhere before it.
SHORT, BLOCKED = 0.15, 0.3


def answer(body, fields=b""):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), fields, body)


def record(**data):
    return answer(json.dumps({"code": 200, "data": {"taskId": "task", **data}}).encode())


CREDITS = answer(b'{"code":200,"data":1.5}')
# More than the loop reads from a socket in one pass.
LONG_CREDITS = answer(b'{"code":200,"data":1.5,"msg":"%s"}' % (b"x" * 1_000_000))
ACCEPTED = answer(b'{"code":200,"data":{"taskId":"task"}}')
GENERATING = record(successFlag=2)
DONE = record(successFlag=1, response={"images": ["https://a/b.png"]})
UNAUTHORIZED = answer(b'{"code":401,"msg":"Unauthorized"}')


async def BLOCK(_):  # noqa: N802 - it stands among the steps of a script
    """Block the loop, and the peer's next steps with it."""
    block()


def block():
    time.sleep(BLOCKED)


async def FREEZE(_):  # noqa: N802 - it stands among the steps of a script
    """Let the loop's clock say that the process was stopped for a minute."""
    asyncio.get_running_loop()._clock.now += 60.0


@pytest.mark.parametrize("said", [CREDITS, LONG_CREDITS], ids=["short", "long"])
async def test_an_answer_in_the_socket_is_read(play, connect, said):
    """An answer that arrived while the loop was blocked past the deadline counts."""
    peer = await play([said, BLOCK, SILENCE])
    assert await connect(peer, retry=ONCE, request_timeout=SHORT).get_credits() == 1.5


async def test_the_rest_of_a_body_in_the_socket_is_read(play, connect):
    """This also applies to the rest of a body that was partly read."""
    peer = await play([CREDITS[:-9], 0.05, CREDITS[-9:], BLOCK, SILENCE])
    assert await connect(peer, retry=ONCE, request_timeout=SHORT).get_credits() == 1.5


async def test_the_id_of_an_accepted_submit_is_not_lost(play, connect):
    """A submit whose answer arrived in time returns its id."""
    peer = await play([ACCEPTED, BLOCK, SILENCE])
    client = connect(peer, retry=ONCE, submit_timeout=SHORT)
    assert await client.generate_cover("song", callback_url=CALLBACK) == "task"
    assert len(peer.requests) == 1


async def test_no_answer_is_waited_for_after_a_late_deadline(play, connect):
    """If nothing came while the loop was blocked, the request ends little later."""
    peer = await play([BLOCK, SILENCE])
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(TransportError, match=r"no answer within 0\.15 s"):
        await connect(peer, retry=ONCE, request_timeout=SHORT).get_credits()
    assert loop.time() - started < BLOCKED + 2 * SHORT + 0.5


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_submit_is_not_sent_after_its_time_to_connect(
    play, connect, make_session, attempts
):
    """A submit whose connection was there too late is not sent on it; a retry is allowed."""
    peer = await play([ACCEPTED])
    blocks = [block]

    async def block_once(*_):
        while blocks:
            blocks.pop()()

    tracing = TraceConfig()
    tracing.on_connection_create_end.append(block_once)
    client = connect(
        peer,
        session=make_session(trace_configs=[tracing]),
        retry=RetryPolicy(max_attempts=attempts, initial_delay=0.01),
        submit_connect_timeout=SHORT,
    )
    submitting = client.generate_cover("song", callback_url=CALLBACK)
    if attempts == 1:
        with pytest.raises(TransportError, match="too late to send") as caught:
            await submitting
        assert not caught.value.connected
        assert not caught.value.maybe_accepted
        assert caught.value.retryable
    else:
        assert await submitting == "task"
    assert len(peer.requests) == attempts - 1


async def test_a_wait_takes_the_answer_in_the_socket(play, connect):
    """A poll that was answered while the loop was blocked past the wait's deadline is not lost."""
    peer = await play([DONE, BLOCK, SILENCE])
    details = await connect(peer).wait_for_cover("task", timeout=SHORT)
    assert details.is_success
    assert len(peer.requests) == 1


async def test_a_wait_polls_once_after_a_blocked_loop(play, connect):
    """If a job ended while the loop was blocked past the wait's deadline, the cover is returned."""
    peer = await play([GENERATING, BLOCK, REQUEST, DONE, SILENCE])
    details = await connect(peer, schedule=Never()).wait_for_cover("task", timeout=SHORT)
    assert details.is_success
    assert len(peer.requests) == 2


async def test_joined_waits_share_the_poll_after_a_blocked_loop(play, connect):
    """Waits for the same cover share that poll."""
    peer = await play([GENERATING, BLOCK, REQUEST, DONE, SILENCE])
    client = connect(peer, schedule=Never())
    waits = [client.wait_for_cover("task", timeout=SHORT) for _ in range(3)]
    assert all(details.is_success for details in await asyncio.gather(*waits))
    assert len(peer.requests) == 2


LAST_POLLS = {
    "generating": (GENERATING, CoverTimeoutError),
    "silence": (b"", CoverTimeoutError),
    "a final error": (UNAUTHORIZED, AuthenticationError),
}


@pytest.mark.parametrize(("said", "error"), LAST_POLLS.values(), ids=LAST_POLLS)
async def test_the_poll_after_a_blocked_loop_ends_the_wait(play, connect, said, error):
    """Any result of that poll ends the wait, within the request timeout."""
    peer = await play([GENERATING, BLOCK, REQUEST, said, SILENCE])
    client = connect(peer, schedule=Never(), request_timeout=SHORT)
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(error) as caught:
        await client.wait_for_cover("task", timeout=SHORT)
    assert caught.value.task_id == "task"
    assert len(peer.requests) == 2
    assert loop.time() - started < BLOCKED + 2 * SHORT + 0.5


async def test_the_poll_after_a_blocked_loop_queues_at_most_one_request_timeout(
    instant_time, play, connect
):
    """If the poll is not sent within the request timeout, the wait ends without it."""
    peer = await play([GENERATING, FREEZE, SILENCE])
    client = connect(peer, schedule=Never(), request_timeout=5.0)
    with pytest.raises(CoverTimeoutError) as caught:
        await client.wait_for_cover(
            "task", timeout=30.0, on_update=lambda _: client.rate_limiter.pause(1000.0)
        )
    assert caught.value.waited == pytest.approx(66.0, abs=0.5)
    assert len(peer.requests) == 1


async def test_a_timeout_of_on_update_is_not_the_deadline(instant_time, play, connect):
    """A `TimeoutError` that `on_update` raises after the last poll is passed on."""
    peer = await play([GENERATING, FREEZE, REQUEST, GENERATING, SILENCE])
    outcomes = iter([None, TimeoutError("mine")])

    def on_update(_):
        if error := next(outcomes):
            raise error

    with pytest.raises(TimeoutError, match="mine"):
        await connect(peer, schedule=Never()).wait_for_cover(
            "task", timeout=30.0, on_update=on_update
        )


async def test_a_punctual_deadline_stays_hard(instant_time, play, connect):
    """A wait whose deadline comes in time polls no more."""
    peer = await play([GENERATING, SILENCE])
    started = instant_time.elapsed
    with pytest.raises(CoverTimeoutError):
        await connect(peer, schedule=Never()).wait_for_cover("task", timeout=10.0)
    assert instant_time.elapsed - started == pytest.approx(10.0)
    # The one shortly before the deadline is not answered.
    assert len(peer.requests) == 1


NOT_FOUND = answer(b'{"code":422,"msg":"recordInfo is null"}')
WITHOUT_IMAGES = record(successFlag=1)


GRACES = {
    "no record": [NOT_FOUND],
    "no record again": [NOT_FOUND, REQUEST, NOT_FOUND],
    "no images again": [WITHOUT_IMAGES, REQUEST, WITHOUT_IMAGES],
}


@pytest.mark.parametrize("script", GRACES.values(), ids=GRACES)
async def test_a_grace_does_not_end_without_a_recent_poll(instant_time, play, connect, script):
    """An outdated answer does not end a wait; the next poll finds the cover."""
    peer = await play([*script, FREEZE, REQUEST, DONE, SILENCE])
    client = connect(peer)
    assert (await client.wait_for_cover("task", not_found_grace=30.0)).is_success


class Never:
    """Plans no poll before the last one, which comes shortly before the deadline."""

    def delay(self, age, pressure):
        return 1e6


IMAGE = b"x" * 40


async def whole(body):
    return b"".join([piece async for piece in body])


DOWNLOADS = {
    "the whole image": [answer(IMAGE), BLOCK, SILENCE],
    "the body": [answer(IMAGE)[:-40], 0.02, IMAGE, BLOCK, SILENCE],
    "half of the body": [answer(IMAGE)[:-20], 0.02, IMAGE[20:], BLOCK, SILENCE],
    "a slow body": [answer(IMAGE * 2)[:-80], 0.02, IMAGE, BLOCK, 0.02, IMAGE, SILENCE],
}


@pytest.mark.parametrize("script", DOWNLOADS.values(), ids=DOWNLOADS)
async def test_a_download_reads_what_is_in_the_socket(play, connect, script):
    """An image that arrived while the loop was blocked is complete, not too slow."""
    peer = await play(script)
    client = connect(peer, retry=ONCE, request_timeout=SHORT)
    assert set(await client.downloader.fetch(peer.url, whole)) == set(IMAGE)


async def test_a_download_without_data_ends_after_a_late_deadline(play, connect):
    """If nothing arrived while the loop was blocked, the download ends soon after."""
    peer = await play([answer(IMAGE)[:-20], BLOCK, SILENCE])
    client = connect(peer, retry=ONCE, request_timeout=SHORT)
    with pytest.raises(DownloadError, match=r"nothing came for 0\.15 s"):
        await client.downloader.fetch(peer.url, whole)
