"""The key is sent only to a server that proves to be the API, by the configured way."""

import asyncio
import logging
import ssl
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from support.raw_peer import REQUEST, SILENCE, RawPeer

from kie_cover_async import ConnectionSetupError, TransportError
from kie_cover_async.events import RequestFinished

# Signed by themselves: for another name than 127.0.0.1, good until 2126; for it, until 2020.
ANOTHER, EXPIRED = (
    Path(__file__).with_name(f"{name}.pem") for name in ("another.example", "expired")
)
CALLS = {
    "a read": lambda client: client.get_credits(),
    "a paid one": lambda client: client.generate_cover("song", callback_url="http://host"),
    "a wait": lambda client: client.wait_for_cover("id", timeout=5),
}

every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def unverifying():
    """Return a TLS context that accepts every certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.fixture
async def impostor(stack):
    """Start a peer that speaks TLS with the given certificate."""

    async def impostor(certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        return await stack.enter_async_context(RawPeer([[REQUEST]], tls=context))

    return impostor


@pytest.fixture
def trusting(make_session):
    """Make a session that trusts this certificate."""

    def trusting(certificate):
        context = ssl.create_default_context(cafile=certificate)
        return make_session(connector=aiohttp.TCPConnector(ssl=context))

    return trusting


@pytest.fixture
def refusal(connect):
    """Return why the call gets no connection to the server; it ends with the first attempt."""

    async def refusal(call, server, **settings):
        events = []
        client = connect(server, observer=events.append, **settings)
        # Python 3.11 traces a frame no further into which an error was thrown.
        [error] = await asyncio.gather(call(client), return_exceptions=True)
        assert type(error) is ConnectionSetupError
        marks = (error.transient, error.retryable, error.connected, error.maybe_accepted)
        assert marks == (False,) * 4
        assert sum(isinstance(event, RequestFinished) for event in events) == 1
        return error.reason

    return refusal


@every_call
async def test_an_untrusted_certificate_is_rejected(impostor, refusal, call):
    """The key is not sent to a host whose certificate cannot be verified."""
    peer = await impostor(ANOTHER)
    reason = await refusal(call, peer)
    assert "certificate verify failed" in reason
    assert "SSL_CERT_FILE" in reason
    assert peer.requests == []


@every_call
async def test_a_certificate_for_another_host_is_rejected(impostor, refusal, trusting, call):
    """The key is not sent to a host with another host's certificate."""
    peer = await impostor(ANOTHER)
    reason = await refusal(call, peer, session=trusting(ANOTHER))
    assert "not valid for '127.0.0.1'" in reason
    assert "check the host of base_url" in reason
    assert peer.requests == []


@every_call
async def test_an_expired_certificate_is_rejected(impostor, refusal, trusting, call):
    """The error mentions this machine's clock, which may be wrong."""
    peer = await impostor(EXPIRED)
    reason = await refusal(call, peer, session=trusting(EXPIRED))
    assert "certificate has expired" in reason
    assert "check this machine's clock" in reason
    assert peer.requests == []


@every_call
async def test_a_certificate_with_another_fingerprint_is_rejected(
    impostor, refusal, make_session, call
):
    """The owner of an external session may pin a certificate."""
    peer = await impostor(ANOTHER)
    pinned = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(bytes(32)))
    assert "fingerprint" in await refusal(call, peer, session=make_session(connector=pinned))
    assert peer.requests == []


@every_call
async def test_a_port_without_tls_ends_a_call(stack, refusal, call):
    """An https URL of a server that speaks plain http ends the first attempt."""
    peer = await stack.enter_async_context(RawPeer.of([b"HTTP/1.1 400 Bad Request\r\n\r\n"]))
    peer.url = peer.url.replace("http", "https")
    assert "check the scheme" in await refusal(call, peer)
    assert peer.connections == 1


@pytest.fixture
def refusing(play):
    """Start a proxy that gives this answer to every request."""

    async def refusing(status):
        answer = f"HTTP/1.1 {status} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        return await play([answer.encode()])

    return refusing


@every_call
@pytest.mark.parametrize(
    "case",
    [
        ("https", 407, "put the user and the password into its URL"),
        ("http", 407, "put the user and the password into its URL"),
        ("https", 403, "name that host in no_proxy"),
    ],
)
async def test_a_refusing_proxy_is_asked_once(refusing, refusal, make_session, call, case):
    """A proxy that wants a login or forbids the API is asked once."""
    scheme, status, remedy = case
    proxy, server = await refusing(status), SimpleNamespace(url=f"{scheme}://127.0.0.1:9")
    reason = await refusal(call, server, session=make_session(proxy=proxy.url))
    assert f"the proxy answered {status}; " in reason
    assert remedy in reason
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("steps", [[], [SILENCE]], ids=["end", "silence"])
async def test_a_proxys_status_counts_without_its_body(play, refusal, make_session, steps):
    """The status alone shows that a login is required."""
    head = b"HTTP/1.1 407 So\r\nContent-Encoding: gzip\r\nContent-Length: 99\r\n\r\n"
    proxy, server = await play([head, b"<html>", *steps]), SimpleNamespace(url="http://127.0.0.1:9")
    session = make_session(proxy=proxy.url)
    reason = await refusal(CALLS["a read"], server, session=session)
    assert "the proxy answered 407; " in reason
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_transient_proxy_error_is_retried(refusing, connect, make_session, status):
    """A proxy with a transient error is asked again."""
    proxy, server = await refusing(status), SimpleNamespace(url="https://127.0.0.1:9")
    client = connect(server, session=make_session(proxy=proxy.url))
    with pytest.raises(TransportError) as caught:
        await client.get_credits()
    assert caught.value.retryable
    assert len(proxy.requests) == 4


async def test_a_broken_handshake_is_retried(connect, play):
    """A handshake that ends in a TLS alert may succeed the next time."""
    peer = await play()
    peer.url = peer.url.replace("http", "https")
    peer.scripts = [[b"\x15\x03\x01\x00\x02\x02\x28"]]
    with pytest.raises(TransportError, match="handshake failure") as caught:
        await connect(peer).get_credits()
    assert caught.value.retryable
    assert peer.connections == 4


@pytest.mark.parametrize("tls", [False, unverifying()], ids=["False", "a context"])
async def test_an_unverified_external_session_is_logged(
    emulator, connect, make_session, caplog, tls
):
    """The session is used as its owner set it up, and a warning states the risk."""
    connect(emulator, session=make_session(connector=aiohttp.TCPConnector(ssl=tls)))
    [record] = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "kie_cover_async.settings")
    assert "does not verify TLS certificates" in record.getMessage()


async def test_a_verified_external_session_is_not_logged(emulator, connect, make_session, caplog):
    """A session that verifies certificates by any authority is not reported."""
    connect(emulator, session=make_session())
    connect(
        emulator,
        session=make_session(connector=aiohttp.TCPConnector(ssl=ssl.create_default_context())),
    )
    connect(emulator, session=make_session(connector=aiohttp.UnixConnector("/nowhere")))
    assert caplog.records == []


@every_call
async def test_proxies_and_credentials_of_the_environment_are_ignored(
    emulator, connect, monkeypatch, tmp_path, call
):
    """A proxy or credentials in the environment do not affect the requests."""
    (tmp_path / "netrc").write_text("default login me password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    emulator.add_job("success", task_id="id")
    await call(connect(emulator))
    assert emulator.requests[0].headers["Authorization"] == "Bearer sk-0f1e2d3c4b5a6978"
