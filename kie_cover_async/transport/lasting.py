"""Connection failures that no retry can fix: what is wrong, and what to do about it."""

import ssl

import aiohttp

# OpenSSL's verify codes: not yet valid, expired; for another host name, for another address.
_WRONG_TIME, _WRONG_NAME = {9, 10}, {62, 64}
# What OpenSSL, in its several releases, calls bytes that are not TLS.
_NOT_TLS = {"HTTP_REQUEST", "RECORD_LAYER_FAILURE", "WRONG_VERSION_NUMBER"}
_PASSING_STATUSES = {408, 425, 429}


def lasting_problem(error: BaseException) -> str | None:
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
