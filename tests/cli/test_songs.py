"""`songs` and `settle`: what the ledger says of each song, and what a person decides."""

import json

import pytest
from support.songs import submits

from kie_cover_async.archive import CoverArchive
from kie_cover_async.cli.commands import songs as command
from kie_cover_async.cli.output import DONE, FAILED, USAGE, UsageError
from kie_cover_async.emulator import CoverScript
from kie_cover_async.errors import TaskNotFoundError
from kie_cover_async.ledger import Api, SongState

OLD = Api(route="suno", origin="https://example.com")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "covers"


@pytest.fixture
async def ledger(folder):
    """A ledger in which `a` is wanted, `b` submitted, and `c` and `d` are in doubt."""
    async with CoverArchive(folder) as archive:
        await archive.ledger.want("abcd")
        await archive.ledger.record_id("b", "cover-b", OLD)
        for song in "cd":
            claim = await archive.ledger.claim(song, OLD)
            await archive.ledger.release(claim, SongState.IN_DOUBT, "the answer\nwas lost")
        yield archive.ledger


@pytest.fixture
def settle(folder, capsys):
    """Settle songs in the process of the tests; return the lines and stderr."""

    async def settle(*songs, code=DONE, **options):
        options = {"out": str(folder), "as_json": True, **options}
        assert await command.settle([*songs], **options) == code
        captured = capsys.readouterr()
        if options["as_json"]:
            return [json.loads(line) for line in captured.out.splitlines()], captured.err
        return captured.out, captured.err

    return settle


async def listed(folder, capsys, **options):
    assert await command.songs(**{"out": str(folder), "as_json": True} | options) == DONE
    return capsys.readouterr()


@pytest.mark.usefixtures("ledger")
async def test_songs_are_listed_as_json(folder, capsys):
    """Each line has the song, its state, its cover's id and the reason."""
    out, err = await listed(folder, capsys)
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[:2] == [
        {"song": "a", "state": "wanted", "task_id": None, "reason": None},
        {"song": "b", "state": "submitted", "task_id": "cover-b", "reason": None},
    ]
    assert [line["state"] for line in lines[2:]] == ["in_doubt", "in_doubt"]
    assert lines[2]["reason"] == "the answer\nwas lost"
    assert err == ""


@pytest.mark.usefixtures("ledger")
async def test_songs_are_listed_as_a_table(folder, capsys):
    """A reason is one line, and no line is wrapped."""
    out, _ = await listed(folder, capsys, as_json=False)
    assert out.splitlines() == [
        "SONG  STATE      COVER    REASON",
        "a     wanted",
        "b     submitted  cover-b",
        "c     in doubt            the answer\\nwas lost",
        "d     in doubt            the answer\\nwas lost",
    ]


@pytest.mark.usefixtures("ledger")
async def test_songs_of_one_state_are_listed(folder, capsys):
    """If there are none, a message says so."""
    out, _ = await listed(folder, capsys, state=SongState.SUBMITTED)
    assert [json.loads(line)["song"] for line in out.splitlines()] == ["b"]
    out, err = await listed(folder, capsys, state=SongState.KEPT, as_json=False)
    assert (out, err) == ("", f"no songs in {folder} are kept\n")


async def test_archive_without_songs_has_no_table(folder, capsys):
    """A message says so."""
    async with CoverArchive(folder):
        pass
    out, err = await listed(folder, capsys, as_json=False)
    assert (out, err) == ("", f"no songs in {folder}\n")


@pytest.mark.parametrize("arguments", [["songs"], ["settle", "a", "--give-up"]])
async def test_folder_without_an_archive_is_a_usage_error(run, folder, arguments):
    """Nothing is created, and no key is needed."""
    ended = await run(*arguments, "--out", str(folder), KIE_API_KEY="")
    assert (ended.code, ended.out) == (USAGE, "")
    assert ended.usage_error == f"--out {folder}: there is no covers.sqlite3 in this folder"
    assert not folder.exists()


async def test_unknown_state_is_a_usage_error(run):
    """The message names the states."""
    ended = await run("songs", "--state", "lost")
    assert (ended.code, ended.out) == (USAGE, "")
    assert "'--state'" in ended.usage_error
    assert "'lost' is not one of 'wanted', " in ended.usage_error


async def test_states_are_completed(run):
    """The shell asks by environment variables."""
    asking = {"_KIE_COVER_COMPLETE": "complete_bash", "COMP_WORDS": "kie-cover songs --state sub"}
    ended = await run(COMP_CWORD="3", **asking)
    assert sorted(ended.out.split()) == ["submitted", "submitting"]


async def test_all_songs_in_doubt_are_submitted_again(settle, ledger):
    """The others stay as they are."""
    lines, err = await settle(all_in_doubt=True, submit_again=True)
    assert [(line["song"], line["state"]) for line in lines] == [("c", "wanted"), ("d", "wanted")]
    assert err == ""
    assert (await ledger.find("b")).state is SongState.SUBMITTED


async def test_song_is_given_up(settle, ledger):
    """A line says what became of it."""
    out, _ = await settle("c", give_up=True, as_json=False)
    assert out == "c  failed  given up\n"
    assert (await ledger.find("c")).state is SongState.FAILED


@pytest.mark.usefixtures("ledger")
async def test_no_doubt_is_no_error(settle, folder):
    """A message says that there is nothing to settle."""
    await settle(all_in_doubt=True, give_up=True)
    assert await settle(all_in_doubt=True, give_up=True) == (
        [],
        f"no song in {folder} is in doubt\n",
    )


async def test_song_that_cannot_be_settled_is_an_error(settle, ledger):
    """The message names the song and its state, and the others are settled."""
    lines, err = await settle("b", "x", "no id", "c", give_up=True, code=FAILED)
    assert [line.get("error") for line in lines] == [
        "SettlementError",
        "SettlementError",
        "InvalidTaskIdError",
        None,
    ]
    assert [line["state"] for line in lines] == ["submitted", None, None, "failed"]
    assert err.splitlines()[:2] == [
        "kie-cover: song b cannot be settled like this: it is submitted",
        "kie-cover: song x cannot be settled like this: the ledger does not have it",
    ]
    out, _ = await settle("b", give_up=True, as_json=False, code=FAILED)
    assert out == ""


@pytest.mark.usefixtures("ledger", "key", "route")
async def test_id_of_a_song_is_polled_and_stored(settle, emulator):
    """A song in doubt is submitted again under this id."""
    task_id = emulator.add_job(CoverScript(end="never"), music_task_id="c")
    lines, _ = await settle("c", task_id=task_id, base_url=emulator.url)
    assert [(line["state"], line["task_id"]) for line in lines] == [("submitted", task_id)]
    assert emulator.poll_count(task_id) == 1
    assert submits(emulator) == []


@pytest.mark.usefixtures("key")
async def test_id_of_another_song_is_an_error(settle, emulator, ledger):
    """Nothing is changed, as with an id that the API does not know."""
    task_id = emulator.add_job(music_task_id="another")
    lines, _ = await settle("c", task_id=task_id, base_url=emulator.url, code=FAILED)
    assert "belongs to another song" in lines[0]["message"]
    with pytest.raises(TaskNotFoundError):
        await settle("c", task_id="0" * 32, base_url=emulator.url)
    assert (await ledger.find("c")).state is SongState.IN_DOUBT


@pytest.mark.usefixtures("ledger")
async def test_songs_in_a_pipe_are_settled(run, piped, folder):
    """The lines of `songs` can be filtered, and passed on."""
    lines = '{"song": "d", "state": "in_doubt"}\n'
    arguments = ("settle", "-", "--submit-again", "--out", str(folder))
    ended = await run(*arguments, stdin=piped(lines), KIE_API_KEY="")
    assert ended.code == DONE
    assert [(line["song"], line["state"]) for line in ended.documents] == [("d", "wanted")]


WRONG = {
    "no decision": ({}, "give one of --task-id ID, --submit-again and --give-up"),
    "two decisions": ({"submit_again": True, "give_up": True}, "give one of"),
    "songs and all": ({"give_up": True, "all_in_doubt": True}, "give either songs or --all"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
async def test_contradictory_options_are_rejected(settle, options, message):
    """The message says what is accepted."""
    with pytest.raises(UsageError, match=message):
        await settle("c", **options)


@pytest.mark.parametrize("songs", ["cd", "-"])
async def test_id_goes_with_one_song(settle, songs):
    """The songs of a pipe are not counted before."""
    with pytest.raises(UsageError, match="--task-id must be given with exactly one song"):
        await settle(*songs, task_id="cover-c")
    with pytest.raises(UsageError, match="give either songs or --all"):
        await settle(give_up=True)
