"""What a poll comes to."""

from datetime import datetime

from kie_cover_async.errors import KieCoverError
from kie_cover_async.models import CoverDetails


class PollResult:
    """A record as a poll read it.

    `served_at` is the server's clock, `received_at` is `loop.time()`.
    """

    __slots__ = ("details", "received_at", "served_at")

    def __init__(
        self, details: CoverDetails, served_at: datetime | None, received_at: float
    ) -> None:
        self.details: CoverDetails = details
        self.served_at: datetime | None = served_at
        self.received_at: float = received_at


PollOutcome = PollResult | KieCoverError
