"""`SharedRateLimiter`: one rate limit over all processes that share an API key."""

import asyncio
from typing import Self

from kie_cover_async.rate_limiter import RateLimiter

from .redis_client import check_name, check_url
from .redis_slots import RedisSlots


class SharedRateLimiter(RateLimiter):
    """A `RateLimiter` whose slots are shared by all processes that use the same Redis and name::

        polls = SharedRateLimiter("redis://localhost", 9, per=1.0, name="kie")
        submits = SharedRateLimiter(
            "redis://localhost", 19, per=10.0, name="kie-submits", sends_in_outage=False
        )
        async with polls, submits:
            client = CoverClient(rate_limiter=polls, submit_rate_limiter=submits)

    A refusal by the server pauses all processes. While Redis cannot be reached, each process goes
    on at its share of the rate, by the number of processes that were seen last, less a tenth.
    Each request takes one round trip to Redis (6.2 or later), which needs no persistence.

    Args:
        url: As in redis-py: `redis://[:password@]host:port/db`, `rediss://` for TLS, or `unix://`.
        number: How many requests may be sent in `per` seconds by all processes together.
        per: Seconds.
        name: Limiters of the same name share their slots. `number` and `per` must be equal, too.
        sends_in_outage: `False` lets requests wait until Redis is back, as submits should.

    Raises:
        ImportError: redis-py is not installed.
    """

    _slots: RedisSlots

    def __init__(
        self,
        url: str,
        number: float = 9,
        /,
        *,
        per: float = 1.0,
        name: str = "kie",
        sends_in_outage: bool = True,
    ) -> None:
        self._name = check_name(name)
        self._url = check_url(url)
        self._sends_in_outage = sends_in_outage
        super().__init__(number, per=per)

    def __repr__(self) -> str:
        # The URL may have a password.
        return f"SharedRateLimiter(…, {self._number}, per={self._per:g}, name={self._name!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to Redis; the next request opens them again."""
        await self._slots.aclose()

    def _make_slots(self) -> RedisSlots:
        return RedisSlots(
            self._url,
            self._name,
            self.interval,
            on_change=self._arm,
            on_pause=self._on_pause,
            sends_in_outage=self._sends_in_outage,
        )

    def _on_pause(self, seconds: float) -> None:
        """Pause for as long as another process does."""
        end = asyncio.get_running_loop().time() + seconds
        self._paused_until = max(self._paused_until, end)
