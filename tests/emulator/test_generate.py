import pytest

from kie_cover_async.emulator import CoverEmulator, CoverScript

GENERATE = "/api/v1/suno/cover/generate"


async def test_accepted(caller, recorded):
    """A song's cover is accepted with the new job's id, and the job can be polled."""
    accepted = await caller.generate("song")
    task_id = accepted["data"].pop("taskId")
    documented = recorded("generate-accepted-documented")
    assert accepted == {**documented, "data": {}}
    data = (await caller.record(task_id))["data"]
    assert (data["taskId"], data["parentTaskId"], len(task_id)) == (task_id, "song", 32)


async def test_missing_callback(caller, recorded):
    """Without a callback URL nothing is generated, as recorded."""
    answer = await caller.generate(callback="")
    assert answer == recorded("generate-missing-callback-live-sister")
    assert await caller.post(GENERATE, {"taskId": "song"}) == answer


async def test_unknown_song(start, recorded):
    """A song that is not there has no cover, as recorded."""
    caller = await start(unknown_songs={"lost"})
    assert await caller.generate("lost") == recorded("generate-unknown-music-live")


@pytest.mark.parametrize("song", [None, "", 7])
async def test_missing_song(caller, song):
    """A request without the song's id is a validation error."""
    answer = await caller.post(GENERATE, {"taskId": song, "callBackUrl": "http://x"})
    assert answer["code"] == 422


@pytest.mark.parametrize("body", ["text", [1]])
async def test_no_object(caller, body):
    """A body that is no JSON object is a format error."""
    assert (await caller.post(GENERATE, body))["code"] == 400


async def test_no_json(caller):
    """So is one that is no JSON."""
    url, headers = caller.emulator.url + GENERATE, {"Authorization": "Bearer k"}
    async with caller.session.post(url, data=b"{", headers=headers) as answer:
        assert (await answer.json())["code"] == 400


@pytest.mark.parametrize(
    ("duplicates", "message"),
    [("400", "Cover already generated"), ("409", "Cover record already exists")],
)
async def test_second_cover_of_a_song(start, duplicates, message):
    """A song has one cover: the second request is refused and names the first job."""
    caller = await start(duplicates=duplicates)
    first = (await caller.generate())["data"]
    second = await caller.generate()
    assert second == {"code": int(duplicates), "msg": message, "data": first}


async def test_second_cover_without_its_id(start):
    """Where the service keeps the first job's id to itself, there is no data."""
    caller = await start(duplicate_reveals_task_id=False)
    await caller.generate()
    assert (await caller.generate())["data"] is None


def test_duplicates_are_one_of_two_codes():
    """Another code for a second request is a mistake."""
    with pytest.raises(ValueError, match="duplicates"):
        CoverEmulator(duplicates="500")


async def test_credits_are_taken(start):
    """Each accepted request costs its price; the last may take all; then the answer is 402."""
    caller = await start(credits=4.5, price=2.25)
    codes = [(await caller.generate(song))["code"] for song in "abc"]
    assert codes == [200, 200, 402]
    assert caller.emulator.credits == (await caller.get("/api/v1/chat/credit"))["data"] == 0.0


async def test_refused_requests_cost_nothing(start):
    """What is refused is free."""
    caller = await start(unknown_songs=["lost"])
    await caller.generate("lost")
    assert caller.emulator.credits == 5916.25


async def test_scripted_song(caller):
    """A song may have a script, which the job it gets will follow."""
    caller.emulator.script_song("song", CoverScript(statuses=["failure"]))
    task_id = (await caller.generate("song"))["data"]["taskId"]
    assert (await caller.record(task_id))["data"]["successFlag"] == 3


async def test_same_seed_same_jobs(start):
    """A seed decides the ids and the fates of all songs, in whatever order they are asked for."""

    async def fates(seed, songs):
        caller = await start(seed=seed, generation_time=0, failure_rate=0.3, stuck_rate=0.3)
        ids = {song: (await caller.generate(song))["data"]["taskId"] for song in songs}
        records = {song: await caller.record(task_id) for song, task_id in ids.items()}
        flags = {song: record["data"]["successFlag"] for song, record in records.items()}
        return ids, flags

    forward, backward = await fates(7, "abcdefgh"), await fates(7, "hgfedcba")
    assert forward == backward
    assert forward != await fates(8, "abcdefgh")
    assert set(forward[1].values()) == {1, 2, 3}
