"""The workers of a bulk call, and the end of all of them."""

import asyncio
import logging
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from contextlib import AbstractContextManager
from typing import Any, Final

from kie_cover_async.errors import ClientClosedError, KieCoverError
from kie_cover_async.models import CoverDetails
from kie_cover_async.validation import short_repr

from .outcome import CoverOutcome

TaskIds = Iterable[str] | AsyncIterable[str]
_ITERABLES = (Iterable, AsyncIterable)
_NO_MORE: Final = object()

_log = logging.getLogger(__name__)


class Pool:
    """Workers that draw ids from one source, as many as there is work for and at most `limit`.

    At most twice the limit of ids are drawn and not yet taken as outcomes, so that a slow consumer
    slows the source, and order can be kept over that window. Who finds nothing to draw, or no room,
    leaves; who has drawn something has the next one hired, in the next turn of the event loop.

    The workers know the pool and not the stream, which is what lets a dropped stream be noticed.
    """

    def __init__(
        self,
        task_ids: TaskIds,
        work: Callable[[str], Awaitable[CoverDetails]],
        while_open: Callable[[], AbstractContextManager[object]],
        *,
        limit: int,
        ordered: bool,
    ) -> None:
        if isinstance(task_ids, (str, bytes)) or not isinstance(task_ids, _ITERABLES):
            raise TypeError(f"task_ids must be an iterable of ids, not {short_repr(task_ids)}")
        self._source: TaskIds = task_ids
        self._work = work
        self._free, self._window = limit, 2 * limit
        self._ordered = ordered
        self._while_open = while_open
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids: Iterator[str] | None = None
        self._fed: deque[str] = deque()
        self._drawn = self._taken = self._due = 0
        self._ready: deque[CoverOutcome] = deque()
        self._early: dict[int, CoverOutcome] = {}
        self._news, self._vacancy = asyncio.Event(), asyncio.Event()
        self._failure: BaseException | None = None
        self._stopped = False

    async def take(self) -> CoverOutcome:
        """The next outcome; raises `StopAsyncIteration` after the last."""
        if self._loop is None:
            self._begin(asyncio.get_running_loop())
        while not self._ready:
            if not self._tasks:
                raise self._ending()
            self._news.clear()
            await self._news.wait()
        self._taken += 1
        self._hire()
        self._vacancy.set()
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Stop, and wait until all tasks are gone; one of them that calls is cancelled here."""
        self._abandon()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def drop(self) -> None:
        """Stop soon; to be called by the garbage collector, in whatever thread it runs."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._abandon)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        if isinstance(self._source, AsyncIterable):
            self._start(self._feed(self._source))
        else:
            self._ids = iter(self._source)
            self._hire()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        failure: BaseException | None
        try:
            failure = task.exception()
        except asyncio.CancelledError as cancelled:
            failure = cancelled
        if failure is not None:
            self._fail(failure)
        self._vacancy.set()
        self._news.set()

    def _fail(self, failure: BaseException) -> None:
        if not self._stopped:
            self._failure = failure
            self._stop()
        elif not isinstance(failure, (asyncio.CancelledError, ClientClosedError)):
            _log.error("a bulk call that was stopped failed as well", exc_info=failure)

    def _stop(self) -> None:
        self._stopped = True
        self._source, self._ids = (), None
        self._fed.clear()
        for task in self._tasks:
            task.cancel()

    def _abandon(self) -> None:
        self._stop()
        self._ready.clear()
        failure, self._failure = self._failure, None
        if failure is not None:
            self._fail(failure)

    def _ending(self) -> BaseException:
        failure, self._failure = self._failure, None
        if isinstance(failure, (StopAsyncIteration, asyncio.CancelledError)):
            # Raised as it is, it would look like the end, or as if who iterates had been cancelled.
            error = RuntimeError(f"{type(failure).__name__} was raised within a bulk call")
            error.__cause__ = failure
            return error
        return failure or StopAsyncIteration()

    def _has_room(self) -> bool:
        return self._drawn - self._taken < self._window

    def _is_short_of_hands(self) -> bool:
        return bool(self._free and self._has_room() and (self._fed or self._ids is not None))

    def _hire(self) -> None:
        if self._is_short_of_hands():
            self._free -= 1
            self._start(self._labour())

    async def _labour(self) -> None:
        while self._has_room() and (task_id := self._draw()) is not _NO_MORE:
            place, self._drawn = self._drawn, self._drawn + 1
            if self._is_short_of_hands():
                asyncio.get_running_loop().call_soon(self._hire)
            self._deliver(place, await self._outcome(task_id))
            # Answers that came together are all read before the next requests are written, which
            # was measured to cost a tenth less than reading and writing in turns.
            await asyncio.sleep(0)
        self._free += 1

    def _draw(self) -> Any:
        if self._fed:
            return self._fed.popleft()
        if self._ids is None:
            return _NO_MORE
        if (task_id := next(self._ids, _NO_MORE)) is _NO_MORE:
            self._ids = None
        return task_id

    async def _feed(self, source: AsyncIterable[str]) -> None:
        """Draw from an async source, all of it in this task, whenever there is a place for it."""
        try:
            with self._while_open():
                async for task_id in source:
                    self._fed.append(task_id)
                    self._hire()
                    while not (self._free and self._has_room()):
                        self._vacancy.clear()
                        await self._vacancy.wait()
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()

    async def _outcome(self, task_id: str) -> CoverOutcome:
        try:
            return CoverOutcome(task_id=task_id, details=await self._work(task_id))
        except ClientClosedError:
            raise
        except KieCoverError as error:
            # As data it needs no traceback, which would keep alive all that stood in its frames.
            return CoverOutcome(task_id=task_id, error=error.with_traceback(None))

    def _deliver(self, place: int, outcome: CoverOutcome) -> None:
        if not self._ordered:
            self._ready.append(outcome)
        else:
            self._early[place] = outcome
            while self._due in self._early:
                self._ready.append(self._early.pop(self._due))
                self._due += 1
        self._news.set()
