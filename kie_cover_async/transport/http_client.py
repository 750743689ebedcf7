"""One request over aiohttp: its time, its size, and every failure as one of our errors."""

import asyncio
from math import inf
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from kie_cover_async.api import Request, Response
from kie_cover_async.errors import ClientClosedError, ConnectionSetupError, TransportError

from .cancel_scope import SharedTimeout
from .connections import Connections, SubmitBody
from .lasting import lasting_problem
from .secret import Secret

LARGEST_ANSWER = 1 << 20

# What is left of the request's time after this tells a slow server from one never reached.
_SHARE_FOR_CONNECTING = 0.9

_NEVER_CONNECTED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)

# So aiohttp begins when it has found credentials beside the key, and sends nothing.
_CLASH = "Cannot combine AUTHORIZATION header"
_OWNER_CLOSED = "the external session is closed"
_LEFT_OUT = "where it was raised is left out: the headers of the request there hold the API key"


class UnfitSessionError(ValueError):
    """An external session has credentials of its own; nothing was sent."""


class HttpClient:
    """Sends requests to the API's origin, with the key, over a session of its own or an external
    one.

    An external session is neither closed nor altered: what we need is passed with each request. Its
    cookie jar goes on doing its work, so it may keep the cookie that the API's gateway sets.
    """

    def __init__(
        self,
        base_url: URL,
        api_key: str,
        *,
        session: aiohttp.ClientSession | None,
        request_timeout: float,
        user_agent: str,
    ) -> None:
        self.base_url: URL = base_url
        self.request_timeout: float = request_timeout
        self.user_agent: str = user_agent
        self._root = str(base_url).rstrip("/")
        self._urls: dict[str, URL] = {}
        self._secret = Secret(api_key)
        self._headers = CIMultiDict(
            {
                "Authorization": self._secret.header,
                # The API asks for it of every request, GET included.
                "Content-Type": "application/json",
                "Accept": "application/json",
                # A cache, of an external session or on the way, would repeat an old status.
                "Cache-Control": "no-cache",
                "User-Agent": user_agent,
            }
        )
        self._session = session
        self._owned = session is None
        self.deadlines: SharedTimeout = SharedTimeout(request_timeout)
        self._connect_time: float = request_timeout * _SHARE_FOR_CONNECTING
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=self._connect_time,
            # Rounded up to whole seconds, it would come after the request's own.
            ceil_threshold=inf,
        )

    @property
    def connection_limit(self) -> int | None:
        """How many connections an external session's pool has for us; `None` where it has no
        limit.
        """
        connector = self._session.connector if self._session is not None else None
        if connector is None:
            return None
        return min(filter(None, (connector.limit, connector.limit_per_host)), default=None)

    def url_of(self, request: Request[Any]) -> URL:
        """Where the call goes."""
        if (url := self._urls.get(request.path)) is None:
            url = self._urls[request.path] = URL(self._root + request.path)
        return url.with_query(request.query) if request.query else url

    async def request(self, request: Request[Any]) -> Response:
        """The answer, read whole.

        Raises `TransportError`, `ClientClosedError`, `UnfitSessionError`, and whatever the tracing
        of an external session raises.
        """
        session = self._resolve_session(request)
        try:
            with self.deadlines.scope():
                return await self._send(session, request)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised below
            problem = self._problem(request, error)
        # Outside the `except`: aiohttp's errors hold the request's headers, and with them the key.
        raise problem

    async def aclose(self) -> None:
        """Close the session, if it is our own."""
        self.deadlines.cancel()
        if self._owned and self._session is not None:
            await self._session.close()

    def _resolve_session(self, request: Request[Any]) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=Connections(),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
            )
        if self._session.closed:
            # Our own is closed when no call is left that could come here.
            raise ClientClosedError(task_id=request.task_id, reason=_OWNER_CLOSED)
        return self._session

    async def _send(self, session: aiohttp.ClientSession, request: Request[Any]) -> Response:
        url = self.url_of(request)
        headers, tls_host = None if self._owned else self._headers, None
        data: bytes | SubmitBody | None = request.body
        if request.body is not None and not request.repeatable:
            # A connection of its own: a kept one may be closing just when it is used again, and
            # leave open whether the request was accepted. The pool keeps apart what names its TLS
            # host, and the body sees to it that the connection never gets there.
            headers, tls_host = CIMultiDict(self._headers, Connection="close"), url.raw_host
            data = SubmitBody(
                request.body, send_by=asyncio.get_running_loop().time() + self._connect_time
            )
        async with session.request(
            request.method,
            url,
            data=data,
            headers=headers,
            timeout=self._timeout,
            server_hostname=tls_host,
            allow_redirects=False,
            auto_decompress=True,
            raise_for_status=False,
        ) as response:
            if response.status == 407:
                # From a proxy, over plain http; over https aiohttp raises the same error.
                raise aiohttp.ClientHttpProxyError(response.request_info, (), status=407)
            chunks: list[bytes] = []
            size = 0
            while size <= LARGEST_ANSWER and not response.content.at_eof():
                chunks.append(chunk := await response.content.readany())
                size += len(chunk)
            return self._answer(response, b"".join(chunks))

    def _answer(self, response: aiohttp.ClientResponse, body: bytes) -> Response:
        """The answer up to the cap: what is cut off there is no JSON, and is judged as such.

        An echo of the key is hidden: it would get into messages and logs.
        """
        body = self._secret.mask_body(body[:LARGEST_ANSWER])
        request_id = response.headers.get("cf-ray", "")
        if (hidden := self._secret.mask(request_id)) == request_id:
            return Response(response.status, response.headers, body)
        headers = response.headers.copy()
        headers["cf-ray"] = hidden
        return Response(response.status, headers, body)

    def _problem(self, request: Request[Any], error: BaseException) -> BaseException:
        """What is to be raised in the place of an error that came out of aiohttp."""
        if (lasting := lasting_problem(error)) is not None:
            reason = self._secret.mask(lasting)
            return ConnectionSetupError(task_id=request.task_id, reason=reason, connected=False)
        if isinstance(error, _NEVER_CONNECTED):
            return self._failure(request, _named(error), connected=False)
        if type(error) is TimeoutError:
            return self._failure(request, f"no answer within {self.request_timeout:g} s")
        if isinstance(error, (aiohttp.ClientError, OSError)):
            return self._failure(request, _named(error))
        if isinstance(error, ValueError) and str(error).startswith(_CLASH):
            return UnfitSessionError(
                f"session cannot be used with an API key: {error}; "
                "with trust_env such may stand in a netrc file"
            )
        return _bare(error)

    def _failure(
        self, request: Request[Any], reason: str, *, connected: bool = True
    ) -> TransportError:
        return TransportError(
            task_id=request.task_id,
            retryable=request.repeatable or not connected,
            maybe_accepted=connected and not request.repeatable,
            reason=self._secret.mask(reason),
            connected=connected,
        )


def _bare(error: BaseException) -> BaseException:
    """The same error, alone: the frames that it came through have the key among their locals."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    for part in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        _bare(part)
    # A cancellation says nothing of where it struck anyway.
    if isinstance(error, Exception):
        error.add_note(_LEFT_OUT)
    return error


def _named(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        # Its text has the proxy's URL, which may hold a password.
        return f"the proxy answered {error.status}"
    return f"{type(error).__name__}: {error}".rstrip(": ")
