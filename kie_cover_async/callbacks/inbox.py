"""`CallbackInbox`: receives callbacks, and notifies the subscribers of their task ids."""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import web
from attrs import define, field

from kie_cover_async.api.callback import CoverCallback, parse_callback
from kie_cover_async.validation import validate_number, validate_task_id

from .signature import DEFAULT_TOLERANCE, Headers, Keys, parse_keys, verify_task_id
from .song_urls import SongTokens
from .web import callback_routes

# Seconds. Callbacks come seconds before their wait; the vendor repeats them within minutes.
_RETENTION = 3600.0
_MAX_IDS = 10_000
_MAX_CONTENTS = 4

# Called with the task id, and with the song if the callback came at the song's own URL. It may
# return a future that is done when the callback is stored.
UnknownListener = Callable[[str, str | None], asyncio.Future[None] | None]

_log = logging.getLogger(__name__)


class CallbackInbox:
    """Receives callbacks, and wakes the waits of every client that was given it::

        inbox = CallbackInbox(keys="the account's webhookHmacKey")
        client = CoverClient(inbox=inbox)

    A callback is a reason to poll and never the result: a wait that is woken polls once, and
    returns what the poll shows. Callbacks that arrive before their wait starts are remembered for
    an hour, for the last ten thousand ids. Make one inbox for each event loop, and use it there.

    Args:
        keys: The account's `webhookHmacKey`, or several keys while they are being changed. `None`
            accepts callbacks without a signature, so that anyone can cost you a poll a second.
        fallback_poll_interval: Seconds between the polls of a wait that has received no callback,
            in case it is lost.
        tolerance: How many seconds a signature's timestamp may differ from now, either way.

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
        tolerance: float = DEFAULT_TOLERANCE,
    ) -> None:
        validate_number("fallback_poll_interval", fallback_poll_interval, at_least=0)
        validate_number("tolerance", tolerance, at_least=0)
        self._keyring = None if keys is None else parse_keys(keys)
        self._tolerance = tolerance
        self.fallback_poll_interval: float = fallback_poll_interval
        self._recent = RecentCallbacks()
        self._listeners: dict[str, dict[object, Callable[[], object]]] = {}
        self._unknown_listeners: dict[object, UnknownListener] = {}
        # Callbacks that no listener has received yet, in their order.
        self._unknown: dict[tuple[str, str | None], None] = {}
        self._received_listeners: dict[object, Callable[[str, str | None], object]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        signed = "unsigned" if self._keyring is None else "signed"
        return f"<CallbackInbox of {signed} callbacks, {len(self._listeners)} ids awaited>"

    def receive(
        self,
        headers: Headers,
        body: bytes | str | Mapping[str, Any],
        music_task_id: str | None = None,
    ) -> CoverCallback:
        """Receive a callback as it was posted, in any framework, and wake the waits for its id.

        A repeated callback with the same content wakes nothing.

        Args:
            headers: A mapping or an iterable of pairs; names in any case, `str` or `bytes`.
            body: The body as it was posted, or already parsed as JSON.
            music_task_id: The song at whose own URL it was posted, as `SongCallbackUrls.song_of`
                returns it; it is passed on to the listeners for unknown ids.

        Raises:
            InvalidResponseError: The body has no task id.
            SignatureError: The inbox has keys, and none has signed the callback.
        """
        loop = self._bound_loop()
        callback = parse_callback(body)
        if self._keyring is not None:
            verify_task_id(callback.task_id, headers, self._keyring, tolerance=self._tolerance)
        # Deduplicated by content: the vendor repeats a callback that was not answered.
        content = hash((callback, music_task_id))
        if self._recent.is_duplicate(callback.task_id, content, loop.time()):
            _log.debug("callback for %s was repeated: dropped", callback.task_id)
            return callback
        self._notify_listeners(callback.task_id, music_task_id)
        for listener in [*self._received_listeners.values()]:
            listener(callback.task_id, music_task_id)
        return callback

    async def receive_and_store(
        self,
        headers: Headers,
        body: bytes | str | Mapping[str, Any],
        music_task_id: str | None = None,
    ) -> CoverCallback:
        """Receive a callback, and return when it is stored, if a run of `make_covers` stores it.

        A request that is answered after that need not be repeated, whatever happens to this
        process. The routes of this inbox do that.

        Raises:
            InvalidResponseError: The body has no task id.
            SignatureError: The inbox has keys, and none has signed the callback.
            OSError: The callback cannot be stored, or it came at a song's own URL and no run is
                active. It must be repeated.
        """
        callback = self.receive(headers, body, music_task_id)
        task_id = callback.task_id
        if music_task_id is not None and (task_id, music_task_id) in self._unknown:
            raise OSError("no run of make_covers is active")
        storing = self._recent.storing(task_id)
        if storing:
            # Unlike `gather`, this does not cancel what it waits for.
            await asyncio.wait(storing)
        for error in filter(None, [each.exception() for each in storing]):
            self._recent.forget(task_id)
            raise error
        return callback

    def notify(self, task_id: str, music_task_id: str | None = None) -> None:
        """Wake the waits for this id, for example after a callback that reached another process.

        Call it in the event loop; from another thread by `loop.call_soon_threadsafe`.
        `music_task_id` is as in `receive`.
        """
        validate_task_id("task_id", task_id)
        self._recent.add(task_id, self._bound_loop().time())
        self._notify_listeners(task_id, music_task_id)

    def subscribe(self, task_id: str, listener: Callable[[], object]) -> Callable[[], object]:
        """Call `listener` at each callback for this id, and now if there already was one.

        Return the function that unsubscribes. The listener is called in the event loop: it must be
        quick, and must not raise. A client's waits subscribe by themselves.
        """
        has_callback = self._recent.contains(task_id, self._bound_loop().time())
        token = object()
        self._listeners.setdefault(task_id, {})[token] = listener
        if has_callback:
            listener()

        def unsubscribe() -> None:
            listeners = self._listeners.get(task_id, {})
            listeners.pop(token, None)
            if not listeners:
                self._listeners.pop(task_id, None)

        return unsubscribe

    def subscribe_unknown(self, listener: UnknownListener) -> Callable[[], object]:
        """Call `listener` with the id of each callback for which there is no other subscription.

        The second argument is the song at whose own URL the callback came, or `None`. The listener
        is also called for callbacks that came when there was no such listener. It may return a
        future, for which `receive_and_store` waits. Return the function that unsubscribes.
        `make_covers` subscribes by itself.
        """
        self._bound_loop()
        token = object()
        self._unknown_listeners[token] = listener
        unknown, self._unknown = self._unknown, {}
        for task_id, music_task_id in unknown:
            self._pass_on(task_id, music_task_id)

        return partial(self._unknown_listeners.pop, token, None)

    def subscribe_received(
        self, listener: Callable[[str, str | None], object]
    ) -> Callable[[], object]:
        """Call `listener` with the id of each callback that is received here, but not by `notify`.

        Repetitions are left out. The second argument is as in `subscribe_unknown`. Return the
        function that unsubscribes. A `CallbackBus` subscribes by itself.
        """
        self._bound_loop()
        token = object()
        self._received_listeners[token] = listener
        return partial(self._received_listeners.pop, token, None)

    def routes(self, path: str, song_urls: SongTokens | None = None) -> list[web.RouteDef]:
        """Return the routes for `app.add_routes(inbox.routes("/callbacks/…"))` of aiohttp.web.

        A callback is answered with 200, one with a bad signature with 401, an unreadable body with
        400, one of more than 64 KiB with 413, one that does not arrive in time with 408, and one
        that cannot be stored with 503, so that the vendor repeats it.

        With `song_urls`, a `SongCallbackUrls`, callbacks are also received at each song's own URL,
        below `path`. One with a wrong token is answered with 404, and one that comes while no run
        of `make_covers` is active, and whose id no wait expects, with 503.
        """
        return callback_routes(path, self.receive_and_store, song_urls)

    def _notify_listeners(self, task_id: str, music_task_id: str | None) -> None:
        listeners = [*self._listeners.get(task_id, {}).values()]
        _log.debug("callback for %s: %d are waiting", task_id, len(listeners))
        for listener in listeners:
            listener()
        if not listeners:
            self._pass_on(task_id, music_task_id)

    def _pass_on(self, task_id: str, music_task_id: str | None) -> None:
        """Call the listeners for unknown ids, or keep the callback until there is one."""
        if self._unknown_listeners:
            storing = [each(task_id, music_task_id) for each in [*self._unknown_listeners.values()]]
            self._recent.set_storing(task_id, [each for each in storing if each is not None])
            return
        self._unknown[task_id, music_task_id] = None
        if len(self._unknown) > _MAX_IDS:
            del self._unknown[next(iter(self._unknown))]

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


@define(eq=False)
class _Received:
    at: float
    contents: deque[int] = field(factory=lambda: deque(maxlen=_MAX_CONTENTS))
    # Done when the callback is stored; a repetition that comes before that waits, too.
    storing: list[asyncio.Future[None]] = field(factory=list)


class RecentCallbacks:
    """The callbacks of the last hour, for ten thousand ids at most. Times are `loop.time()`."""

    def __init__(self) -> None:
        self._received: OrderedDict[str, _Received] = OrderedDict()

    def contains(self, task_id: str, now: float) -> bool:
        """Return whether there was a callback for this id."""
        self._expire(now)
        return task_id in self._received

    def is_duplicate(self, task_id: str, content: int, now: float) -> bool:
        """Return whether this id had a callback with the same content; record it if not."""
        contents = self.add(task_id, now).contents
        if content in contents:
            return True
        contents.append(content)
        return False

    def add(self, task_id: str, now: float) -> _Received:
        """Record a callback for this id."""
        self._expire(now)
        received = self._received.setdefault(task_id, _Received(now))
        received.at = now
        self._received.move_to_end(task_id)
        if len(self._received) > _MAX_IDS:
            self._received.popitem(last=False)
        return received

    def storing(self, task_id: str) -> list[asyncio.Future[None]]:
        """Return what is done when the callbacks for this id are stored."""
        received = self._received.get(task_id)
        return [] if received is None else received.storing

    def set_storing(self, task_id: str, storing: list[asyncio.Future[None]]) -> None:
        """Set what is done when the callbacks for this id are stored."""
        if task_id in self._received:
            self._received[task_id].storing = storing

    def forget(self, task_id: str) -> None:
        """Forget the callbacks for this id."""
        self._received.pop(task_id, None)

    def _expire(self, now: float) -> None:
        while self._received and now - next(iter(self._received.values())).at >= _RETENTION:
            self._received.popitem(last=False)
