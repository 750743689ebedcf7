"""aiohttp's errors as ours: which ones no retry can fix, and the API key masked in all of them."""

import re
import ssl
from typing import Any

import aiohttp

from kie_cover_async.api import Request
from kie_cover_async.errors import ConnectionSetupError, TransportError

_MASK = "***"
# A shorter key is a placeholder, and would be found inside ids and URLs that must be kept.
_MIN_KEY_LENGTH = 8
_NEVER = "(?!)"

_NEVER_CONNECTED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)
# OpenSSL's verify codes: not yet valid, expired; for another host name, for another address.
_WRONG_TIME, _WRONG_NAME = {9, 10}, {62, 64}
# What OpenSSL, in its several releases, calls bytes that are not TLS.
_NOT_TLS = {"HTTP_REQUEST", "RECORD_LAYER_FAILURE", "WRONG_VERSION_NUMBER"}
_PASSING_STATUSES = {408, 425, 429}

# aiohttp begins so if it has found credentials next to the key; it sends nothing.
_CLASH = "Cannot combine AUTHORIZATION header"
_LEFT_OUT = "where it was raised is left out: the headers of the request there hold the API key"


class Secret:
    """The API key: its header shows it, and `mask` hides every echo of it."""

    def __init__(self, key: str) -> None:
        self.header: str = f"Bearer {key}"
        # As it is, as JSON may write it, and as the repr of a repr does.
        written = "".join(rf"(?:\\{{0,4}}{re.escape(c)}|(?i:\\u00{ord(c):02x}))" for c in key)
        self._text = re.compile(written if len(key) >= _MIN_KEY_LENGTH else _NEVER)
        self._bytes = re.compile(self._text.pattern.encode())
        self._plain, self._plain_bytes = key, key.encode()

    def mask(self, text: str) -> str:
        """Return the text with stars instead of the key."""
        # Without a backslash the key can only be there as it is, which is quickly seen.
        if "\\" not in text and self._plain not in text:
            return text
        return self._text.sub(_MASK, text)

    def mask_body(self, body: bytes) -> bytes:
        """Return the body with stars instead of the key."""
        if b"\\" not in body and self._plain_bytes not in body:
            return body
        return self._bytes.sub(_MASK.encode(), body)


def translate(
    error: BaseException, request: Request[Any], secret: Secret, seconds: float
) -> BaseException:
    """Return what to raise instead of an error that came out of aiohttp.

    Args:
        error: What came out.
        request: The request that failed.
        secret: The key to mask.
        seconds: The time that the request had.
    """
    connected = not isinstance(error, _NEVER_CONNECTED)
    if lasting := _lasting_problem(error):
        lasting = secret.mask(lasting)
        return ConnectionSetupError(task_id=request.task_id, reason=lasting, connected=False)
    if type(error) is TimeoutError:
        reason = f"no answer within {seconds:g} s"
    elif isinstance(error, aiohttp.ClientHttpProxyError):
        reason = f"the proxy answered {error.status}"  # its text may hold the proxy's password
    elif isinstance(error, (aiohttp.ClientError, OSError)):
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
    elif isinstance(error, ValueError) and str(error).startswith(_CLASH):
        return ValueError(
            f"session cannot be used with an API key: {error}; "
            "with trust_env such may stand in a netrc file"
        )
    else:
        return _without_frames(error)
    is_submit = request.endpoint.is_submit
    return TransportError(
        task_id=request.task_id,
        retryable=not is_submit or not connected,
        maybe_accepted=connected and is_submit,
        reason=secret.mask(reason),
        connected=connected,
    )


def _without_frames(error: BaseException) -> BaseException:
    """Return the same error alone: the frames it came through have the key among their locals."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    for part in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        _without_frames(part)
    # Where a cancellation was raised says nothing anyway.
    if isinstance(error, Exception):
        error.add_note(_LEFT_OUT)
    return error


def _lasting_problem(error: BaseException) -> str | None:
    """Return what is wrong and the remedy, or `None` if the same request may succeed later."""
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLError() as refusal):
            return f"certificate verify failed for {error.host}:{error.port}: {_distrust(refusal)}"
        case aiohttp.ServerFingerprintMismatch():
            return (
                f"the certificate of {error.host}:{error.port} does not have the fingerprint that "
                "the session expects; if the certificate was renewed, change the fingerprint"
            )
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError(reason=reason)):
            if reason in _NOT_TLS:
                return (
                    f"{error.host}:{error.port} does not answer in TLS; check the scheme and the "
                    "port of base_url, and those of the proxy if there is one"
                )
        case aiohttp.ClientHttpProxyError(status=status):
            if 300 <= status < 500 and status not in _PASSING_STATUSES:
                return f"the proxy answered {status}; {_proxy_remedy(status)}"
    return None


def _distrust(refusal: ssl.SSLError) -> str:
    code, message = getattr(refusal, "verify_code", 0), getattr(refusal, "verify_message", refusal)
    if code in _WRONG_TIME:
        remedy = "check this machine's clock; if it is right, the server needs a new certificate"
    elif code in _WRONG_NAME:
        remedy = "check the host of base_url, and whether something intercepts the connection"
    else:
        remedy = (
            "if a proxy or a virus scanner signs the traffic, let Python trust its certificate: "
            "set SSL_CERT_FILE, or give the client a session with an SSL context of its own"
        )
    return f"{message}; {remedy}"


def _proxy_remedy(status: int) -> str:
    if status == 407:
        return "put the user and the password into its URL: http://user:password@host:port"
    return "ask its operator to allow the API's host, or name that host in no_proxy"
