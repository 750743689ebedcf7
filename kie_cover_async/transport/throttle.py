"""What every request of one kind passes before it is sent."""

from kie_cover_async.rate_limiter import ConcurrencyLimiter, RateLimiter


class Throttle:
    """A place, then a slot: status checks have one of these, submits another.

    In one pool of places a hundred queued submits would keep every poll out for a minute. A slot
    before a place would be too old by the time there is a place, and let a burst go after a stall.
    """

    __slots__ = ("limiter", "places")

    def __init__(self, limiter: RateLimiter, places: ConcurrencyLimiter) -> None:
        self.limiter: RateLimiter = limiter
        self.places: ConcurrencyLimiter = places


def share_places(
    connections: int, polls: int, submits: int
) -> tuple[ConcurrencyLimiter, ConcurrencyLimiter]:
    """Return the places of so many polls and submits, over no more connections than these.

    If there are too few for both, a fifth is for submits; a single one serves either.
    """
    if connections == 1:
        place = ConcurrencyLimiter(1)
        return place, place
    if polls + submits > connections:
        submits = min(submits, max(connections // 5, 1))
        polls = min(polls, connections - submits)
    return ConcurrencyLimiter(polls), ConcurrencyLimiter(submits)
