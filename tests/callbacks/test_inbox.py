"""What an inbox takes, whom it tells, and what it remembers."""

import asyncio
import copy
import logging
import pickle

import pytest

from kie_cover_async import CoverClient, InvalidResponseError, InvalidTaskIdError, SignatureError
from kie_cover_async.callbacks import CallbackInbox, CoverCallback, sign_callback
from kie_cover_async.callbacks import inbox as callbacks_inbox

TASK = "21aee3c3c2a01fa5e030b3799fa4dd56"
KEY = "test-webhook-hmac-key"


def body(task_id=TASK, **more):
    return {"code": 200, "data": {"taskId": task_id}, **more}


class Listener:
    """Counts how often it was called."""

    def __init__(self, inbox, task_id=TASK):
        self.calls = 0
        self.unsubscribe = inbox.subscribe(task_id, self.call)

    def call(self):
        self.calls += 1


@pytest.fixture
async def inbox():
    return CallbackInbox()


async def test_subscribers_are_notified(inbox):
    """A callback notifies all subscribers of its id, and no others."""
    one, other, apart = Listener(inbox), Listener(inbox), Listener(inbox, "another")
    assert inbox.receive({}, body()) == CoverCallback(task_id=TASK, code=200)
    assert (one.calls, other.calls, apart.calls) == (1, 1, 0)


async def test_unsubscribed_listeners_are_not_notified(inbox):
    """After unsubscribing nothing is left, and unsubscribing again does nothing."""
    one, other = Listener(inbox), Listener(inbox)
    one.unsubscribe()
    inbox.receive({}, body())
    assert (one.calls, other.calls) == (0, 1)
    other.unsubscribe()
    other.unsubscribe()
    assert not inbox._listeners


async def test_a_listener_may_unsubscribe_while_notified(inbox):
    """A listener may unsubscribe itself or another during a notification."""
    notified, ends = [], []
    for name in "ab":
        ends.append(inbox.subscribe(TASK, lambda name=name: (notified.append(name), ends[0]())))
    inbox.notify(TASK)
    inbox.notify(TASK)
    assert notified == ["a", "b", "b"]


async def test_an_early_callback_is_remembered(inbox):
    """A subscriber is notified immediately of an earlier callback, and of later ones."""
    inbox.receive({}, body())
    listener = Listener(inbox)
    assert listener.calls == 1
    inbox.notify(TASK)
    assert listener.calls == 2


async def test_an_early_notification_is_remembered(inbox):
    """A subscriber is notified immediately of an earlier `notify`."""
    inbox.notify(TASK)
    assert Listener(inbox).calls == 1


async def test_repeated_deliveries_are_dropped(inbox):
    """A callback with the same content wakes nothing twice, in whatever form; others do."""
    listener = Listener(inbox)
    for _ in range(3):
        assert inbox.receive({}, body()).task_id == TASK
    inbox.receive({}, b'{"data": {"taskId": "%s"}, "code": 200}' % TASK.encode())
    assert listener.calls == 1
    inbox.receive({}, body(msg="again"))
    inbox.receive({}, body())
    assert listener.calls == 2


async def test_notifications_are_not_deduplicated(inbox):
    """Calling `notify` twice notifies twice."""
    listener = Listener(inbox)
    inbox.receive({}, body())
    inbox.notify(TASK)
    inbox.notify(TASK)
    assert listener.calls == 3


async def test_few_contents_are_remembered_per_id(inbox):
    """Varying the content cannot fill the memory."""
    for number in range(1000):
        inbox.receive({}, body(msg=str(number)))
    [received] = inbox._recent._received.values()
    assert len(received.contents) == 4


@pytest.mark.virtual_time
async def test_callbacks_expire_after_an_hour(inbox):
    """An hour after its last callback an id is forgotten, with its contents."""
    inbox.notify("another")
    inbox.receive({}, body())
    await asyncio.sleep(3000)
    inbox.notify("another")
    await asyncio.sleep(601)
    assert Listener(inbox).calls == 0
    listener = Listener(inbox, "another")
    assert listener.calls == 1
    first = Listener(inbox)
    inbox.receive({}, body())
    assert first.calls == 1


async def test_the_oldest_of_many_ids_is_forgotten(inbox):
    """Of more than ten thousand ids, those with the oldest callback are forgotten."""
    for number in range(10_001):
        inbox.notify("0")
        inbox.notify(str(number))
    assert [Listener(inbox, str(number)).calls for number in (0, 1, 2, 10_000)] == [1, 0, 1, 1]


async def test_a_signed_callback_is_accepted():
    """With a key, a callback that it has signed is accepted."""
    inbox = CallbackInbox([KEY, "old"])
    listener = Listener(inbox)
    assert inbox.receive(sign_callback(TASK, KEY), body()).task_id == TASK
    assert inbox.receive(sign_callback(TASK, "old"), body(msg="again")).msg == "again"
    assert listener.calls == 2


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "is missing"),
        (sign_callback(TASK, "another"), "does not match"),
        (sign_callback(TASK, KEY, timestamp=1769670760), "is stale"),
    ],
)
async def test_a_forged_callback_is_rejected(headers, reason):
    """With a key, any other callback is rejected, and neither notified nor remembered."""
    inbox = CallbackInbox(KEY)
    listener = Listener(inbox)
    with pytest.raises(SignatureError, match=reason):
        inbox.receive(headers, body())
    assert listener.calls == 0
    assert Listener(inbox).calls == 0


async def test_the_tolerance_can_be_set():
    """The inbox's `tolerance` bounds the age of a signature."""
    inbox = CallbackInbox(KEY, tolerance=1e10)
    assert inbox.receive(sign_callback(TASK, KEY, timestamp=1769670760), body()).code == 200


async def test_an_unreadable_body_is_rejected_before_its_signature(inbox):
    """A body without an id is rejected before its signature is checked."""
    for each in (inbox, CallbackInbox(KEY)):
        with pytest.raises(InvalidResponseError):
            each.receive({}, b"{}")
    with pytest.raises(InvalidTaskIdError):
        inbox.notify("")


async def test_nothing_secret_is_shown(caplog):
    """No key, signature or image is in a repr, a log line or an error."""
    caplog.set_level(logging.DEBUG)
    inbox = CallbackInbox(KEY)
    headers = sign_callback(TASK, KEY)
    Listener(inbox)
    images = {"data": {"taskId": TASK, "images": ["https://images.example/secret.png"]}}
    inbox.receive(headers, images)
    inbox.receive(headers, images)
    with pytest.raises(SignatureError) as caught:
        inbox.receive(sign_callback(TASK, "another"), images)
    said = [caplog.text, str(caught.value), repr(caught.value), repr(inbox), repr(inbox._keyring)]
    for secret in (KEY, headers["X-Webhook-Signature"], "secret"):
        assert not [text for text in said if secret in text]
    assert repr(inbox) == "<CallbackInbox of signed callbacks, 1 ids awaited>"
    assert repr(CallbackInbox()) == "<CallbackInbox of unsigned callbacks, 0 ids awaited>"


@pytest.mark.parametrize("again", [copy.deepcopy, pickle.dumps], ids=["copied", "pickled"])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
async def test_an_inbox_with_keys_cannot_be_pickled(used, again):
    """Pickling an inbox with keys raises an error about the keys."""
    inbox = CallbackInbox(["old", KEY])
    if used:
        inbox.receive(sign_callback(TASK, KEY), body())
    with pytest.raises(TypeError, match="a CallbackInbox with keys cannot be pickled"):
        again(inbox)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"keys": ""}, "keys"),
        ({"keys": []}, "keys"),
        ({"fallback_poll_interval": -1}, "fallback_poll_interval"),
        ({"fallback_poll_interval": None}, "fallback_poll_interval"),
        ({"tolerance": "5"}, "tolerance"),
    ],
)
def test_invalid_settings_are_named(settings, name):
    """The error for an invalid setting names it."""
    with pytest.raises((TypeError, ValueError), match=f"{name} must"):
        CallbackInbox(**settings)


@pytest.mark.parametrize("inbox", [CallbackInbox, "inbox", 5, object()])
def test_a_client_rejects_an_invalid_inbox(inbox):
    """A client rejects an object that is not an inbox, and a class."""
    with pytest.raises(TypeError, match="inbox must have a method subscribe"):
        CoverClient("key", inbox=inbox)


def test_a_client_accepts_any_inbox():
    """A client accepts any object with `subscribe` and an interval."""

    class Own:
        fallback_poll_interval = -1
        subscribe = CallbackInbox.subscribe

    with pytest.raises(ValueError, match=r"inbox\.fallback_poll_interval must be"):
        CoverClient("key", inbox=Own())


def test_calling_without_an_event_loop_raises():
    """In another thread, the error says how to call the inbox from there."""
    inbox = CallbackInbox()
    with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
        inbox.notify(TASK)
    with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
        inbox.receive({}, body())


def test_another_event_loop_is_rejected():
    """An inbox that was used in one event loop rejects another."""
    inbox = CallbackInbox()

    async def notify():
        inbox.notify(TASK)

    asyncio.run(notify())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(notify())


async def test_another_thread_notifies_through_the_loop(inbox):
    """`call_soon_threadsafe` passes a notification from another thread."""
    loop, notified = asyncio.get_running_loop(), asyncio.Event()
    inbox.subscribe(TASK, notified.set)
    await asyncio.to_thread(loop.call_soon_threadsafe, inbox.notify, TASK)
    async with asyncio.timeout(5):
        await notified.wait()


async def test_callbacks_of_unknown_ids_are_passed_on():
    """A listener for unknown ids gets those that came before it, and no subscribed ones."""
    inbox = CallbackInbox()
    inbox.notify("early")
    received = []
    unsubscribe = inbox.subscribe_unknown(lambda *each: received.append(each))
    inbox.subscribe("known", list)
    inbox.notify("known")
    inbox.notify("late", "song-a")
    unsubscribe()
    inbox.receive({}, body(), "song-b")
    assert received == [("early", None), ("late", "song-a")]
    inbox.subscribe_unknown(lambda *each: received.append(each))
    assert received[2:] == [(TASK, "song-b")]


async def test_received_callbacks_are_passed_on(inbox):
    """A listener for what is received gets each new callback, and no notification."""
    received = []
    unsubscribe = inbox.subscribe_received(lambda *each: received.append(each))
    inbox.subscribe("known", list)
    inbox.receive({}, body("known"), "song-a")
    inbox.receive({}, body())
    inbox.receive({}, body())
    inbox.notify("notified")
    unsubscribe()
    inbox.receive({}, body("late"))
    assert received == [("known", "song-a"), (TASK, None)]


async def test_callback_at_another_songs_url_is_another_callback(inbox):
    """The same content at two URLs notifies twice; at the plain one it is a third callback."""
    received = []
    inbox.subscribe_unknown(lambda *each: received.append(each))
    for song in ("a", "b", "a", None):
        inbox.receive({}, body(), song)
    assert received == [(TASK, "a"), (TASK, "b"), (TASK, None)]


def stored_by(inbox, futures):
    """Subscribe a listener that returns a new future for each callback."""

    def store(*_):
        futures.append(asyncio.get_running_loop().create_future())
        return futures[-1]

    return inbox.subscribe_unknown(store)


async def test_callback_at_a_songs_url_is_stored_or_refused(inbox):
    """Without a run it stays in memory, so it is refused until a run has stored it."""
    futures = []
    for _ in range(2):
        with pytest.raises(OSError, match="no run of make_covers is active"):
            await inbox.receive_and_store({}, body(), "a")
    unsubscribe = stored_by(inbox, futures)
    repetition = asyncio.create_task(inbox.receive_and_store({}, body(), "a"))
    assert not (await asyncio.wait([repetition], timeout=0.01))[0]
    [stored] = futures
    stored.set_result(None)
    assert (await repetition).task_id == TASK
    unsubscribe()
    await inbox.receive_and_store({}, body(), "a")
    with pytest.raises(OSError, match="no run"):
        await inbox.receive_and_store({}, body(), "b")


async def test_callback_that_a_wait_expects_needs_no_run(inbox):
    """Its id is known, so nothing is lost if the process ends."""
    inbox.subscribe(TASK, list)
    await inbox.receive_and_store({}, body(), "a")


async def test_repetition_is_answered_when_the_first_one_is_stored(inbox):
    """The vendor repeats a callback whose storing takes long; both fail if that fails."""
    futures = []
    stored_by(inbox, futures)
    both = [asyncio.create_task(inbox.receive_and_store({}, body(), "a")) for _ in range(2)]
    assert not (await asyncio.wait(both, timeout=0.01))[0]
    [stored] = futures
    stored.set_exception(OSError("the disk is full"))
    errors = await asyncio.gather(*both, return_exceptions=True)
    assert [*map(str, errors)] == ["the disk is full"] * 2


async def test_callback_that_was_pushed_out_of_memory_is_received_again(inbox, monkeypatch):
    """Of too many callbacks without a listener the oldest is forgotten."""
    monkeypatch.setattr(callbacks_inbox, "_MAX_IDS", 1)
    received = []
    inbox.notify("x")
    inbox.receive({}, body("y"))
    inbox.subscribe_unknown(lambda *each: received.append(each))
    inbox.receive({}, body("x"))
    assert received == [("y", None), ("x", None)]


async def test_callback_without_a_listener_outlives_its_deduplication(inbox, monkeypatch):
    """It is passed on although a repetition would not be recognised any more."""
    monkeypatch.setattr(callbacks_inbox, "_RETENTION", 0.0)
    inbox.notify("x")
    inbox.notify("y")
    received = []
    inbox.subscribe_unknown(lambda *each: received.append(each))
    assert received == [("x", None), ("y", None)]
