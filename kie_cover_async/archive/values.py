"""What the archive knows of a cover and its images, as frozen values."""

from datetime import datetime
from pathlib import Path
from typing import Literal

from attrs import field, frozen

from kie_cover_async.models import CoverDetails

ArchiveState = Literal["pending", "saved", "failed"]
Problem = Literal["missing", "altered", "unreadable"]


@frozen(kw_only=True)
class SavedImage:
    """One image on disk: the `number`-th of its cover, counted from 1.

    `size` is in bytes, `width` and `height` in pixels; `media_type` is what its bytes say, such as
    `image/png`. `sha256` is in hexadecimal digits, `url` where it came from.
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

    `state` is `pending` until all images are here, then `saved`; `failed` is what `mark_failed`
    made of it, and `error` says why. `details` is what was last known of the job; times are in UTC.
    """

    task_id: str
    state: ArchiveState
    details: CoverDetails | None
    images: tuple[SavedImage, ...] = field(default=())
    added_at: datetime
    expires_at: datetime | None
    error: str | None = None


@frozen(kw_only=True)
class ImageProblem:
    """A recorded image that is not on disk any more as it was saved.

    `unreadable` is one that the system does not let us read: a right that is missing, a folder or
    a pipe in its place, a disk that is broken.
    """

    task_id: str
    image: SavedImage
    problem: Problem


@frozen(kw_only=True)
class VerificationReport:
    """What `verify` found, of so many images that it `checked`."""

    checked: int
    findings: tuple[ImageProblem, ...]

    @property
    def ok(self) -> bool:
        """Whether every image is there, and is what it was."""
        return not self.findings
