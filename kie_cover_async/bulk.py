"""One call over many ids: it yields an outcome for each, and leaves no task behind."""

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
from typing import Any, Final, NoReturn, Self, cast

from attrs import frozen

from .errors import ClientClosedError, KieCoverError
from .models import CoverDetails
from .validation import short_repr

TaskIds = Iterable[str] | AsyncIterable[str]
_ITERABLES = (Iterable, AsyncIterable)
_END: Final = object()

_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class CoverOutcome:
    """The outcome of one id of many: `details`, or the `error` instead of them.

    In `check_covers` the details of a failed cover are a successful poll, and `ok`; in
    `wait_for_covers` a failed cover is a `CoverFailedError`. `task_id` is the id exactly as given,
    even if it is not a valid one.
    """

    task_id: str
    details: CoverDetails | None = None
    error: KieCoverError | None = None

    @property
    def ok(self) -> bool:
        """Return whether there was no error."""
        return self.error is None

    def result(self) -> CoverDetails:
        """Return the details, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("CoverDetails", self.details)


class Pool:
    """Workers that take ids from one source: as many as there is work for, at most `limit`.

    At most `2 * limit` ids are drawn and not yet taken as outcomes: a slow consumer slows the
    source, and results can be put in order within that window. A worker that finds no id or no
    room ends; a worker that has drawn an id has the next worker started in the next iteration of
    the event loop.

    Workers reference the pool and not the stream, so that a dropped stream is garbage collected.
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
        self._while_open = while_open
        self._free_workers, self._window = limit, 2 * limit
        self._ordered = ordered
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids: Iterator[str] | None = None
        self._read_ahead: deque[str] = deque()  # from an async source
        self._drawn = self._taken = self._next_index = 0
        self._ready: deque[CoverOutcome] = deque()
        self._out_of_order: dict[int, CoverOutcome] = {}
        self._progress, self._room = asyncio.Event(), asyncio.Event()
        self._failure: BaseException | None = None
        self._stopped = False

    async def take(self) -> CoverOutcome:
        """Return the next outcome; raise `StopAsyncIteration` after the last."""
        if self._loop is None:
            self._start(asyncio.get_running_loop())
        while not self._ready:
            if not self._tasks:
                raise self._end_of_iteration()
            self._progress.clear()
            await self._progress.wait()
        self._taken += 1
        self._spawn_worker()
        self._room.set()
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Stop, and wait until all tasks have ended; a worker that calls this is cancelled here."""
        self._abandon()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def drop(self) -> None:
        """Stop soon; the garbage collector may call this in any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._abandon)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        if isinstance(self._source, AsyncIterable):
            self._create_task(self._read_source(self._source))
        else:
            self._ids = iter(self._source)
            self._spawn_worker()

    def _create_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        failure: BaseException | None
        try:
            failure = task.exception()
        except asyncio.CancelledError as cancelled:
            failure = cancelled
        if failure is not None:
            self._fail(failure)
        self._room.set()
        self._progress.set()

    def _fail(self, failure: BaseException) -> None:
        if not self._stopped:
            self._failure = failure
            self._stop()
        elif not isinstance(failure, (asyncio.CancelledError, ClientClosedError)):
            _log.error("a bulk call that was stopped failed as well", exc_info=failure)

    def _stop(self) -> None:
        self._stopped = True
        self._source, self._ids = (), None
        self._read_ahead.clear()
        for task in self._tasks:
            task.cancel()

    def _abandon(self) -> None:
        self._stop()
        self._ready.clear()
        failure, self._failure = self._failure, None
        if failure is not None:
            self._fail(failure)

    def _end_of_iteration(self) -> BaseException:
        failure, self._failure = self._failure, None
        if isinstance(failure, (StopAsyncIteration, asyncio.CancelledError)):
            # Raised as it is, it would look like the end, or like a cancellation of the consumer.
            error = RuntimeError(f"{type(failure).__name__} was raised within a bulk call")
            error.__cause__ = failure
            return error
        return failure or StopAsyncIteration()

    def _has_room(self) -> bool:
        return self._drawn - self._taken < self._window

    def _spawn_worker(self) -> None:
        has_ids = self._read_ahead or self._ids is not None
        if self._free_workers and has_ids and self._has_room():
            self._free_workers -= 1
            self._create_task(self._worker())

    async def _worker(self) -> None:
        while self._has_room() and (task_id := self._next_id()) is not _END:
            index, self._drawn = self._drawn, self._drawn + 1
            if self._free_workers:
                asyncio.get_running_loop().call_soon(self._spawn_worker)
            try:
                outcome = CoverOutcome(task_id=task_id, details=await self._work(task_id))
            except ClientClosedError:
                raise
            except KieCoverError as error:
                # Without its traceback, which would keep the objects of its frames alive.
                outcome = CoverOutcome(task_id=task_id, error=error.with_traceback(None))
                # An invalid id fails without suspending, and thousands would block the loop.
                await asyncio.sleep(0)
            self._deliver(index, outcome)
        self._free_workers += 1

    def _next_id(self) -> Any:
        if self._read_ahead:
            return self._read_ahead.popleft()
        if self._ids is None:
            return _END
        if (task_id := next(self._ids, _END)) is _END:
            self._ids = None
        return task_id

    async def _read_source(self, source: AsyncIterable[str]) -> None:
        """Read an async source in this one task, while workers are free."""
        try:
            with self._while_open():
                async for task_id in source:
                    self._read_ahead.append(task_id)
                    self._spawn_worker()
                    while not (self._free_workers and self._has_room()):
                        self._room.clear()
                        await self._room.wait()
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()

    def _deliver(self, index: int, outcome: CoverOutcome) -> None:
        if not self._ordered:
            self._ready.append(outcome)
        else:
            self._out_of_order[index] = outcome
            while self._next_index in self._out_of_order:
                self._ready.append(self._out_of_order.pop(self._next_index))
                self._next_index += 1
        self._progress.set()


class OutcomeStream:
    """The outcomes of many ids, in the order of completion, or of the input if `ordered`.

    Iterate with `async for`, from one task or from several, which then share the outcomes. If the
    loop may be left early, hold the stream with `async with` or call `aclose()`, which returns when
    no task of the stream is running. A dropped stream cancels the tasks that it started.

    Nothing starts before the first outcome is requested. A `KieCoverError` about an id is data; a
    bug, or the `ClientClosedError` of a client that is closed meanwhile, stops everything and is
    then raised from the iteration, which ends. A cancellation that comes from within, and not from
    the consumer, is such a bug, and the cause of a `RuntimeError`.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __reduce__(self) -> NoReturn:
        # Two streams would share one pool, and closing either would end both.
        raise TypeError("an OutcomeStream cannot be pickled or copied: share it, or call again")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CoverOutcome:
        return await self._pool.take()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the running calls, and end the stream."""
        await self._pool.aclose()

    def __del__(self) -> None:
        self._pool.drop()
