"""Answers common to all routes, the faults that change them, and which requests they affect."""

import json
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from enum import Enum
from math import inf
from random import Random
from typing import Any, Final, Literal, Self

from attrs import define, evolve, field, frozen
from attrs.validators import optional

from . import values

HTML_TYPE = "text/html; charset=UTF-8"

_RATE_LIMIT_MESSAGES = {
    405: "Rate limit exceeded. Please try again later.",
    429: "Your call frequency is too high. Please try again later.",
    430: "Your call frequency is too high. Please try again later.",
    433: "The sub-key has exceeded its usage limit.",
}
_GATEWAY_PAGE = (
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
    """An HTTP answer; its `headers` are added to the usual ones, or replace them.

    `fault` is the fault that the job's script combines with it.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    is_text: bool = True
    fault: "Fault | None" = None


def to_json(document: Any) -> bytes:
    """Return JSON as the API writes it: no blanks, UTF-8 unescaped."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def envelope(code: int, msg: str, data: Any = None, *, status: int = 200) -> Answer:
    return Answer(to_json({"code": code, "msg": msg, "data": data}), status)


def rate_limited(code: int = 429, *, status: int = 200) -> Answer:
    message = _RATE_LIMIT_MESSAGES.get(code, _RATE_LIMIT_MESSAGES[429])
    return envelope(code, message, status=status)


def server_error(code: int, *, status: int = 200) -> Answer:
    message = "Server Error - An unexpected error occurred while processing the request"
    return envelope(code, message, status=status)


def gateway_page(status: int) -> Answer:
    """Return the HTML page that Cloudflare sends instead of an answer."""
    title = f"{status} {_REASONS.get(status, 'Web server is returning an unknown error')}"
    body = _GATEWAY_PAGE.format(title=title).encode()
    return Answer(body, status, {"Content-Type": HTML_TYPE})


class _Marker(Enum):
    REMOVED = "removed"


_REMOVED: Final = _Marker.REMOVED


@frozen(kw_only=True)
class Fault:
    """A fault of one answer; the class methods below make them.

    On a submit, a fault with `accepted` happens after the job was created and the credits were
    taken, so that only the answer is lost. Without `accepted` the request is lost before that.
    """

    name: str
    replacement: Answer | None = field(default=None, repr=False)
    path: tuple[str, ...] | None = None
    value: Any = None
    is_truncated: bool = False
    connection: Literal["reset", "stall"] | None = None
    midway: bool = False
    delay: float = 0.0
    retry_after: float | None = field(default=None, validator=optional(values.seconds))
    as_date: bool = False
    accepted: bool = True

    @classmethod
    def rate_limited(
        cls,
        *,
        in_body: bool = True,
        code: int = 429,
        retry_after: float | None = None,
        as_date: bool = False,
    ) -> Self:
        """Refuse the request: HTTP 200 with `code` in the envelope, or HTTP 429 with the same.

        `code` is 429, 405, 430 or 433. `retry_after` is in seconds and adds a `Retry-After`,
        written as that number or, `as_date`, as the HTTP date that many seconds ahead.
        On a submit nothing is created.
        """
        return cls(
            name="rate-limited",
            replacement=rate_limited(code, status=200 if in_body else 429),
            retry_after=retry_after,
            as_date=as_date,
            accepted=False,
        )

    @classmethod
    def server_error(
        cls,
        status: int = 500,
        *,
        in_envelope: bool = True,
        empty: bool = False,
        accepted: bool = True,
    ) -> Self:
        """Answer with the error `status`, in an envelope with HTTP 200 or as the HTTP status.

        In the second case the envelope is sent as well, unless the body is `empty`.
        """
        answer = server_error(status, status=200 if in_envelope else status)
        if empty:
            answer = evolve(answer, body=b"")
        return cls(name="server-error", replacement=answer, accepted=accepted)

    @classmethod
    def gateway_page(cls, status: int = 502, *, accepted: bool = True) -> Self:
        """Send an HTML page with this HTTP status, as Cloudflare does if its origin has failed."""
        return cls(name="gateway-page", replacement=gateway_page(status), accepted=accepted)

    @classmethod
    def answer(
        cls,
        status: int = 200,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        *,
        accepted: bool = False,
    ) -> Self:
        """Send any other answer. A `body` that is neither bytes nor str is written as JSON.

        The content type is that of the API unless `headers` say otherwise.
        """
        if isinstance(body, str):
            body = body.encode()
        elif not isinstance(body, bytes):
            body = to_json(body)
        # In the spelling of the usual headers, so that it replaces them.
        titled = {name.title(): value for name, value in (headers or {}).items()}
        return cls(name="answer", replacement=Answer(body, status, titled), accepted=accepted)

    @classmethod
    def reset(cls, *, midway: bool = False, accepted: bool = True) -> Self:
        """Reset the connection before the first byte, or after half the body if `midway`.

        aiohttp's client itself repeats a GET once if no byte came, so its caller sees the first
        kind only with a `count` of 2.
        """
        return cls(name="reset", connection="reset", midway=midway, accepted=accepted)

    @classmethod
    def stall(cls, *, midway: bool = False, accepted: bool = True) -> Self:
        """Send nothing, or half an answer if `midway`, until the client or the emulator closes."""
        return cls(name="stall", connection="stall", midway=midway, accepted=accepted)

    @classmethod
    def slow(cls, seconds: float) -> Self:
        """Send the right answer, this many seconds late."""
        values.validate("seconds", seconds, values.seconds)
        return cls(name="slow", delay=seconds)

    @classmethod
    def truncated_json(cls) -> Self:
        """Send a complete HTTP answer with the first half of the JSON in it."""
        return cls(name="truncated-json", is_truncated=True)

    @classmethod
    def replace(cls, path: str, value: Any) -> Self:
        """Set one field of the right answer to this value: any that JSON can hold.

        The path is dotted from the envelope on: `code`, `data.successFlag`,
        `data.response.images.0`. Missing parents of the field are created.
        """
        return cls(name="replace", path=tuple(path.split(".")), value=value)

    @classmethod
    def remove(cls, path: str) -> Self:
        """Remove one field of the right answer; the path is written as for `replace`."""
        return cls(name="remove", path=tuple(path.split(".")), value=_REMOVED)

    @property
    def keeps_answer(self) -> bool:
        """Whether part of the right answer is sent, so that it counts as given."""
        return self.replacement is None and (self.connection is None or self.midway)

    def apply_to(self, answer: Answer, wall_time: float) -> Answer:
        """Return the answer to send instead; `wall_time` is the server's, in seconds."""
        answer = self.replacement or answer
        if self.path is not None:
            document = _edit(json.loads(answer.body), self.path, self.value)
            answer = evolve(answer, body=to_json(document))
        if self.is_truncated:
            answer = evolve(answer, body=answer.body[: len(answer.body) // 2])
        if self.retry_after is not None:
            retry_after = str(self.retry_after)
            if self.as_date:
                retry_after = formatdate(wall_time + self.retry_after, usegmt=True)
            answer = evolve(answer, headers={**answer.headers, "Retry-After": retry_after})
        return answer


def _edit(document: Any, path: Sequence[str], value: Any) -> Any:
    """Return the JSON with the field at `path` set to `value`, or without it for `_REMOVED`."""
    if not path:
        return value
    name, *rest = path
    if isinstance(document, list):
        index = int(name)
        old = document[index] if index < len(document) else None
        edited = [*document[:index], _edit(old, rest, value), *document[index + 1 :]]
        return [item for item in edited if item is not _REMOVED]
    members = document if isinstance(document, dict) else {}
    if value is _REMOVED and name not in members:
        return document
    changed = {**members, name: _edit(members.get(name), rest, value)}
    return {name: member for name, member in changed.items() if member is not _REMOVED}


@define(kw_only=True)
class FaultRule:
    """Which requests a fault affects; `count` is how many at most."""

    fault: Fault = field(validator=values.instance(Fault, "fault"))
    count: int | None = field(default=None, validator=optional(values.count))
    rate: float | None = field(default=None, validator=optional(values.share))
    endpoint: str | None = None
    task_id: str | None = None
    after: int = field(default=0, validator=values.count_or_zero)
    remaining: float = field(init=False)
    skipped: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        default = 1 if self.rate is None else inf
        self.remaining = default if self.count is None else self.count

    def matches(self, endpoint: str, task_id: str | None, kind: str) -> bool:
        """Return whether this request may be affected; count it if it is one to skip."""
        is_meant = self.endpoint in (endpoint, kind) or (
            self.endpoint is None and endpoint != "image"
        )
        if not is_meant or self.task_id not in (None, task_id):
            return False
        self.skipped += 1
        return self.skipped > self.after


@define
class FaultPlan:
    """The faults still to happen, in the order of their rules."""

    rng: Random
    rules: list[FaultRule] = field(factory=list)

    def choose(self, endpoint: str, task_id: str | None, kind: str = "other") -> Fault | None:
        """Return the fault of this request: that of the first rule that affects it, if any."""
        # Every rule counts the request, also those after the first that affects it.
        matching = [rule for rule in self.rules if rule.matches(endpoint, task_id, kind)]
        for rule in matching:
            if rule.rate is None or rule.rate >= 1 or self.rng.random() < rule.rate:
                rule.remaining -= 1
                self.rules = [rule for rule in self.rules if rule.remaining > 0]
                return rule.fault
        return None
