import asyncio

import pytest

from kie_cover_async import (
    AuthenticationError,
    ClientClosedError,
    CoverAlreadyExistsError,
    CoverFailedError,
    CoverTimeoutError,
    InvalidRequestError,
    InvalidResponseError,
    TaskNotFoundError,
    TransportError,
)
from kie_cover_async.emulator import CoverScript, Fault

pytestmark = pytest.mark.usefixtures("route")

CALLBACK = "https://example.com/covers"

ENDINGS = {
    "time is up": (CoverScript(end="never"), CoverTimeoutError),
    "the job fails": (CoverScript(statuses=["generating", "failure"]), CoverFailedError),
    "there is no record": (CoverScript(statuses=["missing"]), TaskNotFoundError),
    "the key is withdrawn": (
        CoverScript(statuses=["generating", Fault.answer(200, {"code": 401, "msg": "no"})]),
        AuthenticationError,
    ),
    "nothing can be read": (CoverScript(statuses=[Fault.truncated_json()]), InvalidResponseError),
}


async def test_song_is_submitted_and_waited_for(emulator, client):
    """One call submits, waits and returns the cover, and `on_update` gets every poll."""
    updates = []
    details = await client.generate_and_wait(
        "song", callback_url=CALLBACK, on_update=updates.append
    )
    assert details.is_success
    assert details.parent_task_id == "song"
    assert updates[-1] is details
    assert len(updates) > 1


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_on_task_id_is_called_before_the_wait(emulator, client, asynchronous):
    """A plain or async `on_task_id` gets the id before the first poll."""
    noted = []

    def note(task_id):
        noted.append((task_id, emulator.poll_count(task_id)))

    async def note_later(task_id):
        await asyncio.sleep(0.05)
        note(task_id)

    details = await client.generate_and_wait(
        "song", callback_url=CALLBACK, on_task_id=note_later if asynchronous else note
    )
    assert noted == [(details.task_id, 0)]


@pytest.mark.parametrize("code", ["400", "409"])
async def test_an_existing_cover_is_waited_for(emulate, connect, code):
    """If the API returns the existing cover's id, it is waited for and nothing paid."""
    emulator = await emulate(duplicates=code, generation_time=0.2)
    client = connect(emulator)
    task_id = await client.generate_cover("song", callback_url=CALLBACK)
    balance, noted = emulator.credits, []
    details = await client.generate_and_wait("song", callback_url=CALLBACK, on_task_id=noted.append)
    assert details.is_success
    assert noted == [details.task_id] == [task_id]
    assert emulator.credits == balance


@pytest.mark.parametrize("code", ["400", "409"])
async def test_an_existing_cover_without_an_id_is_an_error(emulate, connect, code):
    """If the API does not return the existing id, the error says so."""
    emulator = await emulate(duplicates=code, duplicate_reveals_task_id=False)
    task_id = emulator.add_job(music_task_id="song")
    with pytest.raises(CoverAlreadyExistsError) as caught:
        await connect(emulator).generate_and_wait("song", callback_url=CALLBACK)
    assert caught.value.existing_task_id is None
    assert caught.value.code == int(code)
    assert emulator.poll_count(task_id) == 0


async def test_a_refused_song_is_not_waited_for(emulate, connect):
    """An error of the submit is raised, and no poll is sent."""
    emulator = await emulate(unknown_songs=["song"])
    with pytest.raises(InvalidRequestError, match="Original music record does not exist"):
        await connect(emulator).generate_and_wait("song", callback_url=CALLBACK)
    assert len(emulator.requests) == 1


@pytest.mark.parametrize(("script", "error"), ENDINGS.values(), ids=ENDINGS)
async def test_every_error_of_the_wait_carries_the_id(emulator, client, script, error):
    """However the wait ends, its error and message have the id."""
    emulator.script_song("song", script)
    noted = []
    with pytest.raises(error) as caught:
        await client.generate_and_wait(
            "song",
            callback_url=CALLBACK,
            timeout=1.5 if error is InvalidResponseError else 0.3,
            not_found_grace=0,
            on_task_id=noted.append,
        )
    assert [caught.value.task_id] == noted
    assert noted[0] in str(caught.value)


async def test_closing_during_the_wait_keeps_the_id(emulator, client):
    """If the client is closed during the wait, the error has the id."""
    noted = []
    emulator.script_song("song", CoverScript(end="never"))

    async def close(_):
        closing.set_result(asyncio.create_task(client.aclose()))

    closing = asyncio.get_running_loop().create_future()
    with pytest.raises(ClientClosedError) as caught:
        await client.generate_and_wait(
            "song", callback_url=CALLBACK, on_task_id=noted.append, on_update=close
        )
    await closing.result()
    assert [caught.value.task_id] == noted


async def test_closing_before_the_wait_keeps_the_id(emulator, client):
    """If the client is closed between submit and wait, the error has the id."""
    noted = []

    async def note(task_id):
        noted.append(task_id)
        await client.aclose()

    with pytest.raises(ClientClosedError) as caught:
        await client.generate_and_wait("song", callback_url=CALLBACK, on_task_id=note)
    assert [caught.value.task_id] == noted


async def test_an_error_of_on_update_keeps_its_own_id(emulator, client):
    """An error of another cover keeps its id; a note has the id of this one."""
    noted = []

    def fail(_):
        raise TransportError(task_id="another", reason="mine")

    with pytest.raises(TransportError) as caught:
        await client.generate_and_wait(
            "song", callback_url=CALLBACK, on_update=fail, on_task_id=noted.append
        )
    assert caught.value.task_id == "another"
    assert_noted(caught.value, noted)


def assert_noted(error, noted):
    [task_id] = noted
    assert error.__notes__ == [f"the cover that was asked for is task {task_id}"]


class Broken:
    """A schedule that knows no numbers."""

    def delay(self, age, pressure):
        return "soon"


def fail(_):
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("faulty", "error"),
    [({"on_update": fail}, ZeroDivisionError), ({"schedule": Broken()}, TypeError)],
    ids=["on_update", "schedule"],
)
async def test_a_bug_of_a_hook_has_a_note_with_the_id(emulator, client, faulty, error):
    """An error of the caller's function has a note with the id that was paid for."""
    emulator.script_song("song", CoverScript(end="never"))
    noted = []
    with pytest.raises(error) as caught:
        await client.generate_and_wait(
            "song", callback_url=CALLBACK, on_task_id=noted.append, **faulty
        )
    assert_noted(caught.value, noted)


async def test_an_error_of_on_task_id_has_a_note_with_the_id(client):
    """If `on_task_id` fails, a note of the error has the id."""
    noted = []

    def note(task_id):
        noted.append(task_id)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await client.generate_and_wait("song", callback_url=CALLBACK, on_task_id=note)
    assert_noted(caught.value, noted)


async def test_a_callers_timeout_has_a_note_with_the_id(emulator, client):
    """The cancellation that caused the TimeoutError has the id."""
    noted = []
    emulator.script_song("song", CoverScript(end="never"))
    with pytest.raises(TimeoutError) as caught:
        await asyncio.wait_for(
            client.generate_and_wait("song", callback_url=CALLBACK, on_task_id=noted.append), 0.2
        )
    assert_noted(caught.value.__cause__, noted)
