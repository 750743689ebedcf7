"""From the environment to an open client: the key, the base URL and the proxy."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import inf
from urllib.request import getproxies, proxy_bypass

from aiohttp import ClientSession
from attrs import frozen
from yarl import URL

from kie_cover_async import CoverClient, RateLimiter, __version__, api
from kie_cover_async.events import Observer
from kie_cover_async.inbox import Inbox
from kie_cover_async.settings import (
    API_KEY_VARIABLE,
    is_loopback,
    resolve_api_key,
    resolve_base_url,
)
from kie_cover_async.transport import HttpClient
from kie_cover_async.validation import URL_ERRORS, is_http_url, parse_networks, validate_number

from .output import Refused, refusing

_RAW_TIMEOUT = 30.0
# One request in thirty years; the time that some lower ones take is past all numbers.
_LOWEST_RATE = 1e-9
# All of these are read by aiohttp before it takes one.
_PROXIED = {"http", "https", "ws", "wss"}


@asynccontextmanager
async def connected(
    base_url: str | None,
    observer: Observer | None = None,
    rate_limiter: RateLimiter | None = None,
    inbox: Inbox | None = None,
    allow_image_networks: Sequence[str] = (),
) -> AsyncIterator[CoverClient]:
    """A client for the key in the environment; raises `Refused` where a setting is no good."""
    url, key = _settings(base_url)
    with refusing():
        allowed = parse_networks("--allow-image-network", allow_image_networks)
    async with (
        _proxied_session(url) as session,
        CoverClient(
            key,
            base_url=url,
            session=session,
            observer=observer,
            rate_limiter=rate_limiter,
            allow_image_networks=allowed,
            inbox=inbox,
        ) as client,
    ):
        yield client


def rate_limiter_of(rate: float | None) -> RateLimiter | None:
    """So many requests a second, which may be `inf` or less than one; `None` is the default."""
    if rate is None:
        return None
    if rate == inf:
        return RateLimiter.unlimited()
    with refusing():
        validate_number("--rate", rate, above=0)
        validate_number("--rate", rate, at_least=_LOWEST_RATE)
        whole = max(1, round(rate))
        return RateLimiter(whole, per=whole / rate)


@frozen
class RawAnswer:
    """An answer as it came, but for what it has of the key and of cookies."""

    url: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


async def raw_answer(task_id: str, base_url: str | None) -> RawAnswer:
    """What one request for a cover's record brings, whatever it is; raises `TransportError`."""
    url, key = _settings(base_url)
    request = api.SUNO.poll(task_id)
    async with _proxied_session(url) as session:
        http_client = HttpClient(
            url,
            key,
            session=session,
            request_timeout=_RAW_TIMEOUT,
            submit_timeout=_RAW_TIMEOUT,
            submit_connect_timeout=_RAW_TIMEOUT,
            user_agent=f"kie-cover-async/{__version__}",
        )
        try:
            response = await http_client.request(request)
        finally:
            await http_client.aclose()
    # The HTTP client has masked the body; cookies are as good as keys, for as long as they last.
    headers = (
        (name, "***" if name.lower() == "set-cookie" else value.replace(key, "***"))
        for name, value in response.headers.items()
    )
    return RawAnswer(
        str(http_client.url_of(request)), response.status, tuple(headers), response.body
    )


def needs_proxy(url: URL) -> bool:
    """Whether the environment names a proxy for this URL; raises `Refused` for one of no use."""
    host, proxies = url.host or "", getproxies()
    if not proxies.get(url.scheme) or is_loopback(host) or proxy_bypass(host):
        return False
    for scheme in _PROXIED & proxies.keys():
        proxy, is_used = proxies[scheme], scheme == url.scheme
        if not _can_be_read(proxy) or (is_used and not _is_http(proxy)):
            # Not shown: it may hold a password.
            raise Refused(f"{scheme}_proxy must be an http proxy: http://host:port")
    return True


def _can_be_read(proxy: str) -> bool:
    try:
        url = URL(proxy)
        f"{url.user}{url.password}".encode("latin-1")  # as aiohttp sends it
    except URL_ERRORS:
        return False
    return ":" not in (url.user or "")


def _is_http(proxy: str) -> bool:
    return proxy.startswith("http://") and is_http_url(proxy)


def _settings(base_url: str | None) -> tuple[URL, str]:
    if not os.environ.get(API_KEY_VARIABLE):
        raise Refused(
            f"no API key: get one at https://kie.ai/api-key, then: export {API_KEY_VARIABLE}=..."
        )
    with refusing():
        url = resolve_base_url(
            base_url, allow_http=False, name="--base-url", http_is="accepted for loopback only"
        )
        return url, resolve_api_key(None)


@asynccontextmanager
async def _proxied_session(url: URL) -> AsyncIterator[ClientSession | None]:
    """An external session where there is a proxy; else `None`: the client's own serves better."""
    if not needs_proxy(url):
        yield None
        return
    async with ClientSession(trust_env=True) as session:
        yield session
