"""Where the client's settings come from when they are not given, and what is refused of them."""

import logging
import os
import re
from ipaddress import ip_address
from ssl import CERT_NONE

import aiohttp
from yarl import URL

from ._version import __version__
from .schedule import Schedule
from .validation import short_repr, validate_http_url

_log = logging.getLogger(__name__)

API_KEY_VARIABLE, BASE_URL_VARIABLE = "KIE_API_KEY", "KIE_BASE_URL"
DEFAULT_BASE_URL = "https://api.kie.ai"
# Every call's path begins with this, and many pages print it as a part of the base URL.
_API_PATH = re.compile(r"(/+api/v1)+/*$")


def resolve_api_key(given: str | None) -> str:
    """The key, given or from the environment. No error ever shows it."""
    name, key = "api_key", given
    if key is None:
        name, key = API_KEY_VARIABLE, os.environ.get(API_KEY_VARIABLE)
    if key is None or key == "":
        raise ValueError(
            f"api_key must be given, or stand in the environment as {API_KEY_VARIABLE}"
        )
    if not isinstance(key, str):
        raise TypeError(f"api_key must be a str, not a {type(key).__name__}")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(
            f"{name} must be printable ASCII without blanks or line breaks (it is not shown here)"
        )
    return key


def resolve_base_url(
    given: str | URL | None,
    *,
    allow_http: bool,
    name: str = "base_url",
    http_is: str = "accepted for loopback, and elsewhere with allow_http=True",
) -> URL:
    """The API's base URL, given, from the environment, or the vendor's; https but for loopback.

    A trailing `/api/v1` is dropped, since the path of every call begins with it.

    `name` and `http_is` are for errors: what it is called where it is given, and what is accepted.
    """
    if given is None:
        name, given = BASE_URL_VARIABLE, os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
    url = validate_http_url(name, given)
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        # Not shown: it may hold a password.
        raise ValueError(f"{name} must have no credentials, no query and no fragment")
    if url.scheme == "http" and not (allow_http or is_loopback(url.host or "")):
        raise ValueError(
            f"{name} must be https, not {str(url)!r}: the key would cross the network readable; "
            f"plain http is {http_is}"
        )
    path = _API_PATH.sub("", url.raw_path)
    return url if path == url.raw_path else url.with_path(path, encoded=True)


def resolve_user_agent(given: str | None) -> str:
    """The `User-Agent`; some of the vendor's hosts refuse odd ones with a bare 403."""
    if given is None:
        return f"kie-cover-async/{__version__}"
    if not isinstance(given, str):
        raise TypeError(f"user_agent must be a str, not {short_repr(given)}")
    if not (given.isascii() and given.isprintable() and given.strip()):
        raise ValueError(f"user_agent must be printable ASCII, not {short_repr(given)}")
    return given


def validate_session(given: aiohttp.ClientSession | None) -> aiohttp.ClientSession | None:
    """An external session."""
    if given is not None and not isinstance(given, aiohttp.ClientSession):
        raise TypeError(f"session must be an aiohttp.ClientSession, not {short_repr(given)}")
    if getattr(given, "auth", None) is not None:
        raise ValueError("session must have no auth of its own: requests carry the API key")
    if given is not None and not _verifies_certificates(given):
        _log.warning(
            "the external session verifies no TLS certificates: anybody may read the API key"
        )
    return given


def validate_schedule(given: Schedule) -> Schedule:
    """Anything that can say when to poll again; a class cannot."""
    if isinstance(given, type) or not callable(getattr(given, "delay", None)):
        raise TypeError(
            f"schedule must have a method delay(age, pressure), not {short_repr(given)}"
        )
    return given


def _verifies_certificates(session: aiohttp.ClientSession) -> bool:
    # Nothing public tells what a connector was made with.
    tls = getattr(session.connector, "_ssl", None)
    return tls is not False and getattr(tls, "verify_mode", None) is not CERT_NONE


def is_loopback(host: str) -> bool:
    """Whether what is sent there does not leave this machine, so that nobody else may see it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
