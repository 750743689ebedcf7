"""Many covers of the record, some at a time, so that who saves has the record in between."""

from math import inf
from typing import Any, Self

from .threads import Threads
from .values import ArchivedCover


class Pages:
    """The covers that an SQL condition selects, as they were added, none of them twice.

    Each page is of one moment. What is added or changes between two pages may be seen or not.
    """

    def __init__(
        self, threads: Threads, condition: str = "TRUE", *values: Any, size: int = 500
    ) -> None:
        self._threads = threads
        self._condition, self._values = condition, values
        self._size = size
        self._after: float = -inf

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[ArchivedCover]:
        page = await self._threads.ask(
            lambda record: record.page(
                self._condition, *self._values, after=self._after, size=self._size
            )
        )
        if not page:
            raise StopAsyncIteration
        self._after, _ = page[-1]
        return [cover for _, cover in page]
