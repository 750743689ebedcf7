import asyncio
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
from attrs import evolve
from support.raw_peer import REQUEST, RawPeer, Repeat
from yarl import URL

from kie_cover_async import (
    ClientClosedError,
    CoverClient,
    DownloadError,
    RateLimiter,
    RetryPolicy,
)
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.transport.downloader import MOST_REDIRECTS, SLOWEST


async def whole(body):
    return b"".join([piece async for piece in body])


async def get_image_url(emulator, client, **script):
    task_id = emulator.add_job(CoverScript(statuses=["success"], images=1, **script))
    [url] = (await client.get_cover_details(task_id)).images
    emulator.requests.clear()
    return url


def redirect(location, status=302):
    return Fault.answer(status, b"", {"Location": location})


@pytest.fixture
async def image(emulator, client):
    return await get_image_url(emulator, client)


async def test_an_image_is_downloaded_without_the_key(emulator, client, image):
    """The body is complete; the host gets our user agent, but no key or cookie."""
    assert (await client.downloader.fetch(image, whole)).startswith(b"\x89PNG")
    [request] = emulator.requests
    assert "Authorization" not in request.headers
    assert "Cookie" not in request.headers
    assert request.headers["User-Agent"].startswith("kie-cover-async/")


async def test_downloads_use_no_slot_of_the_rate_limiter(emulator, connect):
    """Downloads run even while the rate limiter is paused."""
    client = connect(emulator, rate_limiter=RateLimiter(1, per=0.05))
    image = await get_image_url(emulator, client)
    client.rate_limiter.pause(60)
    async with asyncio.timeout(2):
        await client.downloader.fetch(image, whole)


async def test_an_external_session_is_not_used(emulator, connect, make_session, monkeypatch):
    """Headers and proxies of an external session do not affect downloads."""
    session = make_session(headers={"X-Mine": "1"}, cookies={"mine": "1"})
    client = connect(emulator, session=session)
    image = await get_image_url(emulator, client)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    await client.downloader.fetch(image, whole)
    assert not {"X-Mine", "Cookie"}.intersection(emulator.requests[0].headers)


PASSING = {
    "a server in trouble": Fault.server_error(503, in_envelope=False),
    "too many": Fault.answer(429),
    "a reset midway": Fault.reset(midway=True),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
async def test_a_transient_failure_is_retried(emulator, client, image, fault):
    """The next attempt returns the body without parts of the failed one."""
    emulator.fault(fault, endpoint="image")
    body = await client.downloader.fetch(image, whole)
    assert body == await client.downloader.fetch(image, whole)
    assert len(emulator.requests) == 3


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
async def test_retries_end_after_the_policys_attempts(emulator, client, image, fault):
    """After the last attempt the error says that a later download may succeed."""
    emulator.fault(fault, endpoint="image", rate=1.0)
    with pytest.raises(DownloadError) as caught:
        await client.downloader.fetch(image, whole, task_id="an-id")
    assert caught.value.retryable
    assert (caught.value.url, caught.value.task_id) == (image, "an-id")
    assert len(emulator.requests) == 4


@pytest.mark.parametrize("status", [204, 206, 400, 403, 404, 410])
async def test_a_refusal_is_not_retried(emulator, client, image, status):
    """The error has the host's answer to the only request."""
    emulator.fault(Fault.answer(status), endpoint="image", rate=1.0)
    with pytest.raises(DownloadError, match=f"the host answered {status}") as caught:
        await client.downloader.fetch(image, whole)
    assert caught.value.http_status == status
    assert not caught.value.retryable
    assert len(emulator.requests) == 1


async def seconds_of(call):
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await call
    return loop.time() - begun


@pytest.mark.parametrize("as_date", [False, True])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_download_waits_for_the_retry_after(
    instant_time, emulator, client, status, as_date
):
    """API calls continue in the meantime."""
    image = await get_image_url(emulator, client)
    asking = Fault.rate_limited(in_body=False, retry_after=100, as_date=as_date)
    emulator.fault(
        evolve(asking, replacement=evolve(asking.replacement, status=status)), endpoint="image"
    )
    download = asyncio.create_task(seconds_of(client.downloader.fetch(image, whole)))
    await asyncio.sleep(50)
    assert len(emulator.requests) == 1
    assert await seconds_of(client.get_credits()) < 1
    # A date has whole seconds.
    assert 99 <= await download < 101


async def test_a_long_retry_after_ends_a_download(emulator, client, image):
    """A download ends immediately if the host asks for more than the longest pause."""
    emulator.fault(Fault.answer(503, b"", {"Retry-After": "600"}), endpoint="image")
    with pytest.raises(DownloadError, match=r"answered 503 \(asked to wait 600 s\)") as caught:
        await client.downloader.fetch(image, whole)
    assert caught.value.retry_after == 600
    assert caught.value.retryable
    assert len(emulator.requests) == 1


SILENCES = {"from the first": (False, "no answer within"), "midway": (True, "nothing came for")}


@pytest.mark.parametrize(("midway", "reason"), SILENCES.values(), ids=SILENCES)
async def test_silence_ends_a_download(emulator, connect, midway, reason):
    """A download without data for the request timeout ends."""
    client = connect(emulator, request_timeout=0.1)
    image = await get_image_url(emulator, client)
    emulator.fault(Fault.stall(midway=midway), endpoint="image", rate=1.0)
    with pytest.raises(DownloadError, match=rf"{reason} 0\.1 s"):
        await client.downloader.fetch(image, whole)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


async def test_a_slow_image_is_not_cut_off(instant_time, play, connect):
    """An image may exceed the request timeout if data keeps arriving."""
    pieces = [SLOWEST * b"a"] * 100
    peer = await play([HEAD % (100 * SLOWEST), *(step for each in pieces for step in (1.0, each))])
    client = connect(peer)
    assert await client.downloader.fetch(peer.url, whole) == b"".join(pieces)
    assert instant_time.elapsed >= 100


async def test_slow_drip_times_out(instant_time, play, connect):
    """A host that only keeps the connection open times out like a silent one."""
    peer = await play([HEAD % 1000, Repeat(b"a", pause=29.0)])
    client = connect(peer, request_timeout=30.0, retry=RetryPolicy(max_attempts=1))
    with pytest.raises(DownloadError, match="only 3 bytes came in 58 s") as caught:
        await client.downloader.fetch(peer.url, whole)
    assert caught.value.retryable
    assert instant_time.elapsed < 60


async def test_a_slow_image_that_is_complete_is_accepted(instant_time, play, connect):
    """A slow download that has just completed is not a failure."""
    peer = await play([HEAD % 2, 20.0, b"a", 20.0, b"b"])
    client = connect(peer, request_timeout=30.0)
    assert await client.downloader.fetch(peer.url, whole) == b"ab"


async def test_a_slow_receiver_is_not_a_slow_host(instant_time, play, connect):
    """Only the time spent waiting for the host counts, not that of the receiver."""
    peer = await play([HEAD % 3, 1.0, b"a", 1.0, b"b", 1.0, b"c"])
    client = connect(peer, request_timeout=2.5)

    async def receive(body):
        pieces = []
        async for piece in body:
            pieces.append(piece)
            await asyncio.sleep(1.5)
        return b"".join(pieces)

    assert await client.downloader.fetch(peer.url, receive) == b"abc"


async def test_a_slow_header_ends_a_download(instant_time, play, connect):
    """A header must be complete within the request timeout."""
    peer = await play([b"HTTP/1.1 200 OK\r\n", Repeat(b"A: b\r\n", pause=20.0)])
    client = connect(peer, request_timeout=30.0, retry=RetryPolicy(max_attempts=1))
    with pytest.raises(DownloadError, match="no answer within 30 s"):
        await client.downloader.fetch(peer.url, whole)
    assert instant_time.elapsed == 30


async def test_an_error_of_the_receiver_is_passed_on(emulator, client, image):
    """An error that the receiver raises is passed on and not retried."""

    async def receive(body):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        await client.downloader.fetch(image, receive)
    assert len(emulator.requests) == 1


async def test_a_receiver_may_request_a_retry(emulator, client, image):
    """A `DownloadError` of the receiver is retried like the download's own."""
    tries = []

    async def receive(body):
        tries.append(await whole(body))
        if len(tries) < 3:
            raise DownloadError(reason="not like this", retryable=True)

    await client.downloader.fetch(image, receive)
    assert len(tries) == len(emulator.requests) == 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(emulator, client, image, status):
    """Relative and absolute redirects with any redirect status are followed."""
    emulator.fault(redirect(image, status), endpoint="image")
    emulator.fault(redirect(image.removeprefix(emulator.image_url), status), endpoint="image")
    assert await client.downloader.fetch(image, whole)
    assert len(emulator.requests) == 3


async def test_redirects_are_bounded(emulator, client, image):
    """The last allowed redirect is followed; one more is an error."""
    emulator.fault(redirect(image), endpoint="image", count=MOST_REDIRECTS)
    assert await client.downloader.fetch(image, whole)
    emulator.fault(redirect(image), endpoint="image", rate=1.0)
    with pytest.raises(DownloadError, match=f"more than {MOST_REDIRECTS} redirects"):
        await client.downloader.fetch(image, whole)


LEADING_ASTRAY = {
    "to a private address": ("https://10.0.0.1/a.png", "no public address"),
    "to the clouds' secrets": ("https://169.254.169.254/latest", "no public address"),
    "to an odd loopback": ("https://0x7f.1/a.png", "no public address"),
    "to a number": ("https://2130706433/a.png", "is not a canonical IPv4 address"),
    "to a zone": ("https://[fe80::1%25eth0]/a.png", "no public address"),
    "to NAT64": ("https://[64:ff9b::a00:1]/a.png", "no public address"),
    "to plain http": ("http://example.com/a.png", "http and not https"),
    "with a password": ("https://me:secret@example.com/a.png", "holds credentials"),
    "with a password alone": ("https://:secret@example.com/a.png", "holds credentials"),
    "with a name": ("https://me@example.com/a.png", "holds credentials"),
}


@pytest.mark.parametrize(("url", "reason"), LEADING_ASTRAY.values(), ids=LEADING_ASTRAY)
async def test_a_url_off_the_public_internet_is_rejected(client, url, reason):
    """A URL that is not https to a public address is rejected and not retried."""
    with pytest.raises(DownloadError, match=reason) as caught:
        await client.downloader.fetch(url, whole)
    assert not caught.value.retryable
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("url", "reason"), LEADING_ASTRAY.values(), ids=LEADING_ASTRAY)
async def test_forbidden_redirect_is_refused(emulator, client, image, url, reason):
    """Each redirect is checked again, also one from the trusted host."""
    emulator.fault(redirect(url), endpoint="image")
    with pytest.raises(DownloadError, match=reason):
        await client.downloader.fetch(image, whole)
    assert len(emulator.requests) == 1


@pytest.mark.parametrize(
    "location",
    ["http://[nowhere", "ftp://127.0.0.1/a", "mailto:me", "https://", "https://xn--/", "//[::1]@"],
)
async def test_an_invalid_redirect_is_an_error(emulator, client, image, location):
    """The error says that the redirect cannot be followed."""
    emulator.fault(redirect(location), endpoint="image")
    with pytest.raises(DownloadError, match="leads nowhere"):
        await client.downloader.fetch(image, whole)


async def test_a_redirect_without_a_location_is_an_error(emulator, client, image):
    """It redirects to itself until the maximum number of redirects."""
    emulator.fault(Fault.answer(302), endpoint="image", rate=1.0)
    with pytest.raises(DownloadError, match="redirects"):
        await client.downloader.fetch(image, whole)


class FixedResolver(aiohttp.abc.AbstractResolver):
    """Knows one host, at these addresses."""

    def __init__(self, *addresses):
        self.addresses = addresses

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in self.addresses
        ]

    async def close(self):
        pass


@pytest.mark.parametrize(
    "addresses",
    [("127.0.0.1",), ("10.0.0.1", "fe80::1"), ("::1", "127.0.0.1", "192.168.1.1")],
    ids=" and ".join,
)
async def test_a_name_of_a_private_address_is_rejected(client, monkeypatch, addresses):
    """The address decides, whatever the name looks like."""
    monkeypatch.setattr(aiohttp.connector, "DefaultResolver", lambda **_: FixedResolver(*addresses))
    with pytest.raises(DownloadError, match="no public address") as caught:
        await client.downloader.fetch("https://example.com/a.png", whole)
    assert not caught.value.retryable


async def test_fake_address_is_refused_by_name(client):
    """The error has the address that a proxy's resolver made up, and the options that allow it."""
    with pytest.raises(DownloadError) as caught:
        await client.downloader.fetch("https://198.18.0.5/a.png", whole)
    said = str(caught.value)
    assert "198.18.0.5" in said
    assert "allow_image_networks" in said
    assert "--allow-image-network" in said


async def test_fake_address_of_an_allowed_network_is_connected_to(connect, monkeypatch, stack):
    """With the option a download goes where the resolver says, and still trusts no certificate
    but the host's."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(Path(__file__).with_name("another.example.pem"))
    proxy = await stack.enter_async_context(RawPeer([[REQUEST]], tls=tls))
    monkeypatch.setattr(
        aiohttp.connector, "DefaultResolver", lambda **_: FixedResolver("127.0.0.1")
    )
    client = connect(proxy, allow_image_networks=["127.0.0.0/8"])
    url = f"https://example.com:{URL(proxy.url).port}/a.png"
    with pytest.raises(DownloadError, match="does not trust the host's certificate") as caught:
        await client.downloader.fetch(url, whole)
    assert not caught.value.retryable
    assert proxy.requests == []


@pytest.mark.parametrize("of_api", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("of_image", ["localhost", "127.0.0.1"])
async def test_names_for_loopback_are_one_host(emulator, image, of_api, of_image):
    """An emulator may call itself by another name for loopback than the client does."""
    base_url, url = URL(emulator.url).with_host(of_api), URL(image).with_host(of_image)
    async with CoverClient("a-key", base_url=base_url) as client:
        assert await client.downloader.fetch(str(url), whole)


async def test_loopback_of_ipv6_is_the_same_host(emulator, connect):
    """A connection to it is tried, although the URL is neither https nor on the API's address."""
    client = connect(emulator, retry=RetryPolicy(max_attempts=1))
    with pytest.raises(DownloadError, match="Cannot connect"):
        await client.downloader.fetch("http://[::1]:9/a.png", whole)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_only_a_plain_api_host_is_trusted(name):
    """With an API at https, its own host has to be public like any other."""
    async with CoverClient("a-key", base_url="https://127.0.0.1:9") as client:
        with pytest.raises(DownloadError, match="no public address"):
            await client.downloader.fetch(f"https://{name}:9/a.png", whole)


async def test_invalid_url_is_refused(client):
    """A text that is not a URL is refused, and the error names the argument."""
    with pytest.raises(ValueError, match="url must be an absolute http or https URL"):
        await client.downloader.fetch("a.png", whole)


async def test_closing_ends_a_download(emulator, client, image, eventually):
    """Closing the client ends it with the id, and leaves no connection."""
    emulator.fault(Fault.stall(midway=True), endpoint="image")
    running = asyncio.create_task(client.downloader.fetch(image, whole, task_id="an-id"))
    await eventually(lambda: emulator.requests)
    await client.aclose()
    with pytest.raises(ClientClosedError) as caught:
        await running
    assert caught.value.task_id == "an-id"
    await eventually(lambda: emulator.open_connections == 0)
    with pytest.raises(ClientClosedError):
        await client.downloader.fetch(image, whole)


async def test_cancelling_leaves_no_connection(emulator, client, image, eventually):
    """A cancelled download closes its connection immediately."""
    emulator.fault(Fault.stall(midway=True), endpoint="image")
    running = asyncio.create_task(client.downloader.fetch(image, whole))
    await eventually(lambda: emulator.requests)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await eventually(lambda: emulator.open_connections == 1)  # the API's own
