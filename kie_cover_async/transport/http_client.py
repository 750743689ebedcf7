"""One request over aiohttp: its time, its size, and its connection."""

import asyncio
from math import inf
from typing import Any

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict, MultiMapping, istr
from yarl import URL

from kie_cover_async.api import Request, Response
from kie_cover_async.cancel_scope import CancelScope, SharedTimeout
from kie_cover_async.errors import ClientClosedError

from .connections import Connections, NoCookies, OnSending, SubmitBody
from .failures import Secret, translate

MAX_RESPONSE_BYTES = 1 << 20

# At most this share of a request's time is for its connection: what is left after that tells a
# slow server from one that was never reached.
_CONNECT_SHARE = 0.9

_CLOSED = "the external session is closed"
_CF_RAY = istr("cf-ray")


class HttpClient:
    """Send requests to the API's origin, with the key, over its own session or an external one.

    An external session is neither closed nor altered: what we need is passed with each request. Its
    cookie jar stays in use, so it may keep the cookie that the API's gateway sets.
    """

    def __init__(
        self,
        base_url: URL,
        api_key: str,
        *,
        session: aiohttp.ClientSession | None,
        request_timeout: float,
        submit_timeout: float,
        submit_connect_timeout: float,
        user_agent: str,
    ) -> None:
        self.base_url: URL = base_url
        self.user_agent: str = user_agent
        self.timeout: SharedTimeout = SharedTimeout(request_timeout)
        self._submit_timeout = SharedTimeout(submit_timeout)
        self._submit_connect_timeout = min(submit_connect_timeout, submit_timeout * _CONNECT_SHARE)
        self._root = str(base_url).rstrip("/")
        self._urls: dict[str, URL] = {}
        self._secret = Secret(api_key)
        self._session = session
        self._owns_session = session is None
        headers = {
            hdrs.AUTHORIZATION: self._secret.header,
            # The API asks for it of every request, GET included.
            hdrs.CONTENT_TYPE: "application/json",
            hdrs.ACCEPT: "application/json",
            # A cache, of an external session or on the way, would repeat an old status.
            hdrs.CACHE_CONTROL: "no-cache",
            hdrs.USER_AGENT: user_agent,
        }
        self._headers = CIMultiDict(headers)
        self._submit_headers = CIMultiDict({**headers, hdrs.CONNECTION: "close"})
        self._connect_timeout = _connect_timeout(request_timeout * _CONNECT_SHARE)
        # Our own session has headers and timeout from `_new_session`.
        self._options: dict[str, Any] = {"allow_redirects": False}
        if session is not None:
            self._options |= {
                "headers": self._headers,
                "timeout": self._connect_timeout,
                "auto_decompress": True,
                "raise_for_status": False,
            }

    @property
    def connection_limit(self) -> int | None:
        """How many connections an external session's pool has; `None` if it has no limit."""
        connector = None if self._session is None else self._session.connector
        limits = () if connector is None else (connector.limit, connector.limit_per_host)
        return min(filter(None, limits), default=None)

    async def request(self, request: Request[Any], on_sending: OnSending | None = None) -> Response:
        """Send a request and return the response with its body.

        `on_sending` is awaited when the connection is made, before the first byte of a submit; what
        it raises is raised, and nothing is sent.

        Raises:
            TransportError: There was no usable answer.
            ClientClosedError: The external session is closed.
            ValueError: The external session has credentials of its own; nothing was sent.
            Exception: Whatever the tracing of an external session raises.
        """
        session = self._session if self._session is not None else self._new_session()
        timeout = self._submit_timeout if request.endpoint.is_submit else self.timeout
        response = body = data = None
        try:
            with CancelScope(owner=timeout):
                url = self.url_of(request)
                if request.body is None:
                    response = await session.get(url, **self._options)
                elif not request.endpoint.is_submit:
                    response = await session.post(url, data=request.body, **self._options)
                else:
                    send_by = asyncio.get_running_loop().time() + self._submit_connect_timeout
                    data = SubmitBody(request.body, send_by=send_by, on_sending=on_sending)
                    response = await session.post(url, data=data, **self._submit_options())
                try:
                    if response.status == 407:
                        # From a proxy, over plain http; over https aiohttp raises the same error.
                        raise aiohttp.ClientHttpProxyError(response.request_info, (), status=407)
                    # A short body has mostly come with the headers.
                    if response.content.is_eof():
                        body = response.content.read_nowait()
                    else:
                        body = await _read(response.content)
                    return self._response(response, body)
                finally:
                    if not response.closed:
                        response.release()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised below
            problem = translate(error, request, self._secret, timeout.seconds)
            if type(error) is RuntimeError and response is None and session.closed:
                # Our own is closed when no call is left that could come here.
                problem = ClientClosedError(task_id=request.task_id, reason=_CLOSED)
            if data is not None and data.refusal is not None and isinstance(error, Exception):
                problem = data.refusal
            response = body = None  # what the server sent may echo the key
        # Outside the `except`: aiohttp's errors hold the request's headers, and with them the key.
        raise problem

    async def aclose(self) -> None:
        """Close the session, if it is our own."""
        self.timeout.cancel()
        self._submit_timeout.cancel()
        if self._owns_session and self._session is not None:
            await self._session.close()

    def url_of(self, request: Request[Any]) -> URL:
        """Return where the request goes."""
        path, task_id = request.endpoint.path, request.task_id
        if (url := self._urls.get(path)) is None:
            url = self._urls[path] = URL(self._root + path)
        if task_id is None or request.body is not None:
            return url
        # Text that needs no quoting is taken over faster than a mapping.
        if task_id.isascii() and task_id.isalnum():
            return url.with_query("taskId=" + task_id)
        return url.with_query({"taskId": task_id})

    def _new_session(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=Connections(),
            cookie_jar=NoCookies(),
            headers=self._headers,
            timeout=self._connect_timeout,
        )
        return self._session

    def _submit_options(self) -> dict[str, Any]:
        return {
            **self._options,
            # A connection of its own: a kept one may be closing just when it is used again, and
            # leave open whether the request was accepted. The pool keeps connections apart by the
            # TLS host that they name, and the body keeps this one out of it afterwards.
            "headers": self._submit_headers,
            "server_hostname": self.base_url.raw_host,
            "timeout": _connect_timeout(self._submit_connect_timeout),
        }

    def _response(self, response: aiohttp.ClientResponse, body: bytes) -> Response:
        """Return the response up to the size cap, with each echo of the key masked.

        A body that is cut off at the cap is not JSON, and is read as such.
        """
        headers: MultiMapping[str] = response.headers
        request_id = headers.get(_CF_RAY, "")
        if (masked := self._secret.mask(request_id)) != request_id:
            headers = CIMultiDict(headers)
            headers[_CF_RAY] = masked
        return Response(response.status, headers, self._secret.mask_body(body[:MAX_RESPONSE_BYTES]))


def _connect_timeout(seconds: float) -> aiohttp.ClientTimeout:
    # Rounded up to whole seconds, it would come after the request's own.
    return aiohttp.ClientTimeout(total=None, connect=seconds, ceil_threshold=inf)


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Return the body, up to one byte beyond the cap."""
    try:
        return await content.readexactly(MAX_RESPONSE_BYTES + 1)
    except asyncio.IncompleteReadError as whole:
        return whole.partial
