"""What can go wrong on the way, and which request it happens to."""

from collections.abc import Mapping
from email.utils import formatdate
from math import inf
from random import Random
from typing import Any, Literal, Self

from attrs import define, evolve, field, frozen
from attrs.validators import optional

from kie_cover_async.emulator import accepted, answers, fields
from kie_cover_async.emulator.answers import Answer


@frozen(kw_only=True)
class Fault:
    """Something that goes wrong with one answer; made by the class methods below.

    On `generate` a fault with `accepted` strikes after the job was created and the credits were
    taken, so that only the answer is lost; without it the request is lost before.
    """

    name: str
    instead: Answer | None = field(default=None, repr=False)
    path: tuple[str, ...] | None = None
    value: Any = None
    is_truncated: bool = False
    breaks: Literal["reset", "stall"] | None = None
    midway: bool = False
    delay: float = 0.0
    retry_after: float | None = field(default=None, validator=optional(accepted.pause))
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
        """Too many requests: HTTP 200 with `code` in the envelope, or HTTP 429 with the same.

        `code` is 429, 405, 430 or 433. `retry_after` is in seconds and adds a `Retry-After`,
        written as that number or, `as_date`, as the HTTP date that many seconds ahead.
        On `generate` nothing is created.
        """
        answer = answers.rate_limited(code, status=200 if in_body else 429)
        return cls(
            name="rate-limited",
            instead=answer,
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
        """The error `status` in an envelope with HTTP 200, or else as the HTTP status.

        In the second case the envelope is sent as well, unless the body is to be `empty`.
        """
        answer = answers.server_error(status, status=200 if in_envelope else status)
        if empty:
            answer = evolve(answer, body=b"")
        return cls(name="server-error", instead=answer, accepted=accepted)

    @classmethod
    def gateway_page(cls, status: int = 502, *, accepted: bool = True) -> Self:
        """An HTML page with this HTTP status, as Cloudflare sends when its origin is in trouble."""
        return cls(name="gateway-page", instead=answers.gateway_page(status), accepted=accepted)

    @classmethod
    def answer(
        cls,
        status: int = 200,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        *,
        accepted: bool = False,
    ) -> Self:
        """Any other answer. A `body` that is neither bytes nor text is written as JSON.

        The content type is that of the API unless `headers` say otherwise.
        """
        if isinstance(body, str):
            body = body.encode()
        elif not isinstance(body, bytes):
            body = answers.encoded(body)
        # In the spelling of the usual header fields, so that it takes their place.
        spelt = {name.title(): value for name, value in (headers or {}).items()}
        return cls(name="answer", instead=Answer(body, status, spelt), accepted=accepted)

    @classmethod
    def reset(cls, *, midway: bool = False, accepted: bool = True) -> Self:
        """A TCP reset before the first byte, or `midway`: after the headers and half the body.

        aiohttp's client repeats a GET once by itself where no byte came, so that it takes a
        `count` of 2 for its caller to see the first kind.
        """
        return cls(name="reset", breaks="reset", midway=midway, accepted=accepted)

    @classmethod
    def stall(cls, *, midway: bool = False, accepted: bool = True) -> Self:
        """Silence until the client leaves or the emulator closes, from the start or `midway`."""
        return cls(name="stall", breaks="stall", midway=midway, accepted=accepted)

    @classmethod
    def slow(cls, seconds: float) -> Self:
        """The right answer, this many seconds late."""
        accepted.argument("seconds", seconds, accepted.pause)
        return cls(name="slow", delay=seconds)

    @classmethod
    def truncated_json(cls) -> Self:
        """A complete HTTP answer with the first half of the JSON in it."""
        return cls(name="truncated-json", is_truncated=True)

    @classmethod
    def replace(cls, path: str, value: Any) -> Self:
        """The right answer but for one field, which has this value: any that JSON can write.

        The path is dotted from the envelope on: `code`, `data.successFlag`,
        `data.response.images.0`. What is missing on the way to the field is made.
        """
        return cls(name="replace", path=tuple(path.split(".")), value=value)

    @classmethod
    def remove(cls, path: str) -> Self:
        """The right answer without one field; the path is written as for `replace`."""
        return cls(name="remove", path=tuple(path.split(".")), value=fields.REMOVED)

    @property
    def keeps_answer(self) -> bool:
        """Whether something of the right answer is sent, so that it counts as given."""
        return self.instead is None and (self.breaks is None or self.midway)

    def spoil(self, answer: Answer, wall_time: float) -> Answer:
        """What is sent where `answer` would have been; `wall_time` is the server's, in seconds."""
        answer = self.instead or answer
        if self.path is not None:
            answer = evolve(answer, body=fields.edited(answer.body, self.path, self.value))
        if self.is_truncated:
            answer = evolve(answer, body=answer.body[: len(answer.body) // 2])
        if self.retry_after is not None:
            pause = str(self.retry_after)
            if self.as_date:
                pause = formatdate(wall_time + self.retry_after, usegmt=True)
            answer = evolve(answer, headers={**answer.headers, "Retry-After": pause})
        return answer


@define
class _Rule:
    fault: Fault
    endpoint: str | None
    task_id: str | None
    after: int
    rate: float
    left: float

    def is_due(self, endpoint: str, task_id: str | None) -> bool:
        """Whether this request is one to strike; counts it where it is one to let pass."""
        is_meant = endpoint == self.endpoint or (self.endpoint is None and endpoint != "image")
        if not is_meant or self.task_id not in (None, task_id):
            return False
        self.after -= 1
        return self.after < 0


@define
class FaultPlan:
    """The faults still to come, in the order they were asked for."""

    dice: Random
    rules: list[_Rule] = field(factory=list)

    def add(
        self,
        fault: Fault,
        *,
        count: int | None,
        rate: float | None,
        endpoint: str | None,
        task_id: str | None,
        after: int,
    ) -> None:
        """Without a `rate` the default `count` is 1; with one there is no end."""
        accepted.argument("fault", fault, accepted.a(Fault, "fault"))
        accepted.argument("count", count, optional(accepted.number_of_times))
        accepted.argument("rate", rate, optional(accepted.share))
        accepted.argument("after", after, accepted.whole_number)
        left = count if count is not None else 1 if rate is None else inf
        chance = 1.0 if rate is None else rate
        self.rules.append(_Rule(fault, endpoint, task_id, after, chance, left))

    def choose(self, endpoint: str, task_id: str | None) -> Fault | None:
        """The fault of this request: of the first rule that meets it, if any does."""
        due = [rule for rule in self.rules if rule.is_due(endpoint, task_id)]
        for rule in due:
            if rule.rate >= 1 or self.dice.random() < rule.rate:
                rule.left -= 1
                self.rules = [rule for rule in self.rules if rule.left > 0]
                return rule.fault
        return None
