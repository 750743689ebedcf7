"""Defaults of the client's arguments, from the environment or the vendor, and their checks."""

import logging
import os
import re
from ipaddress import ip_address
from ssl import CERT_NONE

import aiohttp
from yarl import URL

from ._version import __version__
from .api import ROUTES, Route
from .schedule import Schedule
from .validation import short_repr, validate_http_url

_log = logging.getLogger(__name__)

API_KEY_VARIABLE, BASE_URL_VARIABLE = "KIE_API_KEY", "KIE_BASE_URL"
ROUTE_VARIABLE = "KIE_ROUTE"
DEFAULT_BASE_URL = "https://api.kie.ai"
# The path of every call begins with this, and many pages print it as part of the base URL.
_API_PATH = r"(/+api/v1)+/*$"


def resolve_api_key(given: str | None) -> str:
    """Return the given key or the environment's; no error shows it."""
    name, key = "api_key", given
    if key is None:
        name, key = API_KEY_VARIABLE, os.environ.get(API_KEY_VARIABLE)
    if key is None or key == "":
        raise ValueError(f"api_key must be given, or set in the environment as {API_KEY_VARIABLE}")
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
    """Return the API's base URL: given, from the environment, or the vendor's.

    It must be https, except for loopback. A trailing `/api/v1` is dropped, since the path of every
    call begins with it.

    Args:
        given: The argument; `None` reads the environment.
        allow_http: Accept plain http for all hosts.
        name: The argument's name, for errors.
        http_is: When plain http is accepted, for errors.
    """
    if given is None:
        name, given = BASE_URL_VARIABLE, os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
    url = validate_http_url(name, given)
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        # Not shown: it may hold a password.
        raise ValueError(f"{name} must have no credentials, no query and no fragment")
    if url.scheme == "http" and not (allow_http or is_loopback(url.host or "")):
        raise ValueError(
            f"{name} must be https, not {str(url)!r}: the key would be sent unencrypted; "
            f"plain http is {http_is}"
        )
    path = re.sub(_API_PATH, "", url.raw_path)
    return url if path == url.raw_path else url.with_path(path, encoded=True)


def resolve_route(given: str | None, *, name: str = "route") -> Route:
    """Return the given route, else that of `KIE_ROUTE` in the environment, else the suno route.

    Errors about a given one call it *name*.
    """
    if given is None:
        name, given = ROUTE_VARIABLE, os.environ.get(ROUTE_VARIABLE) or "suno"
    if not isinstance(given, str) or given not in ROUTES:
        accepted = " or ".join(map(repr, ROUTES))
        raise ValueError(f"{name} must be {accepted}, not {short_repr(given)}")
    return ROUTES[given]


def resolve_user_agent(given: str | None) -> str:
    """Return the `User-Agent`; some of the vendor's hosts refuse odd ones with a bare 403."""
    if given is None:
        return f"kie-cover-async/{__version__}"
    if not isinstance(given, str):
        raise TypeError(f"user_agent must be a str, not {short_repr(given)}")
    if not (given.isascii() and given.isprintable() and given.strip()):
        raise ValueError(f"user_agent must be printable ASCII, not {short_repr(given)}")
    return given


def validate_session(given: aiohttp.ClientSession | None) -> aiohttp.ClientSession | None:
    """Return the external session; raise if it cannot carry the API key."""
    if given is not None and not isinstance(given, aiohttp.ClientSession):
        raise TypeError(f"session must be an aiohttp.ClientSession, not {short_repr(given)}")
    if getattr(given, "auth", None) is not None:
        raise ValueError("session must have no auth of its own: requests carry the API key")
    if given is not None and not _verifies_certificates(given):
        _log.warning(
            "the external session does not verify TLS certificates: an attacker can read the key"
        )
    return given


def validate_schedule(given: Schedule) -> Schedule:
    """Return the schedule, an object with a method `delay`; a class is refused."""
    if isinstance(given, type) or not callable(getattr(given, "delay", None)):
        raise TypeError(
            f"schedule must have a method delay(age, pressure), not {short_repr(given)}"
        )
    return given


def _verifies_certificates(session: aiohttp.ClientSession) -> bool:
    # aiohttp has no public attribute for what a connector was made with.
    tls = getattr(session.connector, "_ssl", None)
    return tls is not False and getattr(tls, "verify_mode", None) is not CERT_NONE


def is_loopback(host: str) -> bool:
    """Return whether the host is this machine, so that nothing sent to it crosses a network."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
