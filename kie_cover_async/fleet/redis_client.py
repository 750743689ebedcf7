"""Connections to Redis by redis-py, which is an extra."""

from typing import TYPE_CHECKING

from kie_cover_async.validation import short_repr

if TYPE_CHECKING:
    from redis.asyncio import Redis

# Seconds. A store that takes longer counts as unreachable.
TIMEOUT = 0.5
# Seconds after which an idle subscription sends a ping.
PING_INTERVAL = 10.0

_MAX_NAME_LENGTH = 100
_SCHEMES = ("redis://", "rediss://", "unix://")
_HINT = (
    "what processes share needs redis-py: install the extra `redis` of kie_cover_async, "
    "or pip install 'redis>=5.2'"
)


def check_name(name: str) -> str:
    """Return the name of what is shared, which becomes part of its keys."""
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME_LENGTH or "}" in name:
        raise ValueError(
            f"name must be a text of 1 to {_MAX_NAME_LENGTH} characters without '}}', "
            f"not {short_repr(name)}"
        )
    return name


def check_url(url: str) -> str:
    """Return the URL of a Redis server.

    Raises:
        ImportError: redis-py is not installed.
        ValueError: It is not a URL that redis-py reads; the message leaves a password out.
    """
    if not isinstance(url, str) or not url.startswith(_SCHEMES):
        # A URL may have a password, so only its beginning is shown.
        begin = short_repr(url.partition(":")[0] if isinstance(url, str) else type(url).__name__)
        raise ValueError(f"url must begin with {', '.join(_SCHEMES[:2])} or {_SCHEMES[2]}: {begin}")
    try:
        connect(url)
    except ImportError as error:
        raise ImportError(_HINT) from error
    except ValueError:
        raise ValueError("url is not one that redis-py can read (it is not shown here)") from None
    return url


def connect(url: str, timeout: float = TIMEOUT) -> "Redis":
    """Return a client that connects with its first command, and repeats none.

    Args:
        url: The Redis server.
        timeout: Seconds until the reply to a command.
    """
    from redis.asyncio import Redis  # noqa: PLC0415 - an extra
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    return Redis.from_url(
        url,
        socket_connect_timeout=TIMEOUT,
        socket_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=PING_INTERVAL,
        decode_responses=True,
        # Bytes of another program need not be text; such a text is not printable.
        encoding_errors="surrogateescape",
    )
