"""How long a submit may take: its answer is worth more patience than that of a status check."""

import asyncio

import pytest
from support.raw_peer import SILENCE, RawPeer

from kie_cover_async import CoverClient, RateLimiter, RetryPolicy, TransportError
from kie_cover_async.emulator import Fault

CALLBACK = "https://example.com/covers"
ONCE = RetryPolicy(max_attempts=1)


def submit(client, song="song"):
    return client.generate_cover(song, callback_url=CALLBACK)


@pytest.fixture
async def default_client(stack, emulator):
    """Return a client of the emulator with every setting at its default."""
    return await stack.enter_async_context(CoverClient("a-key", base_url=emulator.url))


async def test_by_default_a_slow_answer_to_a_submit_is_taken(
    instant_time, default_client, emulator
):
    """An id that comes after 12 s, or after 59 s, is returned; a status check is given 10 s."""
    for seconds in (12, 59):
        emulator.fault(Fault.slow(seconds))
        started = instant_time.elapsed
        task_id = await submit(default_client, f"song-{seconds}")
        assert instant_time.elapsed - started == pytest.approx(seconds, abs=0.1)
        assert (await default_client.get_cover_details(task_id)).task_id == task_id
    emulator.fault(Fault.slow(12), count=4)
    with pytest.raises(TransportError, match="no answer within 10 s"):
        await default_client.get_credits()


async def test_by_default_a_submit_is_given_up_after_60_s(instant_time, default_client, emulator):
    """A submit without an answer by then may have been accepted, and is not repeated."""
    emulator.fault(Fault.stall())
    started = instant_time.elapsed
    with pytest.raises(TransportError, match="no answer within 60 s") as caught:
        await submit(default_client)
    assert (caught.value.maybe_accepted, caught.value.retryable) == (True, False)
    assert instant_time.elapsed - started == pytest.approx(60, abs=0.1)
    assert len(emulator.requests) == 1


async def test_slow_submits_do_not_delay_status_checks(instant_time, default_client, emulator):
    """Twenty submits in flight delay no other call."""
    emulator.fault(Fault.slow(50), endpoint="generate", count=20)
    submits = [asyncio.create_task(submit(default_client, f"song-{n}")) for n in range(20)]
    await asyncio.sleep(20)
    assert sum(each.endpoint == "generate" for each in emulator.requests) == 20
    started = instant_time.elapsed
    await default_client.get_credits()
    assert instant_time.elapsed - started < 1
    assert len(set(await asyncio.gather(*submits))) == 20


@pytest.fixture
async def connect_to_silence(stack):
    """Make a client of a peer that takes no part in a TLS handshake."""

    async def connect_to_silence(**settings):
        peer = await stack.enter_async_context(RawPeer.of([SILENCE]))
        url = peer.url.replace("http:", "https:")
        client = CoverClient("a-key", base_url=url, **settings)
        return await stack.enter_async_context(client), peer

    return connect_to_silence


CONNECT_TIMES = [({}, 10.0), ({"submit_connect_timeout": 3.0}, 3.0), ({"submit_timeout": 5.0}, 4.5)]


@pytest.mark.parametrize(("settings", "seconds"), CONNECT_TIMES, ids=["default", "set", "short"])
async def test_a_submit_that_is_not_connected_in_time_was_never_sent(
    instant_time, connect_to_silence, settings, seconds
):
    """The time for the connection is over first: the submit was certainly not accepted."""
    client, peer = await connect_to_silence(retry=ONCE, **settings)
    started = instant_time.elapsed
    with pytest.raises(TransportError) as caught:
        await submit(client)
    error = caught.value
    assert (error.connected, error.maybe_accepted, error.retryable) == (False, False, True)
    assert instant_time.elapsed - started == pytest.approx(seconds, abs=0.1)
    assert peer.connections == 1


async def test_a_submit_that_is_not_connected_is_repeated(
    instant_time, connect_to_silence, make_session
):
    """The retry policy applies to a submit that was never sent, in an external session too."""
    client, peer = await connect_to_silence(
        session=make_session(), retry=RetryPolicy(max_attempts=3)
    )
    started = instant_time.elapsed
    with pytest.raises(TransportError) as caught:
        await submit(client)
    assert not caught.value.maybe_accepted
    assert 30 <= instant_time.elapsed - started < 32
    assert peer.connections == 3


async def test_submits_are_19_in_ten_seconds_by_default(instant_time, default_client, emulator):
    """No ten seconds see more than 20 submits, which is what the vendor takes of one key."""
    await asyncio.gather(
        *[default_client.generate_cover(f"song-{n}", callback_url=CALLBACK) for n in range(60)]
    )
    times = [request.received for request in emulator.requests]
    assert len(times) == 60
    assert all(later - earlier > 10 for earlier, later in zip(times, times[20:], strict=False))
    assert times[-1] - times[0] == pytest.approx(59 * 10 / 19, abs=0.1)


@pytest.mark.parametrize("kind", ["polls", "submits"])
async def test_a_refusal_pauses_its_own_kind(instant_time, stack, emulator, kind):
    """A 429 to a submit leaves polls alone, and the reverse."""
    limiter, other = RateLimiter(1000), RateLimiter(1000)
    pauses = []
    client = CoverClient(
        "a-key",
        base_url=emulator.url,
        rate_limiter=limiter,
        submit_rate_limiter=other,
        observer=lambda event: pauses.append(getattr(event, "kind", None)),
    )
    await stack.enter_async_context(client)
    refused, passing = (
        (client.get_credits, lambda: submit(client))
        if kind == "polls"
        else (lambda: submit(client), client.get_credits)
    )
    emulator.fault(Fault.rate_limited(retry_after=30))
    call = asyncio.create_task(refused())
    await asyncio.sleep(1)
    started = instant_time.elapsed
    await passing()
    assert instant_time.elapsed - started < 1
    await call
    assert instant_time.elapsed - started > 28
    assert [each for each in pauses if each] == [kind]
