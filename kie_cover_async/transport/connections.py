"""The connections of our own session, and which of them are not to be used again."""

from typing import Any
from weakref import WeakSet

import aiohttp

# Covers take minutes and are looked at every few seconds: a connection given up after aiohttp's
# usual 15 s would be made anew for nearly every look.
_KEEP_ALIVE = 75.0


class Connections(aiohttp.TCPConnector):
    """Keeps connections for the next request, but none on which the server spoke unasked.

    What came between two requests would be read as the answer to the second one, and from then on
    every answer would be the one before.
    """

    def __init__(self) -> None:
        # The limit is ours: a request that queued in the pool would lose its time there.
        super().__init__(limit=0, keepalive_timeout=_KEEP_ALIVE)
        self._used: WeakSet[object] = WeakSet()

    async def connect(self, *request: Any, **more: Any) -> aiohttp.connector.Connection:
        """A kept connection or a new one; the arguments are between aiohttp and itself."""
        while True:
            connection = await super().connect(*request, **more)
            protocol: Any = connection.protocol
            # A new one is never turned down, or a server that greets would be asked for ever.
            if protocol not in self._used:
                self._used.add(protocol)
                return connection
            if not protocol.should_close:
                return connection
            connection.close()
