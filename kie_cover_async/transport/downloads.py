"""Images, without the key: public addresses, sessions of our own, and retries."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Self, TypeVar

import aiohttp
from attrs import define, field, frozen
from yarl import URL

from kie_cover_async.arguments import NO_URL, an_http_url
from kie_cover_async.errors import DownloadError

from .addresses import NotPublicError, public_socket
from .transport import Transport

T = TypeVar("T")

MOST_REDIRECTS = 5

_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429}

# What no repetition mends. A certificate that is wrong now is wrong in a second, too.
_FINAL = (aiohttp.InvalidURL, aiohttp.ClientConnectorCertificateError)


@frozen
class _Fetch:
    """One download, for the errors that it may end in."""

    url: str
    task_id: str | None
    patience: float

    def error(
        self, reason: str, *, again: bool = False, http_status: int | None = None
    ) -> DownloadError:
        return DownloadError(
            task_id=self.task_id,
            url=self.url,
            reason=reason,
            http_status=http_status,
            safe_to_repeat=again,
        )

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what aiohttp raises inside into a `DownloadError`."""
        try:
            yield
        except (aiohttp.ClientError, OSError) as error:
            raise self._translated(error) from None

    def _translated(self, error: Exception) -> DownloadError:
        if isinstance(getattr(error, "os_error", None), NotPublicError):
            return self.error("the host has no public address")
        if isinstance(error, TimeoutError):
            return self.error(f"nothing came for {self.patience:g} s", again=True)
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        return self.error(reason, again=not isinstance(error, _FINAL))


@frozen
class Body:
    """What a host sends, piece by piece, as it comes."""

    response: aiohttp.ClientResponse
    fetch: _Fetch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with self.fetch.failures():
            piece = await self.response.content.readany()
        if not piece:
            raise StopAsyncIteration
        return piece


@define(eq=False)
class Downloads:
    """How images are fetched: a way that never carries the key, nor cookies, nor uses a proxy.

    https to public addresses only, judged by the address that is really connected to, for each
    redirect anew. Where the API itself is at plain http, as an emulator is, so may be images on
    its host, at any port.

    What fails in passing is repeated as the client's `RetryPolicy` says. There is no limit for the
    whole of a download: `request_timeout` is how long nothing at all may come. The client's budget
    does not count downloads, and its closing ends them.
    """

    _transport: Transport
    _sessions: dict[bool, aiohttp.ClientSession] = field(init=False, factory=dict)

    async def fetch(
        self,
        url: str,
        receive: Callable[[AsyncIterator[bytes]], Awaitable[T]],
        *,
        task_id: str | None = None,
    ) -> T:
        """What `receive` makes of the body at this URL.

        It is called once for each try that gets a body. A `DownloadError` that it raises counts
        like one of ours: repeated if `safe_to_repeat`. Anything else it raises is passed on.

        Raises `DownloadError`, and `ClientClosedError` when the client is closed.
        """
        target = an_http_url("url", url)
        fetch = _Fetch(str(url), task_id, self._transport.exchange.request_timeout)

        async def attempt() -> T:
            return await self._attempt(target, receive, fetch)

        with self._transport.lifetime.call(task_id):
            return await self._transport.repeated(attempt)

    async def _attempt(
        self,
        url: URL,
        receive: Callable[[AsyncIterator[bytes]], Awaitable[T]],
        fetch: _Fetch,
    ) -> T:
        for _ in range(1 + MOST_REDIRECTS):
            session = self._session_for(url, fetch)
            with fetch.failures():
                response = await session.get(url, allow_redirects=False)
            async with response:
                if response.status not in _REDIRECTS:
                    return await receive(self._body(response, fetch))
                url = _next(url, response, fetch)
        raise fetch.error(f"more than {MOST_REDIRECTS} redirects")

    def _body(self, response: aiohttp.ClientResponse, fetch: _Fetch) -> Body:
        if (status := response.status) != 200:
            again = status in _PASSING or status >= 500
            raise fetch.error(f"the host answered {status}", again=again, http_status=status)
        return Body(response, fetch)

    def _session_for(self, url: URL, fetch: _Fetch) -> aiohttp.ClientSession:
        """The session that may go there; raises `DownloadError` where none may."""
        if url.user is not None or url.password is not None:
            raise fetch.error("the URL holds credentials")
        base = self._transport.exchange.base_url
        is_own_host = base.scheme == "http" and url.host == base.host
        if not is_own_host and url.scheme != "https":
            raise fetch.error(f"the URL is {url.scheme or 'nothing'} and not https")
        if is_own_host not in self._sessions:
            self._sessions[is_own_host] = self._new_session(is_own_host)
        return self._sessions[is_own_host]

    def _new_session(self, is_own_host: bool) -> aiohttp.ClientSession:
        exchange = self._transport.exchange
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                # Limited by who downloads: a request that queued here would lose its time.
                limit=0,
                socket_factory=None if is_own_host else public_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": exchange.user_agent, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=exchange.request_timeout,
                sock_read=exchange.request_timeout,
                ceil_threshold=inf,
            ),
        )
        self._transport.sessions.push_async_callback(session.close)
        return session


def _next(url: URL, response: aiohttp.ClientResponse, fetch: _Fetch) -> URL:
    """Where a redirect leads to."""
    location = response.headers.get("Location", "")
    try:
        return url.join(an_http_url("Location", str(url.join(URL(location)))))
    except NO_URL:
        raise fetch.error("a redirect leads nowhere", http_status=response.status) from None
