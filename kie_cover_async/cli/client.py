"""What options and the environment open: the client, its rate limiter, the archive."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from math import inf
from pathlib import Path
from typing import Any
from urllib.request import getproxies, proxy_bypass

from aiohttp import ClientSession
from yarl import URL

from kie_cover_async import (
    ApiError,
    CoverClient,
    CoverDetails,
    InvalidResponseError,
    RateLimiter,
    __version__,
)
from kie_cover_async.api import Request, Response, parse_response
from kie_cover_async.api.records import shape_of
from kie_cover_async.api.responses import parse_body
from kie_cover_async.archive import CoverArchive
from kie_cover_async.archive.database import NAME
from kie_cover_async.settings import (
    API_KEY_VARIABLE,
    is_loopback,
    resolve_api_key,
    resolve_base_url,
    resolve_route,
)
from kie_cover_async.transport import HttpClient
from kie_cover_async.validation import (
    URL_ERRORS,
    Network,
    is_http_url,
    parse_networks,
    validate_http_url,
    validate_number,
)

from .ids import COVERS, IdKind
from .output import UsageError, usage_errors

_RAW_TIMEOUT = 30.0
# One request in thirty years; the period of a lower rate may overflow a float.
_MIN_RATE = 1e-9
# aiohttp reads all of these before it picks one.
_PROXY_SCHEMES = {"http", "https", "ws", "wss"}


@asynccontextmanager
async def open_client(base_url: str | None, **settings: Any) -> AsyncIterator[CoverClient]:
    """Open a client for the key in the environment; the settings are those of `CoverClient`.

    Raises `UsageError` for a missing or invalid key, base URL or proxy.
    """
    url, key = resolve_api(base_url)
    async with (
        _proxied_session(url) as session,
        CoverClient(key, base_url=url, session=session, **settings) as client,
    ):
        yield client


@asynccontextmanager
async def open_archive(folder: str, *, create: bool = True) -> AsyncIterator[CoverArchive]:
    """Open the archive in the folder of `--out`; raises `UsageError` if that is impossible.

    It is also raised if there is no archive and none must be created.
    """
    if not folder:
        raise UsageError("--out must name a folder, not ''")
    if not create and not has_archive(folder):
        raise UsageError(f"--out {folder}: there is no {NAME} in this folder")
    async with AsyncExitStack() as stack:
        try:
            archive = await stack.enter_async_context(CoverArchive(folder))
        except (OSError, TypeError, ValueError) as error:
            raise UsageError(f"--out {folder}: {error}") from None
        yield archive


def require_ids_or_folder(
    arguments: Sequence[str] | None, file: str | None, folder: str, kind: IdKind = COVERS
) -> None:
    """Raise `UsageError` if there are no ids, and no folder whose archive may have some."""
    if not (arguments or file or Path(folder).is_dir()):
        ids = kind.plural
        raise UsageError(f"no {ids}, and no folder {folder} to continue with: give some {ids}")


def has_archive(folder: str) -> bool:
    """Return whether the folder has the record of an archive."""
    return Path(folder, NAME).exists()


def rate_limiter_for(rate: float | None, option: str = "--rate") -> RateLimiter | None:
    """Return a limiter for so many requests per second; `None` means the client's default.

    Raises `UsageError` unless the rate is positive; it may be `inf` or below one.
    """
    if rate is None:
        return None
    if rate == inf:
        return RateLimiter.unlimited()
    with usage_errors():
        validate_number(option, rate, above=0)
        validate_number(option, rate, at_least=_MIN_RATE)
        requests = max(1, round(rate))
        return RateLimiter(requests, per=requests / rate)


def timeout_seconds(timeout: float) -> float | None:
    """Return the client's `timeout` for an option that may be `inf`; raises `UsageError`."""
    if timeout == inf:
        return None
    with usage_errors():
        validate_number("--timeout", timeout, at_least=0)
    return timeout


def image_networks(given: list[str] | None) -> tuple[Network, ...]:
    """Parse `--allow-image-network`; raises `UsageError`."""
    with usage_errors():
        return parse_networks("--allow-image-network", given or ())


def validate_callback_url(
    callback_url: str | None, route: str | None, options: str = "--callback-url"
) -> None:
    """Raise `UsageError` if it is not a URL, or if it is missing and the route requires one."""
    with usage_errors():
        if callback_url is not None:
            validate_http_url("--callback-url", callback_url)
    try:
        resolve_route(route).submit_request("any song", callback_url)
    except ValueError:
        raise UsageError(
            f"{options} must be given, used or not; only --route market needs none"
        ) from None


async def fetch_raw(
    task_id: str, base_url: str | None, route: str | None
) -> tuple[dict[str, Any], str | None]:
    """Return the answer to one poll, unparsed, with the key and cookies masked, and its shape.

    The shape is `None` unless the client cannot make sense of the answer's JSON. Raises
    `TransportError` if there is no answer.
    """
    url, key = resolve_api(base_url)
    request = Request(resolve_route(route).poll, task_id)
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
    answer = {
        "url": str(http_client.url_of(request)),
        "status": response.status,
        # Cookies are as good as keys until they expire. The client has masked the key in the body.
        "headers": [
            (name, "***" if name.lower() == "set-cookie" else value.replace(key, "***"))
            for name, value in response.headers.items()
        ],
        "body": response.body.decode(errors="backslashreplace"),
    }
    return answer, _unknown_shape(request, response)


def _unknown_shape(request: Request[CoverDetails], response: Response) -> str | None:
    try:
        return parse_response(request, response).record_shape
    except ApiError:
        return None
    except InvalidResponseError:
        parsed = parse_body(response.body)
        return shape_of(parsed) if isinstance(parsed, Mapping) else None


def needs_proxy(url: URL) -> bool:
    """Return whether the environment names a proxy for this URL.

    Raises `UsageError` for a proxy that cannot be used.
    """
    host, proxies = url.host or "", getproxies()
    if not proxies.get(url.scheme) or is_loopback(host) or proxy_bypass(host):
        return False
    for scheme in _PROXY_SCHEMES & proxies.keys():
        proxy, is_used = proxies[scheme], scheme == url.scheme
        if not _is_readable(proxy) or (is_used and not _is_http(proxy)):
            # Not shown: it may contain a password.
            raise UsageError(f"{scheme}_proxy must be an http proxy: http://host:port")
    return True


def _is_readable(proxy: str) -> bool:
    try:
        url = URL(proxy)
        f"{url.user}{url.password}".encode("latin-1")  # as aiohttp sends it
    except URL_ERRORS:
        return False
    return ":" not in (url.user or "")


def _is_http(proxy: str) -> bool:
    return proxy.startswith("http://") and is_http_url(proxy)


def resolve_api(base_url: str | None) -> tuple[URL, str]:
    """Return the API's URL and the key; raises `UsageError`."""
    if not os.environ.get(API_KEY_VARIABLE):
        raise UsageError(
            f"no API key: get one at https://kie.ai/api-key, then: export {API_KEY_VARIABLE}=..."
        )
    with usage_errors():
        url = resolve_base_url(
            base_url, allow_http=False, name="--base-url", http_is="accepted for loopback only"
        )
        return url, resolve_api_key(None)


def _proxied_session(url: URL) -> AbstractAsyncContextManager[ClientSession | None]:
    """Return an external session if there is a proxy, else `None`: the client's own is better."""
    return ClientSession(trust_env=True) if needs_proxy(url) else nullcontext()
