"""`make`: from songs to images on disk, and its continuation after an interruption."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest
from support.songs import refuse, submits

from kie_cover_async import ApiError, CoverDetails, CoverTimeoutError
from kie_cover_async.archive import CoverArchive
from kie_cover_async.cli import ids
from kie_cover_async.cli.commands import make as command
from kie_cover_async.cli.output import DONE, FAILED, INTERRUPTED, USAGE, UsageError
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.events import CoverPolled
from kie_cover_async.ledger import SongState

CALLBACK = "https://example.com/done"

pytestmark = pytest.mark.usefixtures("key")


@pytest.fixture
async def emulator(start):
    return await start(generation_time=0.0)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "covers"


@pytest.fixture
def make(emulator, folder, capsys):
    """Run it in the process of the tests; return its lines, JSON ones by song, and stderr."""

    async def make(*songs, code=DONE, **options):
        given = {
            "music_task_ids": songs,
            "file": None,
            "out": str(folder),
            "callback_url": CALLBACK,
            "rate": float("inf"),
            "submit_rate": float("inf"),
            "timeout": 20.0,
            "base_url": emulator.url,
            "as_json": True,
        }
        assert await command.make(**given | options) == code
        captured = capsys.readouterr()
        if not options.get("as_json", True):
            return sorted(captured.out.splitlines()), captured.err
        return {
            line["song"]: line for line in map(json.loads, captured.out.splitlines())
        }, captured.err

    return make


async def states(folder):
    async with CoverArchive(folder) as archive:
        return {song.music_task_id: song.state.value async for song in archive.songs()}


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return bound.getsockname()[1]


@pytest.mark.usefixtures("route")
async def test_images_are_on_disk_as_the_lines_say(make, emulator, folder, tmp_path):
    """Songs from arguments and from a file are treated alike, and each is submitted once."""
    file = tmp_path / "songs.txt"
    file.write_text(f"{json.dumps({'song': 'b', 'state': 'wanted'})}\nc\nc\n")
    lines, messages = await make("a", "b", file=str(file))
    assert sorted(lines) == sorted(submits(emulator)) == ["a", "b", "c"]
    assert {line["state"] for line in lines.values()} == {"kept"}
    assert {line["reason"] for line in lines.values()} == {None}
    images = [image for line in lines.values() for image in line["images"]]
    assert sorted(images) == sorted(map(str, folder.glob("*.png")))
    assert len(images) == 6
    assert all(line["task_id"] in line["images"][0] for line in lines.values())
    assert messages.startswith("3 songs kept in ")
    assert messages.endswith("s: 6 images\n")


async def test_kept_songs_have_a_line_and_cost_no_request(make, emulator):
    """A second run with the same songs writes the same lines."""
    before, _ = await make("a", "b")
    emulator.requests.clear()
    assert (await make("a", "b"))[0] == before
    assert emulator.requests == []


async def test_text_lines_have_the_state_and_the_files(make, emulator, folder):
    """A song that is not kept has the reason instead."""
    refuse(emulator, 422, "odd", task_id="b")
    lines, _ = await make("a", "b", "c d", as_json=False, code=FAILED)
    kept, failed, rejected = lines
    assert kept == f"a  kept  {' '.join(map(str, sorted(folder.glob('*.png'))))}"
    assert failed.startswith("b  failed  InvalidRequestError: InvalidRequestError 422: odd")
    assert rejected.startswith("c d  rejected  InvalidTaskIdError: ")


SONGS = {
    "line of this command": '{"song": "a", "task_id": "x", "state": "kept"}',
    "record of a cover": '{"taskId": "x", "parentTaskId": "a"}',
    "answer of the API": '{"code": 200, "data": {"taskId": "x", "parentTaskId": "a"}}',
    "attribute of Python": '{"music_task_id": "a"}',
    "JSON string": '"a"',
    "plain id": "a",
}


@pytest.mark.parametrize("text", SONGS.values(), ids=SONGS)
def test_song_is_read_from_what_other_commands_write(text):
    """The id of a cover is not mistaken for a song's."""
    assert ids.parse_id(text, ids.SONGS) == "a"


async def test_id_of_a_cover_alone_is_no_song(make, emulator, tmp_path):
    """A song is not guessed, since each submit costs credits."""
    file = tmp_path / "songs.txt"
    file.write_text('{"taskId": "x"}')
    lines, _ = await make(file=str(file), code=FAILED)
    [line] = lines.values()
    assert line["error"] == "InvalidTaskIdError"
    assert "JSON without a string song" in line["message"]
    assert (line["state"], submits(emulator)) == (None, [])


async def test_missing_callback_url_is_rejected_before_anything_is_done(make, emulator, folder):
    """The suno route requires one; the message names both options."""
    with pytest.raises(UsageError, match="--callback-url or --listen must be given"):
        await make("a", callback_url=None)
    assert emulator.requests == []
    assert not folder.exists()


async def test_market_route_without_callbacks_says_who_ends_a_doubt(make, emulator):
    """The song is made nevertheless."""
    lines, messages = await make("a", callback_url=None, route="market")
    assert lines["a"]["state"] == "kept"
    assert messages.startswith("Without callbacks, a submit whose answer is lost leaves its song")


UNREACHABLE = {
    "any port": ({"listen": "127.0.0.1:0"}, "--listen must name a port other than 0"),
    "all addresses": ({"listen": "0.0.0.0:80"}, "cannot reach 0.0.0.0 of --listen"),
    "no address": ({"listen": "80"}, "--listen must be an address such as"),
    "loopback": (
        {"listen": "127.0.0.1:80", "base_url": None},
        "--callback-url must be given: the service cannot reach 127.0.0.1 of --listen",
    ),
    "private": ({"listen": "10.0.0.1:80", "base_url": None}, "cannot reach 10.0.0.1"),
    "localhost": ({"listen": "localhost:80", "base_url": None}, "cannot reach localhost"),
    "query": (
        {"listen": "127.0.0.1:80", "callback_url": "https://example.com/?a=b"},
        "--callback-url must have no query and no fragment",
    ),
    "no URL": ({"listen": "127.0.0.1:80", "callback_url": "example.com"}, "--callback-url must be"),
    "rate": ({"rate": 0.0}, "--rate must be"),
    "submit rate": ({"submit_rate": 0.0}, "--submit-rate must be"),
    "timeout": ({"timeout": -1.0}, "--timeout must be"),
    "folder": ({"out": ""}, "--out must name a folder"),
    "network": ({"allow_image_network": ["x"]}, "--allow-image-network must be a network"),
}


@pytest.mark.parametrize(("options", "message"), UNREACHABLE.values(), ids=UNREACHABLE)
async def test_invalid_option_is_rejected_before_anything_is_done(
    make, emulator, folder, options, message
):
    """The message names the option."""
    with pytest.raises(UsageError, match=message):
        await make("a", **{"callback_url": None if "listen" in options else CALLBACK, **options})
    assert emulator.requests == []
    assert not folder.exists()


@pytest.mark.parametrize("host", ["93.184.215.14", "example.com"])
def test_public_address_needs_no_callback_url(host, key):
    """The service can reach it, so its callbacks go there."""
    callbacks = command.CallbackOptions.parse(None, f"{host}:8080/in", None, None)
    assert callbacks.url == f"http://{host}:8080/in"


async def test_callback_instead_of_the_answer_ends_the_doubt(make, emulator, port):
    """With --listen a song whose answer was lost is kept in the same run, after one submit."""
    emulator.script_song("a", CoverScript(seconds=0.1))
    emulator.fault(Fault.reset(), endpoint="submit")
    lines, messages = await make("a", callback_url=None, listen=f"127.0.0.1:{port}/in")
    assert lines["a"]["state"] == "kept"
    assert submits(emulator) == ["a"]
    assert messages.startswith(f"Callbacks are received at http://127.0.0.1:{port}/in.\n")


async def test_each_song_has_a_callback_url_of_its_own(make, emulator, port):
    """With --listen the public URL gets one more part: the song and its HMAC."""
    listen = {"listen": f"127.0.0.1:{port}", "callback_url": "https://example.com/covers/"}
    await make("a", "b", **listen)
    bodies = [each.body for each in emulator.requests if each.endpoint == "generate"]
    first, second = (json.loads(body)["callBackUrl"] for body in bodies)
    parts = [url.removeprefix("https://example.com/covers/").split(".") for url in (first, second)]
    assert sorted(song for song, _ in parts) == ["YQ", "Yg"]
    assert parts[0][1] != parts[1][1]


async def test_limit_bounds_the_submits(make, emulator, folder):
    """All songs are noted, those beyond it have no line, and the next run continues."""
    lines, messages = await make(*"abcde", limit=2)
    assert sorted(lines) == sorted(submits(emulator)) == ["a", "b"]
    assert "\n3 songs left to submit, 0 to wait for: " in messages
    assert [*(await states(folder)).values()] == ["kept"] * 2 + ["wanted"] * 3
    lines, messages = await make()
    assert sorted(lines) == ["c", "d", "e"]
    assert messages.count("\n") == 1


async def test_refusals_that_were_taken_back_are_not_called_failed(make, emulator, folder, capsys):
    """Equal refusals end the run, and the songs are wanted again: there is nothing to settle."""
    refuse(emulator, 422)
    with pytest.raises(ApiError):
        await make(*"abc")
    assert {*(await states(folder)).values()} == {"wanted"}
    assert "--submit-again" not in capsys.readouterr().err


async def test_songs_that_are_not_given_stay_wanted(make, emulator):
    """A run with songs submits these only."""
    await make(*"ab", limit=0)
    lines, messages = await make("b")
    assert [*lines] == submits(emulator) == ["b"]
    assert "1 song left to submit" in messages


async def test_run_without_anything_to_do_says_so(make, folder):
    """Every song is kept."""
    await make("a")
    assert await make() == ({}, f"nothing is left to do in {folder}\n")


async def test_no_songs_and_no_folder_is_a_usage_error(make, folder):
    """There is nothing to continue."""
    with pytest.raises(UsageError, match=r"no songs, and no folder .* give some songs"):
        await make()
    assert not folder.exists()


async def test_file_without_songs_is_rejected_unless_songs_were_submitted(
    make, emulator, folder, tmp_path
):
    """Those are waited for."""
    file = tmp_path / "songs.txt"
    file.write_text("\n")
    with pytest.raises(UsageError, match=r"no songs found in .*songs\.txt, and none was submitted"):
        await make(file=str(file))
    emulator.script_song("a", "generating, success")
    await make("a", timeout=0.0, code=FAILED)
    lines, messages = await make(file=str(file))
    assert lines["a"]["state"] == "kept"
    assert messages.startswith(f"kie-cover: no songs found in {file}\n")


async def test_timeout_leaves_a_song_submitted(make, emulator, folder):
    """The line has the error, and the last one says how to continue."""
    emulator.script_song("a", CoverScript(end="never"))
    lines, messages = await make("a", timeout=0.0, code=FAILED)
    assert (lines["a"]["state"], lines["a"]["error"]) == ("submitted", CoverTimeoutError.__name__)
    assert "0 songs left to submit, 1 to wait for: the same command without songs" in messages


async def test_lost_answer_leaves_a_song_in_doubt(make, emulator, folder):
    """No run submits it again, and each says what to do."""
    emulator.fault(Fault.reset(), endpoint="submit")
    for _ in range(2):
        lines, messages = await make("a", code=FAILED)
        assert (lines["a"]["state"], lines["a"]["images"]) == ("in_doubt", [])
        assert lines["a"]["reason"]
        hint = f"1 song in doubt: see kie-cover songs --state in_doubt --out {folder}, then "
        assert hint in messages
    assert submits(emulator) == ["a"]


async def test_failed_song_is_not_tried_again(make, emulator):
    """It is a failure each time, and the last line says how to try again."""
    emulator.script_song("a", CoverScript(seconds=0, end="failure", error_message="no luck"))
    for _ in range(2):
        lines, messages = await make("a", code=FAILED)
        assert lines["a"]["state"] == "failed"
        assert "no luck" in lines["a"]["reason"]
        assert "1 failed: kie-cover settle SONG --submit-again" in messages
    assert submits(emulator) == ["a"]


async def test_refusal_of_every_song_ends_the_run_and_fails_none(make, emulator, folder, capsys):
    """The last line says what is left; the error is reported by the caller."""
    refuse(emulator, 402, "Insufficient credits")
    with pytest.raises(ApiError, match="402"):
        await make(*"abc")
    assert "\n3 songs left to submit, 0 to wait for: " in capsys.readouterr().err
    assert {*(await states(folder)).values()} == {"wanted"}


async def test_dry_run_sends_nothing_that_costs(make, emulator, folder):
    """It shows the songs and the credits, and creates no folder."""
    lines, messages = await make(*"abca", dry_run=True, limit=2)
    assert lines == {song: {"song": song, "state": "wanted"} for song in "ab"}
    assert messages == (
        "2 of 3 songs would be submitted, and 0 waited for; 5,916.25 credits are left\n"
    )
    assert [request.endpoint for request in emulator.requests] == ["credit"]
    assert not folder.exists()


async def test_dry_run_knows_what_is_left_in_the_folder(make, emulator):
    """Without songs it shows what is wanted; kept songs would not be submitted."""
    emulator.script_song("a", CoverScript(end="never"))
    await make("a", "b", timeout=0.0, code=FAILED)
    await make("c", limit=0, timeout=0.0, code=FAILED)
    lines, messages = await make(dry_run=True)
    assert [*lines] == ["c"]
    assert messages.startswith("1 of 1 song would be submitted, and 1 waited for; ")
    lines, _ = await make(*"abd", dry_run=True, as_json=False)
    assert lines == ["d  wanted"]


async def test_dry_run_shows_what_would_be_rejected(make):
    """The exit code is that of a run."""
    lines, messages = await make("a", "b c", dry_run=True, code=FAILED)
    assert lines["b c"]["error"] == "InvalidTaskIdError"
    assert messages.startswith("1 of 1 song would be submitted")


async def test_error_that_ends_the_run_is_a_line_of_json(run, emulator, folder):
    """The command continues when the cause is gone; stderr says what is left, and the hint."""
    refuse(emulator, 401, "no")
    arguments = ("make", "a", "--out", str(folder), "--callback-url", CALLBACK)
    ended = await run(*arguments, KIE_BASE_URL=emulator.url)
    assert ended.code == FAILED
    song, error = ended.documents
    assert (song["song"], song["state"], song["error"]) == ("a", "wanted", "AuthenticationError")
    assert error["error"] == "AuthenticationError"
    assert "1 song left to submit, 0 to wait for: the same command without songs " in ended.err
    assert "is KIE_API_KEY right?" in ended.err
    emulator.clear_faults()
    ended = await run(*arguments[:1], *arguments[2:], KIE_BASE_URL=emulator.url)
    assert ended.code == DONE
    assert [line["state"] for line in ended.documents] == ["kept"]


def beginning(started, emulator, folder, songs="abc", **more):
    """Start the command with a submit that takes so long that it is in flight for a while."""
    options = ("--callback-url", CALLBACK, "--out", str(folder), "--submit-rate", "inf")
    return started("make", *songs, *options, KIE_BASE_URL=emulator.url, **more)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
async def test_ctrl_c_waits_for_the_submits_that_were_sent(  # noqa: PLR0917 - fixtures
    started, make, emulator, folder, eventually, number
):
    """Their ids are stored, no other song is submitted, and the next run keeps all of them."""
    emulator.fault(Fault.slow(1.3), endpoint="submit", count=2)
    refuse(emulator, 429, task_id="c")
    async with beginning(started, emulator, folder, PYTHONASYNCIODEBUG="1") as command:
        await eventually(lambda: len(emulator._service.songs) == 2)
        command.process.send_signal(number)
        ended = await command.end()
    assert ended.code == (INTERRUPTED if number == signal.SIGINT else -number)
    assert "waiting for the answers to submits that were sent; Ctrl-C again " in ended.err
    assert "1 song left to submit, 2 to wait for: " in ended.err
    assert "Traceback" not in ended.err
    assert await states(folder) == {"a": "submitted", "b": "submitted", "c": "wanted"}
    emulator.clear_faults()
    sent = submits(emulator)
    lines, _ = await make()
    assert {line["state"] for line in lines.values()} == {"kept"}
    assert submits(emulator)[len(sent) :] == ["c"]


async def test_second_ctrl_c_abandons_the_submits(started, make, emulator, folder, eventually):
    """Their songs are in doubt, and are not submitted again."""
    emulator.fault(Fault.stall(), endpoint="submit", count=2)
    async with beginning(started, emulator, folder, "ab") as command:
        await eventually(lambda: len(emulator._service.songs) == 2)
        command.interrupt()
        await command.message("Ctrl-C again abandons them, and leaves their songs in doubt\n")
        command.interrupt()
        ended = await command.end()
    assert (ended.code, ended.out) == (INTERRUPTED, "")
    assert "Traceback" not in ended.err
    lines, _ = await make("a", "b", code=FAILED)
    assert {line["state"] for line in lines.values()} == {"in_doubt"}
    assert sorted(submits(emulator)) == ["a", "b"]


async def test_songs_of_a_pipe_are_made_as_they_come(started, emulator, folder):
    """The command does not wait for the end of its input."""
    reading, writing = os.pipe()
    arguments = ("make", "-", "--callback-url", CALLBACK, "--out", str(folder))
    async with started(*arguments, stdin=reading, KIE_BASE_URL=emulator.url) as command:
        os.close(reading)
        for song in "ab":
            os.write(writing, f"{song}\n".encode())
            assert (await command.document())["song"] == song
        os.close(writing)
        ended = await command.end()
    assert ended.code == DONE


async def test_empty_pipe_is_a_usage_error(run, emulator, folder):
    """Without songs there is nothing to make, and none was submitted."""
    arguments = ("make", "-", "--callback-url", CALLBACK, "--out", str(folder))
    ended = await run(*arguments, KIE_BASE_URL=emulator.url)
    assert (ended.code, ended.out) == (USAGE, "")
    assert ended.usage_error == "no songs found in stdin, and none was submitted before"
    assert "nothing is left" not in ended.err


async def test_reader_that_goes_away_ends_the_run(started, emulator, folder):
    """The exit code says that something is left; no song is lost."""
    emulator.script_song("b", CoverScript(seconds=1.0))
    emulator.script_song("c", CoverScript(end="never"))
    async with beginning(started, emulator, folder) as command:
        assert (await command.document())["song"] == "a"
        command.close_stdout()
        ended = await command.end()
    assert ended.code == FAILED


async def test_terminal_shows_what_is_left(on_terminal, start, folder, eventually):
    """The view is below the lines, and erased in the end."""
    emulator = await start(generation_time=0.5)
    options = ("--callback-url", CALLBACK, "--out", str(folder), "--submit-rate", "2")
    async with on_terminal("make", *"abcd", *options, KIE_BASE_URL=emulator.url) as terminal:
        await terminal.wait_for(" wanted")
        await terminal.wait_for(" generating")
        ended = await terminal.end()
    assert ended.code == DONE
    assert "0 kept" in ended.out
    assert "requests/s" in ended.out
    assert "d  " in ended.out
    assert "\x1b[?25h" in ended.out.rpartition("\x1b[?25l")[2]


def test_view_counts_the_songs_of_the_folder():
    """A song whose cover is being generated is counted once, and not as submitted."""
    view = command.SongsView()
    counts = {"wanted": 1200, "submitted": 3, "in_doubt": 1, "failed": 2, "kept": 5}
    view.ledger = {state: counts.get(state, 0) for state in SongState}
    for task_id, flag in (("x", 2), ("y", 2), ("y", 1), ("z", 0)):
        details = CoverDetails(task_id=task_id, success_flag=flag)
        view.on_event(
            CoverPolled(task_id=task_id, wait=object(), age=1.0, details=details, error=None)
        )
    assert view.counts() == {
        "wanted": 1200,
        "submitted": 2,
        "generating": 1,
        "in doubt": 1,
        "failed": 2,
    }
    assert view.row() == ("[bold]0 kept[/]: 0 images", 0)


async def test_two_processes_share_the_songs_of_a_folder(started, emulator, folder):
    """Each song is submitted by one of them, and both have a line for each."""
    emulator.script_song("a", CoverScript(seconds=0.5))
    async with (
        beginning(started, emulator, folder, "abcdef") as first,
        beginning(started, emulator, folder, "abcdef") as second,
    ):
        ends = [await first.end(), await second.end()]
    assert [ended.code for ended in ends] == [DONE, DONE]
    assert sorted(submits(emulator)) == [*"abcdef"]
    for ended in ends:
        assert sorted(line["song"] for line in ended.documents) == [*"abcdef"]
        assert {line["state"] for line in ended.documents} == {"kept"}
