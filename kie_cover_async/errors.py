"""Every error raised on purpose.

    KieCoverError
    ├── TransportError             no usable answer: connection, timeout, reset          transient
    │   └── ConnectionSetupError   no connection until the setup is changed
    ├── InvalidResponseError       an answer that cannot be read                         transient
    ├── InvalidTaskIdError         also a ValueError
    ├── ClientClosedError          also a RuntimeError
    ├── ApiError                   the API said no: code, msg, http_status
    │   ├── AuthenticationError
    │   ├── ForbiddenError
    │   ├── InsufficientCreditsError
    │   ├── TaskNotFoundError
    │   ├── InvalidRequestError
    │   ├── CoverAlreadyExistsError
    │   ├── RateLimitedError                                                             transient
    │   ├── MaintenanceError                                                             transient
    │   └── ServerError                                                                  transient
    ├── CoverFailedError           the job ended in failure
    ├── CoverTimeoutError          also a TimeoutError
    ├── SignatureError
    ├── DownloadError
    └── OtherApiError              the id of a song was issued by another route or origin

Errors hold facts, and their messages are made from the facts. They can be copied and pickled.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import attrs

from .models import CoverDetails, CoverState

_E = TypeVar("_E", bound=BaseException)

_MAX_PART = 500


@dataclass_transform(kw_only_default=True, eq_default=False)
def error_class(cls: type[_E]) -> type[_E]:
    """Return an attrs class that compares by identity and, without slots, can hold a traceback.

    Only an error with facts of its own needs this decorator: attrs takes time on import.
    """
    # `auto_exc` would put the facts into `args`.
    return attrs.define(kw_only=True, slots=False, eq=False, str=False, auto_exc=False)(cls)


def _rebuild(cls: type["KieCoverError"], facts: dict[str, Any]) -> "KieCoverError":
    return cls(**facts)


def _one_line(text: str) -> str:
    """Return one printable line of bounded length: servers wrote much of what messages quote."""
    cut = text if len(text) <= _MAX_PART else f"{text[: _MAX_PART - 1]}…"
    return " ".join("".join(c if c.isprintable() else " " for c in cut).split())


def _requested_delay(retry_after: float | None) -> str:
    return "" if retry_after is None else f" (asked to wait {retry_after:g} s)"


@error_class
class KieCoverError(Exception):
    """The root of the tree.

    `transient` (per class): the condition may pass soon. Whether *this call* may be repeated is
    `retryable`: true for a transient error of a read, and for `generate_cover`, which costs
    credits, only if the API certainly did not accept the request. `maybe_accepted` marks the
    opposite doubt: the API may have accepted a paid request although no usable answer came.
    `request_id` is the gateway's `cf-ray`, the only id that the API gives to a request.
    """

    __attrs_attrs__: ClassVar["tuple[attrs.Attribute[Any], ...]"]

    transient: ClassVar[bool] = False

    task_id: str | None = None
    request_id: str | None = None
    retryable: bool = False
    maybe_accepted: bool = False

    @property
    def args(self) -> tuple[Any, ...]:
        """Return the message: Celery's JSON results store only `args` and the class name.

        Arguments that other code has assigned are returned instead.
        """
        return super().args or (str(self),)

    @args.setter
    def args(self, args: tuple[Any, ...]) -> None:
        Exception.__init__(self, *args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), self._facts())

    def __str__(self) -> str:
        parts = [self._summary(), *self._notes()]
        if self.task_id is not None:
            parts.append(f"task {self.task_id}")
        if self.request_id is not None:
            parts.append(f"cf-ray {self.request_id}")
        if self.maybe_accepted:
            parts.append("the request may have been accepted")
        return "; ".join(map(_one_line, parts))

    def _summary(self) -> str:
        return type(self).__name__

    def _notes(self) -> list[str]:
        return []

    def copy(self) -> Self:
        """Return an error with the same facts and a traceback of its own."""
        return type(self)(**self._facts())

    def _facts(self) -> dict[str, Any]:
        # By name: notes and other attributes set on the exception are not facts.
        return {fact.name: getattr(self, fact.name) for fact in attrs.fields(type(self))}


# What can come of one request: no answer, an unreadable answer, or the API's refusal.


@error_class
class TransportError(KieCoverError):
    """No usable answer came: the connection failed, was reset, or the request timed out.

    `reason` says what happened; `connected` is False if no connection was ever made.
    """

    transient = True

    reason: str
    connected: bool = True

    def _summary(self) -> str:
        return f"no usable answer: {self.reason}"


class ConnectionSetupError(TransportError):
    """The setup allows no connection: an untrusted certificate, a proxy that refuses, no TLS.

    Nothing was sent, and no retry helps. `reason` says what is wrong and how to fix it.
    """

    transient = False

    def _summary(self) -> str:
        return f"no connection: {self.reason}"


@error_class
class InvalidResponseError(KieCoverError):
    """An answer that cannot be read.

    `path` is the place (`$.data.images[1]`; `$` is the whole answer), `found` is the value there,
    shortened, and `expected` describes what would have been accepted.
    """

    transient = True

    path: str
    found: str
    expected: str
    http_status: int | None = None

    def _summary(self) -> str:
        return f"unreadable answer: at {self.path} expected {self.expected}, found {self.found}"


@error_class
class ApiError(KieCoverError):
    """The API said no.

    `code` is the envelope's, or the HTTP status if there was no envelope; `msg` is the API's own
    text. The API sends nearly all its errors with HTTP status 200, so `code` is what counts.
    """

    code: int
    msg: str = ""
    http_status: int | None = None

    def _summary(self) -> str:
        return f"{type(self).__name__} {self._code_and_msg()}"

    def _code_and_msg(self) -> str:
        text = f"{self.code}: {self.msg}" if self.msg else f"{self.code}"
        # The API answers 404 for a path that does not exist, as any other server would.
        return f"{text}; is the base URL right?" if self.code == 404 else text


class AuthenticationError(ApiError):
    """The key was not accepted (401)."""


class ForbiddenError(ApiError):
    """The gateway refused the client (403): its User-Agent, or the key's list of addresses."""


class InsufficientCreditsError(ApiError):
    """The account has too few credits (402)."""


class TaskNotFoundError(ApiError):
    """The API has no record of this id: it never existed, is not visible yet, or was deleted.

    The API answers all three alike, mostly with code 200, "success" and no data.
    """

    def _summary(self) -> str:
        return f"no record of this id ({self._code_and_msg()})"


class InvalidRequestError(ApiError):
    """The API could not use what was sent (400, 413, 422)."""


@error_class
class CoverAlreadyExistsError(ApiError):
    """This song already has its one cover; `existing_task_id` is its id if the API gave it."""

    existing_task_id: str | None = None


@error_class
class RateLimitedError(ApiError):
    """Too many requests (429; 405, 430 and 433 in an envelope).

    `retry_after` is the delay that the server asked for, in seconds, or `None`.
    """

    transient = True

    retry_after: float | None = None

    def _summary(self) -> str:
        return f"{super()._summary()}{_requested_delay(self.retry_after)}"


class MaintenanceError(ApiError):
    """The API is under maintenance (455)."""

    transient = True


class ServerError(ApiError):
    """The API or its gateway is in trouble (408, from 500 on all but 501, 505, 531; bare 5xx)."""

    transient = True


# What can come of a job, a callback or a download, and what this package itself refuses.


@error_class
class InvalidTaskIdError(KieCoverError, ValueError):
    """A task id that cannot be one: nothing was sent. `given` is its repr, shortened."""

    argument: str
    given: str

    def _summary(self) -> str:
        expected = "a non-empty str without blanks or control characters"
        return f"{self.argument} must be {expected}, not {self.given}"


@error_class
class ClientClosedError(KieCoverError, RuntimeError):
    """The client is closed, or the external session is; `reason` says which.

    Calls that were running when the client closed end with this error.
    """

    reason: str = "the client is closed"

    def _summary(self) -> str:
        return self.reason


def _shape_note(details: CoverDetails | None) -> list[str]:
    if details is None or details.record_shape is None:
        return []
    return [f"the record has the keys and types {details.record_shape}"]


@error_class
class CoverFailedError(KieCoverError):
    """The job ended in failure, or in a success that never got its images; see `details`."""

    details: CoverDetails

    def _summary(self) -> str:
        if not self.details.state.is_failure:
            return "the cover's record says success but has no images"
        facts = filter(None, (self.details.error_code, self.details.error_message))
        return ": ".join([f"the cover failed ({self.details.state.value})", *map(str, facts)])

    def _notes(self) -> list[str]:
        return _shape_note(self.details)


@error_class
class CoverTimeoutError(KieCoverError, TimeoutError):
    """The wait's timeout has passed; the job itself goes on, and can be waited for again.

    `details` is the last record seen, or `None`; `waited` is in seconds; `polls` counts the
    answers that the wait received. If the last polls failed, the last error is the cause.
    """

    polls: int
    waited: float
    details: CoverDetails | None = None

    def _summary(self) -> str:
        polls = "1 poll" if self.polls == 1 else f"{self.polls} polls"
        return f"no cover after {self.waited:.1f} s and {polls}, last seen {self._last_seen()}"

    def _last_seen(self) -> str:
        if self.details is None:
            return "nothing"
        if self.details.state is CoverState.UNKNOWN:
            return f"an unknown flag {self.details.success_flag!r}"
        return str(self.details.state.value)

    def _notes(self) -> list[str]:
        return _shape_note(self.details)


@error_class
class SignatureError(KieCoverError):
    """A callback's signature cannot be trusted.

    `reason` is `"is missing"`, `"is malformed"`, `"does not match"` or `"is stale"`. Only a genuine
    signature can be stale: its timestamp is too far from now. The `task_id` is what the body
    claims.
    """

    reason: str

    def _summary(self) -> str:
        return f"callback signature {self.reason}"


@error_class
class DownloadError(KieCoverError):
    """An image could not be saved: see `reason`.

    `http_status` is the answer of the image's host, if that is the reason, and `retry_after` is
    the delay that it asked for, in seconds. If `retryable` is true, the next attempt may succeed:
    the image was cut off, or the host was in trouble. If it is false, the image is not necessarily
    gone, since a setting or the network may be wrong: see `kie_cover_async.archive.is_final`.
    """

    reason: str
    url: str | None = None
    http_status: int | None = None
    retry_after: float | None = None

    def _summary(self) -> str:
        return f"image not saved: {self.reason}{_requested_delay(self.retry_after)}"


@error_class
class OtherApiError(KieCoverError):
    """The id of a song was issued by another route or origin; the song stays as it is."""

    route: str
    origin: str

    def _summary(self) -> str:
        return f"the id was issued by the {self.route} route of {self.origin}"
