from random import Random

import pytest

from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault
from kie_cover_async.emulator.jobs import Instant, Job, JobFactory
from kie_cover_async.emulator.suno import record

START = Instant(100.0, 1_760_512_035.0)


def job_factory(**settings):
    rates = {"generation_time": 1.0, "visible_after": 0.0, "failure_rate": 0.0, "stuck_rate": 0.0}
    return JobFactory(seed=0, **{**rates, **settings})


def job(**settings):
    script = CoverScript(**{"seconds": 47, "visible_after": 10, **settings})
    return job_factory().create("song", START, script=script)


def statuses(job: Job, *ages: float) -> list[str]:
    return [job.poll(START.before(-age)).stage for age in ages]


def test_a_job_follows_its_times():
    """A job is missing, then generating, then done, and stays done."""
    ages = [0, 9.9, 10, 46.9, 47, 1000]
    assert statuses(job(), *ages) == [
        "missing",
        "missing",
        "generating",
        "generating",
        "success",
        "success",
    ]


@pytest.mark.parametrize(("end", "last"), [("failure", "failure"), ("never", "generating")])
def test_a_job_may_fail_or_never_end(end, last):
    """A job may end in failure, or never."""
    assert statuses(job(end=end), 46, 47, 1e9) == ["generating", last, last]


def test_a_scripted_job_advances_with_each_poll():
    """A scripted job advances one status per poll, and repeats the last."""
    scripted = job(statuses=["missing", "pending", "generating", "bare-success", "success"])
    assert statuses(scripted, 0, 0, 0, 0, 0, 0) == [
        "missing",
        "pending",
        "generating",
        "bare-success",
        "success",
        "success",
    ]


def test_scripted_job_ends_at_its_first_terminal_poll():
    """The completion time is that of the first poll with a terminal status."""
    scripted = job(statuses=["generating", "success"])
    statuses(scripted, 1, 5, 9)
    data = record(scripted, "success", [])
    assert data["completeTime"] - data["createTime"] == 5000


def test_a_status_may_be_a_fault():
    """A status may be a fault, alone while generating, or combined with a status."""
    spoilt = Fault.truncated_json()
    scripted = job(statuses=["429", "500", spoilt, ("success", spoilt)])
    met = [scripted.poll(START) for _ in range(4)]
    assert [poll.stage for poll in met] == ["generating", "generating", "generating", "success"]
    names = [poll.fault.name for poll in met]
    assert names == ["rate-limited", "server-error", "truncated-json", "truncated-json"]


def test_statuses_may_be_one_str():
    """Statuses that are all words may be one str."""
    statuses = ["pending", "generating", "429", "success"]
    assert CoverScript(statuses="pending, generating,429,success ") == CoverScript(
        statuses=statuses
    )


async def test_a_str_is_a_script():
    """A script may be given as the str of its statuses."""
    emulator = CoverEmulator()
    emulator.script_song("song", "429")
    emulator.add_job("failure", task_id="by hand")
    scripts = emulator._service.job_factory.scripts, emulator._service.jobs["by hand"].script
    assert scripts == ({"song": CoverScript(statuses=["429"])}, CoverScript(statuses=["failure"]))


@pytest.mark.parametrize("statuses", [["sucess"], "sucess", "success, sucess"])
def test_an_unknown_status_is_rejected(statuses):
    """The error names the unknown status and the existing ones."""
    with pytest.raises(ValueError, match="'sucess'; there are missing, pending"):
        CoverScript(statuses=statuses)


def test_an_unknown_end_is_rejected():
    """The error names the field."""
    with pytest.raises(ValueError, match="end"):
        CoverScript(end="failed")


@pytest.mark.parametrize(
    ("stage", "flag"),
    [("pending", 0), ("generating", 2), ("bare-success", 1), ("success", 1), ("failure", 3)],
)
def test_each_stage_has_its_flag(stage, flag):
    """Each stage has the flag that the API documents for it."""
    assert record(job(), stage, [])["successFlag"] == flag


def test_bare_success():
    """A success may be visible before its images."""
    assert record(job(), "bare-success", [])["response"] == {"images": []}


def test_a_script_sets_the_number_of_images():
    """A script sets the number of images; each has a different name."""
    paths = job(images=5).image_paths()
    assert len(set(paths)) == 5
    assert all(path.startswith("/s/1760512035_") for path in paths)


@pytest.mark.parametrize(
    ("duration", "low", "high"),
    [(3.0, 3, 3), ((1.0, 2.0), 1, 2), (lambda dice: 5 + dice.random(), 5, 6)],
)
def test_generation_times(duration, low, high):
    """A job's duration is a number, one within a range, or the result of a callable."""
    times = [job_factory(generation_time=duration).create(song, START).seconds for song in "abcdef"]
    assert low <= min(times) <= max(times) <= high
    assert (len(set(times)) > 1) is (low < high)


def test_a_script_without_times_uses_the_emulators():
    """A script without times takes them from the emulator."""
    made = job_factory(generation_time=3.0, visible_after=2.0).create(
        "song", START, script=CoverScript()
    )
    assert (made.seconds, made.visible_after) == (3.0, 2.0)


def test_shares_of_failing_and_stuck_jobs():
    """Failing and stuck jobs occur at about the configured rates."""
    shop = job_factory(failure_rate=0.2, stuck_rate=0.1)
    ends = [shop.create(str(number), START).script.end for number in range(2000)]
    assert ends.count("failure") == pytest.approx(400, abs=80)
    assert ends.count("never") == pytest.approx(200, abs=60)


def test_callback_url_is_kept():
    """A job has its callback URL."""
    assert job_factory().create("song", START, callback_url="http://x").callback_url == "http://x"


async def test_added_jobs_have_different_ids():
    """Jobs without given ids get different ids and songs."""
    emulator = CoverEmulator()
    ids = {emulator.add_job() for _ in range(10)}
    assert len(ids) == 10
    assert all(len(task_id) == 32 for task_id in ids)


async def test_an_added_job_may_have_a_given_id():
    """A job may be given its id."""
    assert CoverEmulator().add_job(task_id="a", music_task_id="song") == "a"


@pytest.mark.parametrize("ids", [{"task_id": "a"}, {"music_task_id": "song"}])
async def test_ids_and_songs_are_unique(ids):
    """An id has one job, and a song has one."""
    emulator = CoverEmulator()
    emulator.add_job(task_id="a", music_task_id="song")
    with pytest.raises(ValueError, match="there is a job"):
        emulator.add_job(**ids)


def test_random_numbers_depend_on_the_song():
    """The random numbers given to a callable depend only on the seed and the song."""

    def roll(dice: Random) -> float:
        return dice.random()

    assert (
        job_factory(generation_time=roll).create("a", START).seconds
        == job_factory(generation_time=roll).create("a", START).seconds
    )
