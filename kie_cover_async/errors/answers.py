"""What comes of one request: no answer, an unreadable one, or the API's own no."""

from .root import KieCoverError, error_class


@error_class
class TransportError(KieCoverError):
    """No usable answer came: the connection failed, was reset, or the request timed out.

    `reason` names what happened; `connected` is False where no connection was ever made.
    """

    transient = True

    reason: str
    connected: bool = True

    def _what(self) -> str:
        return f"no usable answer: {self.reason}"


class ConnectionSetupError(TransportError):
    """The setup allows no connection: an untrusted certificate, a proxy that refuses, no TLS.

    Nothing was sent, and no retry helps. `reason` says what is wrong and what to do about it.
    """

    transient = False

    def _what(self) -> str:
        return f"no connection: {self.reason}"


@error_class
class InvalidResponseError(KieCoverError):
    """An answer that cannot be read.

    `path` is where (`$.data.images[1]`; `$` is the whole answer), `found` what stood there,
    shortened, and `expected` what would have been accepted.
    """

    transient = True

    path: str
    found: str
    expected: str
    http_status: int | None = None

    def _what(self) -> str:
        return f"unreadable answer: at {self.path} expected {self.expected}, found {self.found}"


@error_class
class ApiError(KieCoverError):
    """The API said no.

    `code` is the envelope's, or the HTTP status where there was no envelope; `msg` is the API's
    own text. The API sends nearly all its errors with HTTP status 200, so `code` is what counts.
    """

    code: int
    msg: str = ""
    http_status: int | None = None

    def _what(self) -> str:
        return f"{type(self).__name__} {self._said}"

    @property
    def _said(self) -> str:
        said = f"{self.code}: {self.msg}" if self.msg else f"{self.code}"
        # A path that does not exist is answered so, too, by the API as by any other server.
        return f"{said}; is the base URL right?" if self.code == 404 else said


class AuthenticationError(ApiError):
    """The key was not accepted (401)."""


class ForbiddenError(ApiError):
    """The gateway refused the client (403): its User-Agent, or the key's list of addresses."""


class InsufficientCreditsError(ApiError):
    """The account has too few credits (402)."""


class TaskNotFoundError(ApiError):
    """There is no record of this id: never was, is not visible yet, or was deleted.

    The API answers the three alike, mostly with code 200, "success" and no data.
    """

    def _what(self) -> str:
        return f"no record of this id ({self._said})"


class InvalidRequestError(ApiError):
    """The API could not use what was sent (400, 413, 422)."""


@error_class
class CoverAlreadyExistsError(ApiError):
    """This song has its one cover already; `existing_task_id` is its id where the API told."""

    existing_task_id: str | None = None


@error_class
class RateLimitedError(ApiError):
    """Too many requests (429; 405, 430 and 433 in an envelope).

    `retry_after` is what the server asked for, in seconds, or `None`.
    """

    transient = True

    retry_after: float | None = None

    def _what(self) -> str:
        asked = "" if self.retry_after is None else f" (asked to wait {self.retry_after:g} s)"
        return f"{super()._what()}{asked}"


class MaintenanceError(ApiError):
    """The API is under maintenance (455)."""

    transient = True


class ServerError(ApiError):
    """The API or its gateway is in trouble (408, from 500 on all but 501, 505, 531; bare 5xx)."""

    transient = True
