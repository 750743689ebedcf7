"""Whom the key is sent to: whoever proves to be the API, over the way that was asked for."""

import asyncio
import logging
import ssl
from pathlib import Path

import aiohttp
import pytest
from raw_peer import REQUEST, RawPeer

from kie_cover_async import RetryPolicy, TransportError

# Signed by itself, and for another name than 127.0.0.1; good until 2126.
CERTIFICATE = Path(__file__).with_name("another.example.pem")
CALLS = {
    "a read": lambda client: client.get_credits(),
    "a paid one": lambda client: client.generate_cover("song", callback_url="http://host"),
}

every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def unverifying():
    """A context that believes anybody."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.fixture
async def impostor(stack):
    """Speaks TLS with a certificate that is not the API's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return await stack.enter_async_context(RawPeer([[REQUEST]], tls=context))


async def refusal(call, client):
    """Why the client does not trust the other side; nothing paid for was taken."""
    # Python 3.11 traces a frame no further into which an error was thrown.
    [error] = await asyncio.gather(call(client), return_exceptions=True)
    assert isinstance(error, TransportError)
    assert not error.connected
    assert not error.maybe_accepted
    return error.reason


@every_call
async def test_a_certificate_that_nobody_vouches_for(impostor, connect, call):
    """The key is not sent to a host whose certificate cannot be verified."""
    reason = await refusal(call, connect(impostor, retry=RetryPolicy(attempts=1)))
    assert "certificate verify failed" in reason
    assert impostor.requests == []


@every_call
async def test_a_certificate_for_another_host(impostor, connect, lend, call):
    """Nor to one whose certificate is good, but another's."""
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    session = lend(connector=aiohttp.TCPConnector(ssl=trusting))
    client = connect(impostor, session=session, retry=RetryPolicy(attempts=1))
    assert "127.0.0.1" in await refusal(call, client)
    assert impostor.requests == []


@pytest.mark.parametrize("tls", [False, unverifying()], ids=["False", "a context"])
async def test_a_lent_session_that_verifies_nothing(emulator, connect, lend, caplog, tls):
    """What a session's owner has switched off stays so, and a warning says what that means."""
    connect(emulator, session=lend(connector=aiohttp.TCPConnector(ssl=tls)))
    [record] = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "kie_cover_async.settings")
    assert "verifies no TLS certificates" in record.getMessage()


async def test_a_lent_session_that_verifies(emulator, connect, lend, caplog):
    """Of a session that verifies certificates, by whatever authorities, nothing is said."""
    connect(emulator, session=lend())
    connect(
        emulator, session=lend(connector=aiohttp.TCPConnector(ssl=ssl.create_default_context()))
    )
    connect(emulator, session=lend(connector=aiohttp.UnixConnector("/nowhere")))
    assert caplog.records == []


@every_call
async def test_the_environment_leads_nobody_astray(emulator, connect, monkeypatch, tmp_path, call):
    """Neither a proxy nor credentials of the environment's have a part in the client's requests."""
    (tmp_path / "netrc").write_text("default login me password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    await call(connect(emulator))
    assert emulator.requests[0].headers["Authorization"] == "Bearer sk-0f1e2d3c4b5a6978"
