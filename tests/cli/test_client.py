"""The client that is opened with the settings of the environment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import pytest
from attrs import define, field
from yarl import URL

from kie_cover_async import TransportError
from kie_cover_async.cli.client import needs_proxy
from kie_cover_async.cli.commands.covers import credits, get
from kie_cover_async.cli.output import FAILED, USAGE, UsageError


@define
class Proxy:
    """A proxy that records and refuses what is requested."""

    url: str = ""
    requests: list[bytes] = field(factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def listening() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        proxy.url = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield proxy


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "KIE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def netrc(tmp_path: Path) -> str:
    path = tmp_path / "netrc"
    path.write_text("default login user password secret")
    return str(path)


async def test_requests_go_through_the_proxy_of_the_environment(run, netrc, key):
    """The proxy receives the host and its own password, but not the key. A netrc file is not
    read."""
    async with listening() as proxy:
        url = f"http://user:pass@{proxy.url}"
        arguments = ("wait", "an-id", "--timeout", "0", "--base-url", "https://api.invalid")
        ended = await run(*arguments, HTTPS_PROXY=url, NETRC=netrc)
    assert proxy.requests[0].startswith(b"CONNECT api.invalid:443 ")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in proxy.requests[0]
    assert key.encode() not in proxy.requests[0]
    assert ended.code == FAILED
    assert "403" in ended.err
    assert "pass" not in ended.err


async def test_raw_answer_comes_through_the_proxy(monkeypatch, key):
    """It is requested as other polls are."""
    async with listening() as proxy:
        monkeypatch.setenv("https_proxy", f"http://{proxy.url}")
        with pytest.raises(TransportError, match="403"):
            await get("an-id", raw=True, base_url="https://api.invalid", as_json=True)
    assert len(proxy.requests) == 1


async def test_loopback_needs_no_proxy(monkeypatch, key, emulator):
    """The client connects to an emulator directly, even if there is a proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    await credits(emulator.url, as_json=True)
    assert len(emulator.requests) == 1


PROXY = {"HTTPS_PROXY": "http://p:1"}


@pytest.mark.parametrize(
    ("variables", "url", "needed"),
    [
        ({}, "https://api.kie.ai", False),
        (PROXY, "https://api.kie.ai", True),
        ({"https_proxy": "http://p:1"}, "https://api.kie.ai", True),
        ({"HTTPS_PROXY": ""}, "https://api.kie.ai", False),
        ({"HTTP_PROXY": "http://p:1"}, "https://api.kie.ai", False),
        ({**PROXY, "NO_PROXY": ".kie.ai"}, "https://api.kie.ai", False),
        ({**PROXY, "NO_PROXY": "*"}, "https://api.kie.ai", False),
        (PROXY, "https://localhost:8443", False),
        (PROXY, "https://[::1]:8443", False),
        ({"HTTP_PROXY": "http://p:1"}, "http://LOCALHOST:8080", False),
        ({"HTTP_PROXY": "http://p:1"}, "http://127.0.0.2:8080", False),
        ({"HTTP_PROXY": "http://p:1"}, "http://127.255.0.3", False),
    ],
)
def test_proxy_variables_have_their_usual_meaning(monkeypatch, variables, url, needed):
    """Loopback never uses a proxy."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert needs_proxy(URL(url)) is needed


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://u:pass@p:1",
        "https://u:pass@p:1",
        "u:pass@p:1",
        "http://u:pass@p:808O",
        "http://u:pass@127.0.0.1:99999",
        "http://u:pass@[::1",
        "http://u:pass@",
        "http://u:pass@..:1",
        "http://u:pass@p 1",
        "http://u:pass@\udce9:1",
        "http://u%3A:pass@p:1",
        "http://u:pass%E2%82%AC@p:1",
    ],
)
async def test_unusable_proxy_is_rejected(monkeypatch, key, proxy):
    """Requests must not bypass it. Its password is not shown."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UsageError, match="https_proxy must be an http proxy") as caught:
        await credits(None, as_json=True)
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize(("proxy", "refused"), [("http://p:808O", True), ("socks5://p:1", False)])
def test_unreadable_proxy_for_another_scheme_is_rejected(monkeypatch, proxy, refused):
    """aiohttp reads all of them."""
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(UsageError, match="http_proxy must be") if refused else nullcontext():
        assert needs_proxy(URL("https://api.kie.ai"))


async def test_message_about_a_proxy_names_only_its_variable(run):
    """The URL may contain a password."""
    proxy = "http://u:pass@127.0.0.1:99999"
    ended = await run("credits", "--base-url", "https://api.invalid", HTTPS_PROXY=proxy)
    assert (ended.code, ended.out) == (USAGE, "")
    assert ended.usage_error == "https_proxy must be an http proxy: http://host:port"


async def test_missing_key_is_rejected(monkeypatch):
    """The message says where to get one and where to put it."""
    monkeypatch.delenv("KIE_API_KEY", raising=False)
    with pytest.raises(UsageError, match=r"kie\.ai/api-key, then: export KIE_API_KEY=\.\.\."):
        await credits(None, as_json=True)


@pytest.mark.parametrize("url", ["http://api.kie.ai", "ftp://x", "nonsense", "https://u:p@x"])
async def test_invalid_base_url_is_rejected(key, url):
    """The key is in no message."""
    with pytest.raises(UsageError, match="--base-url must") as caught:
        await credits(url, as_json=True)
    assert key not in str(caught.value)


@pytest.mark.parametrize("name", ["--base-url", "KIE_BASE_URL"])
async def test_message_about_a_base_url_names_its_source(run, name):
    """It offers nothing that the command does not have."""
    url = "http://api.invalid"
    given = {name: url} if name == "KIE_BASE_URL" else {"KIE_BASE_URL": "https://api.invalid"}
    ended = await run("credits", *([name, url] if name == "--base-url" else []), **given)
    assert (ended.code, ended.out) == (USAGE, "")
    assert ended.usage_error.startswith(f"{name} must be https, not '{url}': the key would ")
    assert ended.usage_error.endswith("; plain http is accepted for loopback only")


async def test_invalid_key_is_rejected_and_not_shown(monkeypatch):
    """The message names the variable."""
    monkeypatch.setenv("KIE_API_KEY", "two words")
    with pytest.raises(UsageError, match="KIE_API_KEY must be printable ASCII") as caught:
        await credits(None, as_json=True)
    assert "two words" not in str(caught.value)
