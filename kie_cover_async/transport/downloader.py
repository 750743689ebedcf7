"""The client without credentials: images from public addresses, with retries."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, TypeVar

import aiohttp
from attrs import define, field, frozen
from yarl import URL

from kie_cover_async.api import Response
from kie_cover_async.cancel_scope import CancelScope, SharedTimeout
from kie_cover_async.errors import DownloadError, KieCoverError
from kie_cover_async.settings import is_loopback
from kie_cover_async.validation import URL_ERRORS, Network, validate_http_url

from .addresses import NotPublicError, public_socket
from .transport import Transport

T = TypeVar("T")

MOST_REDIRECTS = 5
# Bytes a second: half of what each of sixteen images gets of a modem's 33.6 kbit/s.
SLOWEST = 128

# Bytes: as much as asyncio reads in one go. With less room, reading pauses after each piece.
_READ_SIZE = 1 << 18
_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429}

# No retry can fix these: a certificate that is wrong now is wrong a second later, too.
_FINAL = (aiohttp.InvalidURL, aiohttp.ClientConnectorCertificateError)


@frozen
class _Fetch:
    """One download, for the errors that it may end in."""

    url: str
    task_id: str | None
    timeout: float

    def error(self, reason: str, *, again: bool = False, **facts: Any) -> DownloadError:
        return DownloadError(
            task_id=self.task_id, url=self.url, reason=reason, retryable=again, **facts
        )

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what aiohttp raises inside into a `DownloadError`."""
        try:
            yield
        except (aiohttp.ClientError, OSError) as error:
            raise self._translated(error) from None

    def _translated(self, error: Exception) -> DownloadError:
        if isinstance(cause := getattr(error, "os_error", None), NotPublicError):
            return self.error(
                f"the host has no public address but {cause.address}; if your network answers "
                "with such addresses on purpose, as some proxies do, allow their network with "
                "allow_image_networks (kie-cover collect: --allow-image-network)"
            )
        if isinstance(error, aiohttp.SocketTimeoutError):
            return self.error(f"nothing came for {self.timeout:g} s", again=True)
        if type(error) is TimeoutError:
            return self.error(f"no answer within {self.timeout:g} s", again=True)
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason = f"this machine does not trust the host's certificate: {reason}"
        return self.error(reason, again=not isinstance(error, _FINAL))


@define(eq=False)
class Body:
    """Pieces of a body as they arrive; a host that sends too slowly is given up.

    Only the time that is spent waiting for the host counts, not the time of the reader.
    """

    _content: aiohttp.StreamReader
    _fetch: _Fetch
    _shared_timeout: SharedTimeout
    _waited: float = 0.0
    _came: int = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._waited >= self._fetch.timeout:
            self._check_pace()
        time = asyncio.get_running_loop().time
        asked = time()
        with self._fetch.failures(), CancelScope(self._shared_timeout, aiohttp.SocketTimeoutError):
            piece = await self._content.readany()
        if not piece:
            raise StopAsyncIteration
        # More time than that passes only if the loop was blocked or the process stopped.
        self._waited += min(time() - asked, self._fetch.timeout)
        self._came += len(piece)
        return piece

    def _check_pace(self) -> None:
        """Start a new interval, if the host sent enough in the last one.

        Raises:
            DownloadError: It sent too little.
        """
        waited, came = self._waited, self._came
        if came < SLOWEST * waited and not self._content.at_eof():
            raise self._fetch.error(f"only {came} bytes came in {waited:.3g} s", again=True)
        self._waited, self._came = 0.0, 0


@define(eq=False)
class ImageDownloader:
    """Downloads images without the key, without cookies and without a proxy.

    Only https, and only to public addresses and those of `allowed` networks. Each redirect is
    checked again, by the address that the socket connects to. If the API itself is at plain http,
    as an emulator is, images on its host may be, too, at any port and by any name for loopback.

    Passing failures are retried as the client's `RetryPolicy` says, and not before the time that
    the host asks for in `Retry-After`. The total download time has no limit: `request_timeout` is
    how long an answer may take to begin, how long the host may send nothing, and the time in which
    it must send `SLOWEST` bytes for each second. The client's rate limiter neither counts downloads
    nor is paused by them. Closing the client ends them.
    """

    _transport: Transport
    _allowed: Sequence[Network] = ()
    _sessions: dict[bool, aiohttp.ClientSession] = field(init=False, factory=dict)

    async def fetch(
        self,
        url: str,
        receive: Callable[[AsyncIterator[bytes]], Awaitable[T]],
        *,
        task_id: str | None = None,
    ) -> T:
        """Return what `receive` makes of the body at this URL.

        It is called once for each attempt that gets a body. A `DownloadError` that it raises is
        retried like one of ours, if `retryable`. Anything else it raises is passed on.

        Raises:
            DownloadError: The image cannot be downloaded.
            ClientClosedError: The client is closed.
        """
        target = validate_http_url("url", url)
        fetch = _Fetch(str(url), task_id, self._transport.http_client.timeout.seconds)

        with self._transport.open_calls.scope(task_id):
            attempt = 0
            while True:
                attempt += 1
                try:
                    return await self._attempt(target, receive, fetch)
                except KieCoverError as error:
                    failure = error
                await self._transport.back_off_or_raise(failure, attempt)

    async def _attempt(
        self,
        url: URL,
        receive: Callable[[AsyncIterator[bytes]], Awaitable[T]],
        fetch: _Fetch,
    ) -> T:
        for _ in range(1 + MOST_REDIRECTS):
            session = self._session_for(url, fetch)
            # A host may send interim answers or half a header forever.
            with fetch.failures(), CancelScope(self._transport.http_client.timeout):
                response = await session.get(url, allow_redirects=False)
            async with response:
                if response.status not in _REDIRECTS:
                    return await receive(self._body(response, fetch))
                url = _next(url, response, fetch)
        raise fetch.error(f"more than {MOST_REDIRECTS} redirects")

    def _body(self, response: aiohttp.ClientResponse, fetch: _Fetch) -> Body:
        if (status := response.status) != 200:
            again = status in _PASSING or status >= 500
            asked = Response(status, response.headers, b"").retry_after if again else None
            reason = f"the host answered {status}"
            raise fetch.error(reason, again=again, http_status=status, retry_after=asked)
        return Body(response.content, fetch, self._transport.http_client.timeout)

    def _session_for(self, url: URL, fetch: _Fetch) -> aiohttp.ClientSession:
        """Return the session for this URL.

        Raises:
            DownloadError: The URL must not be fetched.
        """
        if url.user is not None or url.password is not None:
            raise fetch.error("the URL holds credentials")
        is_own_host = _is_on_host_of(self._transport.http_client.base_url, url)
        if not is_own_host and url.scheme != "https":
            raise fetch.error(f"the URL is {url.scheme or 'nothing'} and not https")
        if is_own_host not in self._sessions:
            self._sessions[is_own_host] = self._new_session(is_own_host)
        return self._sessions[is_own_host]

    def _new_session(self, is_own_host: bool) -> aiohttp.ClientSession:
        http_client = self._transport.http_client
        session = aiohttp.ClientSession(
            read_bufsize=_READ_SIZE,
            connector=aiohttp.TCPConnector(
                # The caller limits downloads: a request that queued here would lose its time.
                limit=0,
                socket_factory=(
                    None if is_own_host else partial(public_socket, allowed=self._allowed)
                ),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": http_client.user_agent, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),  # every await has a deadline of ours
        )
        self._transport.sessions.push_async_callback(session.close)
        return session


def _is_on_host_of(base: URL, url: URL) -> bool:
    """Return whether the URL is on the host of an API at plain http, by any name for loopback."""
    here, there = base.host or "", url.host or ""
    is_same = here == there or (is_loopback(here) and is_loopback(there))
    return base.scheme == "http" and is_same


def _next(url: URL, response: aiohttp.ClientResponse, fetch: _Fetch) -> URL:
    """Return where a redirect leads."""
    location = response.headers.get("Location", "")
    try:
        return url.join(validate_http_url("Location", str(url.join(URL(location)))))
    except URL_ERRORS:
        raise fetch.error("a redirect leads nowhere", http_status=response.status) from None
