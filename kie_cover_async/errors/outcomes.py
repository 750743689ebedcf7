"""What comes of a job, of a callback, of a download, and what we refuse ourselves."""

from kie_cover_async.models import CoverDetails, CoverState

from .root import KieCoverError, error_class


@error_class
class InvalidTaskIdError(KieCoverError, ValueError):
    """A task id that cannot be one: nothing was sent. `given` is its repr, shortened."""

    argument: str
    given: str

    def _what(self) -> str:
        wanted = "a non-empty str without blanks or control characters"
        return f"{self.argument} must be {wanted}, not {self.given}"


@error_class
class ClientClosedError(KieCoverError, RuntimeError):
    """The client is closed, or the external session is; `reason` says which.

    Calls that were running when the client closed end with this error.
    """

    reason: str = "the client is closed"

    def _what(self) -> str:
        return self.reason


@error_class
class CoverFailedError(KieCoverError):
    """The job ended in failure, or in a success that never got its images; see `details`."""

    details: CoverDetails

    def _what(self) -> str:
        if not self.details.state.is_failure:
            return "the cover's record says success but has no images"
        said = [str(fact) for fact in (self.details.error_code, self.details.error_message) if fact]
        return ": ".join([f"the cover failed ({self.details.state.value})", *said])


@error_class
class CoverTimeoutError(KieCoverError, TimeoutError):
    """The time given to a wait is up; the job itself goes on and can be waited for again.

    `details` is what was last seen, or `None`; `waited` is in seconds; `polls` counts the answers
    that the wait heard. Where the wait ended on a failing streak, the last error is the cause.
    """

    polls: int
    waited: float
    details: CoverDetails | None = None

    def _what(self) -> str:
        polls = "1 poll" if self.polls == 1 else f"{self.polls} polls"
        return f"no cover after {self.waited:.1f} s and {polls}, last seen {self._seen}"

    @property
    def _seen(self) -> str:
        if self.details is None:
            return "nothing"
        if self.details.state is CoverState.UNKNOWN:
            return f"an unknown flag {self.details.success_flag!r}"
        return str(self.details.state.value)


@error_class
class SignatureError(KieCoverError):
    """A callback's signature cannot be trusted.

    `reason` is `"is missing"`, `"is malformed"`, `"does not match"` or `"is stale"`, which is said
    of a genuine one whose timestamp is too far from now. The `task_id` is what the body claims.
    """

    reason: str

    def _what(self) -> str:
        return f"callback signature {self.reason}"


@error_class
class DownloadError(KieCoverError):
    """An image could not be saved: see `reason`.

    `http_status` is what the image's host answered, where that is the reason, and `retry_after`
    how many seconds it asked to be left alone. `retryable` is true where the next try may
    bring the image: it was cut off, the host was in trouble. Where it is false the image need not
    be gone, since a setting or the network may be wrong: see `kie_cover_async.archive.is_final`.
    """

    reason: str
    url: str | None = None
    http_status: int | None = None
    retry_after: float | None = None

    def _what(self) -> str:
        asked = "" if self.retry_after is None else f" (asked to wait {self.retry_after:g} s)"
        return f"image not saved: {self.reason}{asked}"
