"""A cover's record as frozen values."""

from datetime import datetime, timedelta
from enum import Enum

from attrs import field, frozen

RETENTION = timedelta(days=14)
"""How long the vendor's pages say images are kept after completion."""


class CoverState(Enum):
    """The state of a cover job.

    The words are the vendor's, except for `GENERATING`, which its pages only number (flag 2), and
    `UNKNOWN`, for an undocumented flag or none. An unknown state is not terminal.
    """

    PENDING = "PENDING"
    GENERATING = "GENERATING"
    SUCCESS = "SUCCESS"
    CREATE_TASK_FAILED = "CREATE_TASK_FAILED"
    GENERATE_COVER_FAILED = "GENERATE_COVER_FAILED"
    UNKNOWN = "UNKNOWN"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended, with or without a cover."""
        return self in _TERMINAL

    @property
    def is_failure(self) -> bool:
        """Whether the job has ended without a cover."""
        return self.is_terminal and self is not CoverState.SUCCESS

    @classmethod
    def of(cls, flag: int | str | None) -> "CoverState":
        """Return the state that a `successFlag` means: a number, its digits, or a word."""
        if isinstance(flag, str):
            flag = flag.strip().upper()
        return _STATES.get(flag, cls.UNKNOWN)


_TERMINAL = frozenset(
    {CoverState.SUCCESS, CoverState.CREATE_TASK_FAILED, CoverState.GENERATE_COVER_FAILED}
)

# 2 is "still generating" here, although sister endpoints of the vendor use it for "failed".
_NUMBERS: dict[int | str | None, CoverState] = {
    0: CoverState.PENDING,
    1: CoverState.SUCCESS,
    2: CoverState.GENERATING,
    3: CoverState.GENERATE_COVER_FAILED,
}
_STATES: dict[int | str | None, CoverState] = {
    **_NUMBERS,
    **{str(number): state for number, state in _NUMBERS.items()},
    **{state.value: state for state in CoverState},
}


# Without slots: a frozen class with them takes a third longer to make.
@frozen(kw_only=True, slots=False)
class CoverResponse:
    """The URLs of the images that the job made, usually two; none while it is running."""

    images: tuple[str, ...] = ()


@frozen(kw_only=True, slots=False)
class CoverDetails:
    """The status of a cover job, as one poll read it.

    Times are aware and in UTC. `success_flag` is kept as it was read (a number or a word, `None` if
    the record had none); `state` says what it means. `error_code` and `error_message` are `None` if
    the record says "no error", which the API writes as 200, 0, an empty text or null.
    `credits_consumed` is known on the Market route only.

    `record_shape` is `None` unless the state is unknown or a success has no images. Then it has the
    record's keys and types, without any value, for a report to the maintainers.
    """

    task_id: str
    parent_task_id: str | None = None
    callback_url: str | None = None
    create_time: datetime | None = None
    complete_time: datetime | None = None
    response: CoverResponse = field(factory=CoverResponse)
    success_flag: int | str | None = None
    error_code: int | str | None = None
    error_message: str | None = None
    credits_consumed: float | None = None
    record_shape: str | None = field(default=None, eq=False, repr=False)

    @property
    def state(self) -> CoverState:
        """What `success_flag` means; the error code does not matter."""
        return CoverState.of(self.success_flag)

    @property
    def images(self) -> tuple[str, ...]:
        """The URLs of the images, in the API's order."""
        return self.response.images

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended; a success may be reported a moment before its images."""
        return self.state.is_terminal

    @property
    def is_success(self) -> bool:
        """Whether there is a cover: the flag says success *and* there is an image."""
        return self.state is CoverState.SUCCESS and bool(self.images)

    @property
    def generation_time(self) -> timedelta | None:
        """The time from creation to completion; `None` if one is missing or they are swapped."""
        if self.create_time is None or self.complete_time is None:
            return None
        taken = self.complete_time - self.create_time
        return taken if taken >= timedelta(0) else None

    @property
    def expires_at(self) -> datetime | None:
        """When the vendor deletes the images: 14 days after completion, by its pages.

        Result links were seen to expire within the hour: save the images immediately.
        """
        try:
            return self.complete_time + RETENTION if self.complete_time else None
        except OverflowError:
            return None
