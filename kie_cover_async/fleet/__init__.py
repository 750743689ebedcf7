"""One API key, many processes: what they share, in Redis and in PostgreSQL.

`rate_limiter` is the limit on all of them, and `redis_slots` the source of its slots.
`callback_bus` passes on the callbacks that reach one of them, and `postgres_ledger` has their
songs. Nothing here is imported by the rest of the package.
"""

from .callback_bus import CallbackBus
from .postgres_ledger import PostgresLedger
from .rate_limiter import SharedRateLimiter

__all__ = ["CallbackBus", "PostgresLedger", "SharedRateLimiter"]
