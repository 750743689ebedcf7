"""What the emulated API says: the bodies, each as it was recorded or documented."""

import json
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

JSON_TYPE = "application/json;charset=UTF-8"
HTML_TYPE = "text/html; charset=UTF-8"

RATE_LIMIT_MESSAGES = {
    405: "Rate limit exceeded. Please try again later.",
    429: "Your call frequency is too high. Please try again later.",
    430: "Your call frequency is too high. Please try again later.",
    433: "The sub-key has exceeded its usage limit.",
}

_PAGE = (
    "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
    "<center><h1>{title}</h1></center>\r\n<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
)
_REASONS = {
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}


@frozen
class Answer:
    """One answer before it meets the wire; `headers` replace or join the usual ones."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    is_text: bool = True


def encoded(document: Any) -> bytes:
    """JSON as the API writes it: no blanks, UTF-8 unescaped."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def envelope(code: int, msg: str, data: Any = None, *, status: int = 200) -> Answer:
    return Answer(encoded({"code": code, "msg": msg, "data": data}), status)


def success(data: Any) -> Answer:
    return envelope(200, "success", data)


def unauthorised() -> Answer:
    """A refused key, as recorded: HTTP 200, and an envelope without the field `data`."""
    message = (
        "Unauthorized \u2013 Authentication failed. Please check that your Authorization and "
        "Content-Type headers are correctly set."
    )
    return Answer(encoded({"code": 401, "msg": message}))


def rate_limited(code: int, *, status: int) -> Answer:
    return envelope(code, RATE_LIMIT_MESSAGES.get(code, RATE_LIMIT_MESSAGES[429]), status=status)


def server_error(code: int, *, status: int) -> Answer:
    message = "Server Error - An unexpected error occurred while processing the request"
    return envelope(code, message, status=status)


def gateway_page(status: int) -> Answer:
    """The HTML that Cloudflare puts in the place of an answer."""
    title = f"{status} {_REASONS.get(status, 'Web server is returning an unknown error')}"
    return Answer(_PAGE.format(title=title).encode(), status, {"Content-Type": HTML_TYPE})


def not_found() -> Answer:
    """A path the emulator does not know; what the API itself says there is not recorded."""
    return envelope(404, "Not Found", status=404)


def image(png: bytes) -> Answer:
    return Answer(png, headers={"Content-Type": "image/png"}, is_text=False)


def image_refused(status: int) -> Answer:
    return Answer(b"", status, {"Content-Type": "text/plain"}, is_text=False)
