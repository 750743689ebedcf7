"""Which errors rule a cover out for good."""

from datetime import UTC, datetime

from kie_cover_async.errors import (
    CoverFailedError,
    DownloadError,
    KieCoverError,
    TaskNotFoundError,
)
from kie_cover_async.models import CoverDetails

_NOT_FOUND, _FORBIDDEN, _GONE = 404, 403, 410


def is_final(error: KieCoverError, details: CoverDetails | None = None) -> bool:
    """Return whether the service itself said that there will be no cover.

    Only then is `CoverArchive.fail` right: after a wait or a save that ended because the job
    failed, or succeeded without images, because the API has no record of the id, or because the
    image's host answered 404 or 410. Any other error may be due to this machine, its network or
    its settings, and another try may succeed once that is put right.

    403 means that an image is gone only if, by its `details`, it has expired; otherwise the host
    may have refused the client. A 404 of the API may also mean that the base URL is wrong.
    """
    if isinstance(error, DownloadError):
        if error.http_status == _FORBIDDEN:
            return details is not None and _has_expired(details)
        return error.http_status in {_NOT_FOUND, _GONE}
    if isinstance(error, TaskNotFoundError):
        return error.code != _NOT_FOUND
    return isinstance(error, CoverFailedError)


def _has_expired(details: CoverDetails) -> bool:
    return details.expires_at is not None and details.expires_at < datetime.now(UTC)
