"""What became of one id of many."""

from typing import cast

from attrs import frozen

from kie_cover_async.errors import KieCoverError
from kie_cover_async.models import CoverDetails


@frozen(kw_only=True)
class CoverOutcome:
    """What became of one id: `details`, or the `error` in place of them.

    In `check_covers` the details of a failed cover are a good poll, and `ok`; in `wait_for_covers`
    a failed cover is a `CoverFailedError`. `task_id` is the id as it was given, whatever it was.
    """

    task_id: str
    details: CoverDetails | None = None
    error: KieCoverError | None = None

    @property
    def ok(self) -> bool:
        """Whether there was no error."""
        return self.error is None

    def result(self) -> CoverDetails:
        """The details; raises the error where there is one."""
        if self.error is not None:
            raise self.error
        return cast("CoverDetails", self.details)
