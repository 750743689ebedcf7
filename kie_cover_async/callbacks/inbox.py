"""`CallbackInbox`: callbacks come in, and who subscribed is told."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from kie_cover_async.api.callback import CoverCallback, parse_callback
from kie_cover_async.signature import Headers, Keys, a_keyring, verify
from kie_cover_async.validation import validate_number, validate_task_id

from .memory import Memory
from .verification import TOLERANCE
from .web import callback_routes

_log = logging.getLogger(__name__)


class CallbackInbox:
    """Receives callbacks, and wakes the waits of every client that was given it::

        inbox = CallbackInbox(keys="the account's webhookHmacKey")
        client = CoverClient(inbox=inbox)

    A callback is a reason to poll and never the result: a wait that is woken makes one poll, and
    returns what that shows. Callbacks that come before anybody waits are remembered for an hour,
    for the last ten thousand ids. Make one for each event loop, and use it there.

    :param keys: the account's `webhookHmacKey`, or several keys while they are being changed;
        `None` takes callbacks without a signature, so that anybody can cost you a poll a second.
    :param fallback_poll_interval: seconds between the polls of a wait that has not been called, in
        case its callback is lost.
    :param tolerance: how many seconds a signature's timestamp may be away from now, either way.

    Example:
        >>> from kie_cover_async.callbacks import CallbackInbox, sign_callback
        >>> inbox = CallbackInbox(["the-webhookHmacKey"])
        >>> body = b'{"data": {"taskId": "first-cover"}}'
        >>> inbox.receive(sign_callback("first-cover", "the-webhookHmacKey"), body).task_id
        'first-cover'
    """

    def __init__(
        self,
        keys: Keys | None = None,
        *,
        fallback_poll_interval: float = 30.0,
        tolerance: float = TOLERANCE,
    ) -> None:
        validate_number("fallback_poll_interval", fallback_poll_interval, at_least=0)
        validate_number("tolerance", tolerance, at_least=0)
        self._keyring = None if keys is None else a_keyring(keys)
        self._tolerance = tolerance
        self.fallback_poll_interval: float = fallback_poll_interval
        self._memory = Memory()
        self._listeners: dict[str, dict[object, Callable[[], object]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        signed = "unsigned" if self._keyring is None else "signed"
        return f"<CallbackInbox of {signed} callbacks, {len(self._listeners)} ids awaited>"

    def receive(self, headers: Headers, body: bytes | str | Mapping[str, Any]) -> CoverCallback:
        """Take a callback as it was posted, in whatever framework, and wake who waits for it.

        One that was received before, in the same words, wakes nobody again. Raises
        `InvalidResponseError` where the body has no task id, and `SignatureError` where there are
        keys and none of them has signed it.
        """
        loop = self._bound_loop()
        callback = parse_callback(body)
        if self._keyring is not None:
            verify(callback.task_id, headers, self._keyring, tolerance=self._tolerance)
        # Repetitions are dropped by what they say: the vendor repeats what was not answered.
        if self._memory.repeats(callback.task_id, hash(callback), loop.time()):
            _log.debug("callback for %s once more: dropped", callback.task_id)
        else:
            self._tell(callback.task_id)
        return callback

    def notify(self, task_id: str) -> None:
        """Wake who waits for this id: a callback that reached another process, say.

        To be called in the event loop; from another thread by `loop.call_soon_threadsafe`.
        """
        validate_task_id("task_id", task_id)
        self._memory.note(task_id, self._bound_loop().time())
        self._tell(task_id)

    def subscribe(self, task_id: str, listener: Callable[[], object]) -> Callable[[], object]:
        """Have `listener` called at each callback for this id, at once where there was one.

        Returns what ends the subscription. The listener is called in the event loop, so it must be
        quick, and must not raise. A client's waits subscribe by themselves.
        """
        known = self._memory.knows(task_id, self._bound_loop().time())
        token = object()
        self._listeners.setdefault(task_id, {})[token] = listener
        if known:
            listener()

        def unsubscribe() -> None:
            listeners = self._listeners.get(task_id, {})
            listeners.pop(token, None)
            if not listeners:
                self._listeners.pop(task_id, None)

        return unsubscribe

    def routes(self, path: str) -> list[web.RouteDef]:
        """For `app.add_routes(inbox.routes("/callbacks/…"))` of aiohttp.web.

        A callback is answered with 200, one with a bad signature with 401, a body that cannot be
        read with 400, one of more than 64 KiB with 413, and one that does not come with 408.
        """
        return callback_routes(path, self.receive)

    def _tell(self, task_id: str) -> None:
        listeners = [*self._listeners.get(task_id, {}).values()]
        _log.debug("callback for %s: %d are waiting", task_id, len(listeners))
        for listener in listeners:
            listener()

    def _bound_loop(self) -> asyncio.AbstractEventLoop:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "a CallbackInbox is used in its event loop; "
                "from elsewhere call loop.call_soon_threadsafe(inbox.notify, task_id)"
            ) from None
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                "this CallbackInbox belongs to another event loop; make one for each, or call "
                "loop.call_soon_threadsafe(inbox.notify, task_id) with its own loop"
            )
        return loop
