"""A log that a flood of requests does not fill."""

import asyncio
import logging
from collections import Counter
from typing import Any

_PERIOD = 30.0


class BoundedLog(logging.LoggerAdapter[logging.Logger]):
    """Logs a message once in 30 seconds, and then how often it was repeated in them.

    Messages are the same if they are so before their arguments are merged. To be used in an event
    loop.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger)
        self._repeated: Counter[object] = Counter()

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log the message, or count it if it was logged in the last 30 seconds."""
        if not self.isEnabledFor(level):
            return
        if msg in self._repeated:
            self._repeated[msg] += 1
            return
        self.logger.log(level, msg, *args, **kwargs)
        self._begin_period(level, msg, args)

    def _begin_period(self, level: int, msg: object, args: tuple[object, ...]) -> None:
        self._repeated[msg] = 0
        asyncio.get_running_loop().call_later(_PERIOD, self._end_period, level, msg, args)

    def _end_period(self, level: int, msg: object, args: tuple[object, ...]) -> None:
        count = self._repeated.pop(msg)
        if count:
            summary = f"{msg} (and {count:,} more in {_PERIOD:g} s)"
            self.logger.log(level, summary, *args)
            self._begin_period(level, msg, args)
