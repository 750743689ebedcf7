"""The status of one cover: by a single poll, or by polls until the job has ended."""

from collections.abc import Awaitable, Callable, Hashable
from inspect import isawaitable

from kie_cover_async.api import Route
from kie_cover_async.events import WaitFinished, WaitStarted, notify
from kie_cover_async.inbox import Inbox
from kie_cover_async.models import CoverDetails
from kie_cover_async.transport import Answer, Transport
from kie_cover_async.validation import validate_task_id

from .coalescer import PollCoalescer
from .state import WaitOptions
from .task_watch import TaskWatch
from .waiter import Waiter

OnTaskId = Callable[[str], Awaitable[object] | object]


class Poller:
    """Polls over one transport, shared by all callers that ask for the same id."""

    def __init__(self, transport: Transport, route: Route, inbox: Inbox | None = None) -> None:
        self._transport = transport
        self._inbox = inbox
        self._coalescer = PollCoalescer(transport, route)

    async def fetch(self, task_id: str, flow: Hashable = None) -> CoverDetails:
        """Return what one poll reads, repeated as the retry policy allows.

        Polls of the same `flow` share its turns with other flows; one without a flow is alone.
        """
        validate_task_id("task_id", task_id)
        attempt = 1
        with self._transport.open_calls.scope(task_id):
            while True:
                outcome = await self._coalescer.poll(task_id, flow, attempt=attempt)
                if isinstance(outcome, Answer):
                    return outcome.value
                attempt = await self._transport.back_off_or_raise(outcome, attempt)

    async def wait(
        self, task_id: str, options: WaitOptions, *, expects_callback: bool = False
    ) -> CoverDetails:
        """Return the details of the finished cover.

        With `expects_callback` and an inbox, the first poll comes after the callback.
        """
        watch = TaskWatch(self._coalescer, self._inbox, validate_task_id("task_id", task_id))
        waiter = Waiter(self._transport, watch, options, expects_callback=expects_callback)
        # Raises if the client is closed, and then no event is sent.
        scope = self._transport.open_calls.scope(task_id)
        notify(self._transport.observers, WaitStarted(task_id=task_id, wait=waiter))
        outcome: CoverDetails | BaseException
        try:
            with scope:
                outcome = await waiter.run()
                return outcome
        except BaseException as error:
            outcome = error
            raise
        finally:
            finished = WaitFinished(
                task_id=task_id, wait=waiter, polls=waiter.state.polls, outcome=outcome
            )
            notify(self._transport.observers, finished)

    def check_inbox(self, music_task_id: str) -> None:
        """Raise now what the inbox would raise when a wait subscribes.

        Raises:
            RuntimeError: The inbox belongs to another event loop.
        """
        validate_task_id("music_task_id", music_task_id)
        if self._inbox is not None:
            with self._transport.open_calls.scope():
                self._inbox.subscribe(music_task_id, lambda: None)()

    async def wait_for_new(
        self,
        task_id: str,
        options: WaitOptions,
        on_task_id: OnTaskId | None,
        *,
        expects_callback: bool,
    ) -> CoverDetails:
        """Call `on_task_id`, then `wait`; every error has the id of the job that was paid for."""
        try:
            if on_task_id is not None and isawaitable(noted := on_task_id(task_id)):
                await noted
            return await self.wait(task_id, options, expects_callback=expects_callback)
        except BaseException as error:
            if getattr(error, "task_id", None) != task_id:
                error.add_note(f"the cover that was asked for is task {task_id}")
            raise
