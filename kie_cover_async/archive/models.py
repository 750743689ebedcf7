"""What an archive knows of covers and their images, and which errors are final."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from attrs import frozen

from kie_cover_async.errors import CoverFailedError, DownloadError, KieCoverError, TaskNotFoundError
from kie_cover_async.ledger import Api
from kie_cover_async.models import CoverDetails

ArchiveState = Literal["pending", "saved", "failed"]
Problem = Literal["missing", "altered", "unreadable"]

_FORBIDDEN, _NOT_FOUND, _GONE = 403, 404, 410


@frozen(kw_only=True)
class SavedImage:
    """One image on disk: number `number` of its cover, counted from 1.

    `size` is in bytes, `width` and `height` are in pixels. `media_type` follows from the content,
    such as `image/png`. `sha256` is in hexadecimal digits. `url` is where the image came from.
    """

    number: int
    url: str
    path: Path
    sha256: str
    size: int
    media_type: str
    width: int
    height: int


@frozen(kw_only=True)
class ArchivedCover:
    """What the archive knows of one cover.

    `state` is `pending` until all images are in the folder, then `saved`. `mark_failed` makes it
    `failed`, and `error` says why. `details` are the last known details of the job. `api` is the
    API that issued the id, if that is known. Times are in UTC.
    """

    task_id: str
    state: ArchiveState
    details: CoverDetails | None
    images: tuple[SavedImage, ...] = ()
    added_at: datetime
    expires_at: datetime | None
    error: str | None = None
    api: Api | None = None


@frozen(kw_only=True)
class ImageProblem:
    """A recorded image whose file differs from what was saved.

    `problem` is `missing`, `altered` or `unreadable`. An unreadable file is one that the system
    does not let us read: permission is missing, a folder or a pipe has its name, or the disk is
    broken.
    """

    task_id: str
    image: SavedImage
    problem: Problem


@frozen(kw_only=True)
class VerificationReport:
    """The result of `verify`: the number of images `checked`, and the problems found."""

    checked: int
    findings: tuple[ImageProblem, ...]

    @property
    def ok(self) -> bool:
        """Whether every image is present and unchanged."""
        return not self.findings


def is_final(error: KieCoverError, details: CoverDetails | None = None) -> bool:
    """Return whether the service itself said that there will be no cover.

    Call `CoverArchive.mark_failed` only for such an error: the job failed, or succeeded without
    images; the API has no record of the id; or the image's host answered 404 or 410. Any other
    error may be due to this machine, its network or its settings, and a later try may succeed.

    A 403 from the image's host is final only if, by its `details`, the image has expired;
    otherwise the host may have refused this client. A 404 from the API is not final, since the
    base URL may be wrong.
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
