"""What the caller of a bulk call holds, and may let go of."""

from types import TracebackType
from typing import NoReturn, Self

from .outcome import CoverOutcome
from .pool import Pool


class OutcomeStream:
    """The outcomes of many ids, in the order of completion unless asked for in the input's.

    Iterate with `async for`, from one task or from several, which then share the outcomes. Where
    the loop may be left early, hold the stream with `async with` or call `aclose()`: it returns
    when nothing is running any more. A stream that is simply dropped cancels what it started.

    Nothing starts before the first outcome is asked for. What a `KieCoverError` says of an id is
    data; a bug, and the `ClientClosedError` of a client that is closed meanwhile, is raised from
    the iteration after everything was stopped, and ends it. A cancellation that comes from within,
    and not from who iterates, is such a bug, and the cause of a `RuntimeError`.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __reduce__(self) -> NoReturn:
        # The end of either would be the end of what both stand for.
        raise TypeError("an OutcomeStream is not to be pickled or copied: share it, or ask anew")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CoverOutcome:
        return await self._pool.take()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what is running, and the stream with it."""
        await self._pool.aclose()

    def __del__(self) -> None:
        self._pool.drop()
