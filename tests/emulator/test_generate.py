import pytest

from kie_cover_async.emulator import CoverEmulator, CoverScript

GENERATE = "/api/v1/suno/cover/generate"


async def test_a_submit_creates_a_job(caller, recorded):
    """A submit is accepted with the new job's id, and the job can be polled."""
    accepted = await caller.generate("song")
    task_id = accepted["data"].pop("taskId")
    documented = recorded("generate-accepted-documented")
    assert accepted == {**documented, "data": {}}
    data = (await caller.record(task_id))["data"]
    assert (data["taskId"], data["parentTaskId"], len(task_id)) == (task_id, "song", 32)


async def test_a_submit_needs_a_callback_url(caller, recorded):
    """Without a callback URL nothing is created, as recorded."""
    answer = await caller.generate(callback="")
    assert answer == recorded("generate-missing-callback-live-sister")
    assert await caller.post(GENERATE, {"taskId": "song"}) == answer


async def test_an_unknown_song_is_refused(start, recorded):
    """A song that does not exist has no cover, as recorded."""
    caller = await start(unknown_songs={"lost"})
    assert await caller.generate("lost") == recorded("generate-unknown-music-live")


@pytest.mark.parametrize("song", [None, "", 7])
async def test_a_submit_needs_a_song(caller, song):
    """A submit without the song's id is a validation error."""
    answer = await caller.post(GENERATE, {"taskId": song, "callBackUrl": "http://x"})
    assert answer["code"] == 422


@pytest.mark.parametrize("path", [GENERATE, "/api/v1/common/download-url"])
@pytest.mark.parametrize("body", ["text", [1]])
async def test_a_body_that_is_not_an_object_is_refused(caller, path, body):
    """A body that is not a JSON object is a format error."""
    assert (await caller.post(path, body))["code"] == 400


async def test_a_body_that_is_not_json_is_refused(caller):
    """A body that is not JSON is a format error."""
    url, headers = caller.emulator.url + GENERATE, {"Authorization": "Bearer k"}
    async with caller.session.post(url, data=b"{", headers=headers) as answer:
        assert (await answer.json())["code"] == 400


@pytest.mark.parametrize(
    ("duplicates", "message"),
    [("400", "Cover already generated"), ("409", "Cover record already exists")],
)
async def test_a_song_has_one_cover(start, duplicates, message):
    """A second submit for a song is refused and names the first job."""
    caller = await start(duplicates=duplicates)
    first = (await caller.generate())["data"]
    second = await caller.generate()
    assert second == {"code": int(duplicates), "msg": message, "data": first}


async def test_a_duplicate_may_hide_the_first_id(start):
    """With `duplicate_reveals_task_id=False`, there is no data."""
    caller = await start(duplicate_reveals_task_id=False)
    await caller.generate()
    assert (await caller.generate())["data"] is None


def test_duplicates_is_one_of_two_codes():
    """Another code for duplicates is rejected."""
    with pytest.raises(ValueError, match="duplicates"):
        CoverEmulator(duplicates="500")


async def test_submits_cost_credits(start):
    """Each accepted submit costs its price, down to zero; then the answer is 402."""
    caller = await start(credits=4.5, price=2.25)
    codes = [(await caller.generate(song))["code"] for song in "abc"]
    assert codes == [200, 200, 402]
    assert caller.emulator.credits == (await caller.get("/api/v1/chat/credit"))["data"] == 0.0


async def test_refused_requests_cost_nothing(start):
    """A refused submit is free."""
    caller = await start(unknown_songs=["lost"])
    await caller.generate("lost")
    assert caller.emulator.credits == 5916.25


async def test_a_song_may_be_scripted(caller):
    """The job of a scripted song follows the script."""
    caller.emulator.script_song("song", CoverScript(statuses=["failure"]))
    task_id = (await caller.generate("song"))["data"]["taskId"]
    assert (await caller.record(task_id))["data"]["successFlag"] == 3


async def test_same_seed_same_jobs(start):
    """A seed determines the ids and outcomes of all songs, in any order of requests."""

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
