"""`generate_cover(on_sending=…)`: called before the first byte of a submit, which it can stop."""

import asyncio
import traceback

import pytest
from support.raw_peer import RawPeer

from kie_cover_async import RateLimitedError, RetryPolicy, TransportError
from kie_cover_async.emulator import Fault

CALLBACK = "https://example.com/covers"
ONCE = RetryPolicy(max_attempts=1)


async def record(connection):
    """Keep every byte that comes, and answer nothing."""
    while received := await connection.reader.read(4096):
        connection.peer.requests.append(received)


@pytest.fixture
async def peer(stack) -> RawPeer:
    """A server that accepts connections and records every byte."""
    return await stack.enter_async_context(RawPeer.of([record]))


@pytest.fixture(params=["own", "external"])
async def client(request, connect, make_session, peer):
    return connect(peer, session=make_session() if request.param == "external" else None)


def submit(client, **options):
    return client.generate_cover("song", callback_url=CALLBACK, **options)


async def test_nothing_is_sent_before_it_returns(peer, client, eventually):
    """It is awaited when the connection is made, and the request follows."""
    called, go_on = asyncio.Event(), asyncio.Event()

    async def on_sending():
        called.set()
        await go_on.wait()

    task = asyncio.create_task(submit(client, on_sending=on_sending))
    await called.wait()
    await eventually(lambda: peer.connections == 1)
    assert peer.requests == []
    go_on.set()
    await eventually(lambda: b"callBackUrl" in b"".join(peer.requests))
    task.cancel()


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_what_it_raises_stops_the_request(peer, client, eventually, caplog, is_async):
    """The server sees a connection without a byte; the caller gets the very error."""
    refusal = LookupError("another process has this song")

    def refuse():
        raise refusal

    async def refuse_later():
        await asyncio.sleep(0)
        raise refusal

    with pytest.raises(LookupError) as caught:
        await submit(client, on_sending=refuse_later if is_async else refuse)
    assert caught.value is refusal
    assert "raise refusal" in "".join(traceback.format_tb(refusal.__traceback__))
    await eventually(lambda: peer.connections == 1 and peer.open_connections == 0)
    assert peer.requests == []
    assert caplog.records == []


async def test_cancelling_it_stops_the_request(peer, client, eventually, caplog):
    """A call that is cancelled meanwhile sends nothing, and no warning is logged."""
    called = asyncio.Event()

    async def on_sending():
        called.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(submit(client, on_sending=on_sending))
    await called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: peer.connections == 1 and peer.open_connections == 0)
    assert peer.requests == []
    assert caplog.records == []


async def test_its_own_cancellation_ends_the_call(peer, client):
    """A cancelled future that it awaits ends the call without a byte, and not only at a timeout."""

    async def on_sending():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(submit(client, on_sending=on_sending), 3)
    assert peer.requests == []


async def test_time_to_connect_includes_it(peer, connect):
    """If it takes too long, nothing is sent, and the request was certainly not accepted."""
    client = connect(peer, submit_connect_timeout=0.1, retry=ONCE)
    with pytest.raises(TransportError, match="connected too late") as caught:
        await submit(client, on_sending=lambda: asyncio.sleep(0.2))
    assert (caught.value.maybe_accepted, caught.value.retryable) == (False, True)
    assert peer.requests == []


async def test_it_is_called_on_every_attempt(emulator, connect):
    """A submit that is repeated after a refusal calls it again, after the queues."""
    emulator.fault(Fault.rate_limited())
    called = []
    await submit(connect(emulator), on_sending=lambda: called.append(len(emulator.requests)))
    assert called == [0, 1]


async def test_retry_replaces_the_policy_of_the_client(emulator, connect):
    """With a policy of one attempt a refusal is raised, which the client's policy would repeat."""
    emulator.fault(Fault.rate_limited())
    with pytest.raises(RateLimitedError) as caught:
        await submit(connect(emulator), retry=ONCE)
    assert not caught.value.maybe_accepted
    assert len(emulator.requests) == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"retry": 3}, "retry must be a RetryPolicy, not 3"),
        ({"on_sending": "note"}, "on_sending must be callable, not 'note'"),
    ],
    ids=["retry", "on_sending"],
)
async def test_unusable_arguments_are_refused_before_anything_is_sent(
    peer, client, argument, message
):
    with pytest.raises(TypeError, match=message):
        await submit(client, **argument)
    assert peer.connections == 0
