import asyncio
import logging
import os
import re
import runpy
import socket
import sys
from pathlib import Path

import pytest
from aiohttp import ClientPayloadError, ClientSession, ContentTypeError

from kie_cover_async import CoverClient, DownloadError
from kie_cover_async.archive import CoverArchive
from kie_cover_async.emulator import CoverScript, Fault

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


WITH_ARGUMENTS = [path for path in sorted(EXAMPLES.glob("*.py")) if "sys.argv" in path.read_text()]


@pytest.mark.parametrize("path", WITH_ARGUMENTS, ids=lambda path: path.name)
def test_example_without_arguments_prints_its_usage(path, monkeypatch):
    """A script that is run without its arguments exits with a usage line."""
    monkeypatch.setattr(sys, "argv", [str(path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    usage = re.fullmatch(r"usage: python (\S+)( \[?[A-Z_]+(\.\.\.\])?)+", str(ended.value.code))
    assert usage is not None
    assert usage[1] == path.name


async def test_poll_prints_the_state_and_the_images(emulator, example, capsys):
    """The first example prints the state and the URLs of the images."""
    await example("first_poll.py")["main"](emulator.add_job())
    state, *images = capsys.readouterr().out.split()
    assert state == "SUCCESS"
    assert len(images) == 2


async def test_cover_of_a_song_is_printed(emulator, example, capsys):
    """The README's example prints the URLs of the images."""
    await example("cover_of_a_song.py")["main"]("a-song")
    assert capsys.readouterr().out.count(emulator.image_url) == 2


async def test_songs_become_files(emulator, example, capsys, monkeypatch, tmp_path):
    """Each song is printed with its state and its files, and a second run submits none."""
    monkeypatch.chdir(tmp_path)
    main = example("make_covers.py")["main"]
    for _ in range(2):
        await main(["a-song", "b-song"])
        lines = [line.split() for line in sorted(capsys.readouterr().out.splitlines())]
        assert [line[:2] for line in lines] == [["a-song", "kept"], ["b-song", "kept"]]
        with os.scandir("covers") as entries:
            images = {entry.name for entry in entries if entry.name.endswith(".png")}
        assert {path.rpartition("/")[2] for _, _, *paths in lines for path in paths} == images
        assert len(images) == 4
    assert [each.endpoint for each in emulator.requests].count("generate") == 2


async def test_callback_of_a_song_names_its_lost_id(
    emulator, example, capsys, monkeypatch, tmp_path
):
    """A song whose answer was lost is kept, because a callback comes to its own URL."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = str(bound.getsockname()[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", port)
    monkeypatch.setenv("PUBLIC_URL", f"http://127.0.0.1:{port}/covers")
    emulator.fault(Fault.gateway_page(accepted=True), endpoint="submit")
    await example("songs_with_callbacks.py")["main"](["a-song"])
    song, state, *images = capsys.readouterr().out.split()
    assert (song, state, len(images)) == ("a-song", "kept", 2)


async def test_failure_is_printed_with_its_reason(emulator, example, capsys):
    """The README's example prints why there is no cover."""
    emulator.script_song("a-song", CoverScript(statuses=["failure"]))
    await example("cover_of_a_song.py")["main"]("a-song")
    assert capsys.readouterr().out.startswith("no cover: ")


async def test_wait_prints_its_progress(emulator, example, capsys):
    """The states go to stderr, the URLs to stdout."""
    task_id = emulator.add_job()
    await example("wait_with_progress.py")["main"](task_id)
    printed = capsys.readouterr()
    assert printed.err == "SUCCESS\n"
    assert printed.out.count(emulator.image_url) == 2


async def test_custom_schedule_is_used(emulator, example, capsys):
    """Any object with a `delay` method can be a schedule."""
    names = example("own_schedule.py")
    await names["main"](emulator.add_job())
    assert capsys.readouterr().out.count(emulator.image_url) == 2
    assert names["AfterTwentyFive"]().delay(10.0, 1.0) == 15.0
    assert names["AfterTwentyFive"]().delay(40.0, 2.0) == 6.0


async def test_one_rate_limiter_for_two_clients(emulator, example, capsys):
    """Two clients wait at the same time under one rate limiter."""
    await example("one_rate_limiter.py")["main"](emulator.add_job(), emulator.add_job())
    assert capsys.readouterr().out.count(emulator.image_url) == 4


async def test_old_waits_end_on_the_route_of_their_submit(emulator, example, capsys):
    """The new song is submitted and polled on the Market route, the old id on the suno route."""
    old = emulator.add_job()
    await example("change_route.py")["main"]("a-song", old)
    assert capsys.readouterr().out.count(emulator.image_url) == 4
    polled = {
        request.task_id: request.endpoint
        for request in emulator.requests
        if request.endpoint in ("record-info", "recordInfo")
    }
    assert polled.pop(old) == "record-info"
    assert [*polled.values()] == ["recordInfo"]
    endpoints = [request.endpoint for request in emulator.requests]
    assert endpoints.count("createTask") == 1
    assert "generate" not in endpoints


async def test_second_submit_finds_the_first_cover(emulator, example, capsys):
    """The first submit prints an id, the second prints that the cover exists."""
    main = example("careful_generate.py")["main"]
    await main("a-song")
    task_id = capsys.readouterr().out.strip()
    await main("a-song")
    assert capsys.readouterr().out == f"already there: {task_id}\n"


async def test_external_session_is_used(emulator, example, capsys):
    """A client sends its requests over the session that it is given."""
    await example("external_session.py")["main"](emulator.add_job())
    assert capsys.readouterr().out.count(emulator.image_url) == 2


async def test_id_is_recorded_although_the_caller_is_cancelled(emulator, example):
    """The id of a paid request is recorded although the caller was cancelled meanwhile."""
    recorded = asyncio.Queue()
    emulator.fault(Fault.slow(0.05))
    async with CoverClient() as client:
        submit = example("ask_and_note.py")["submit"]
        record = lambda *pair: recorded.put_nowait(pair)  # noqa: E731
        submitting = asyncio.create_task(submit(client, "a-song", record))
        await asyncio.sleep(0)  # until it has begun
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        song, task_id = await recorded.get()
        assert song == "a-song"
        assert (await client.get_cover_details(task_id)).is_success


async def test_recorded_id_survives_a_restart(emulator, example, capsys):
    """A second run with the recorded id waits for the same cover and pays for no other."""
    main, records = example("note_the_id.py")["main"], []
    await main("a-song", None, records.append)
    await main("a-song", records[0], records.append)
    first, second = capsys.readouterr().out.splitlines()[::2]
    assert first == second
    assert [request.endpoint for request in emulator.requests].count("generate") == 1


async def test_wait_logs_the_change_of_state(emulator, example, caplog):
    """The poll that ends the wait is logged as a change of state, without the key."""
    caplog.set_level(logging.DEBUG, "kie_cover_async")
    task_id = emulator.add_job()
    await example("with_logging.py")["main"](task_id)
    ours = [record for record in caplog.records if record.name.startswith("kie_cover_async")]
    assert [record.levelname for record in ours] == ["INFO"]
    assert re.fullmatch(rf"cover {task_id} at \d+\.\d s: SUCCESS", ours[0].message)


async def test_observer_counts_requests_and_pauses(emulator, example, capsys):
    """The refusal, the successful poll and the pause between them are counted."""
    emulator.fault(Fault.rate_limited(retry_after=0))
    await example("counting_requests.py")["main"](emulator.add_job())
    counted = "{'record-info RateLimitedError': 1, 'record-info ok': 1} paused for 0."
    assert capsys.readouterr().out.startswith(counted)


async def test_example_of_a_service_test_passes(example):
    """The example of a test with faults passes."""
    await example("test_a_service.py")["test_image_arrives_in_spite_of_faults"]()


async def test_example_of_a_callback_test_passes(example):
    """The example of a test that receives callbacks passes."""
    await example("test_a_callback.py")["test_service_receives_both_callbacks"]()


async def test_images_are_saved(emulator, example, capsys, tmp_path):
    """The images have the paths and the sizes that the example prints."""
    await example("save_a_cover.py")["main"](str(tmp_path), emulator.add_job())
    saved = sorted(path for path in tmp_path.iterdir() if path.suffix == ".png")
    assert len(saved) == 2
    assert capsys.readouterr().out == "".join(f"{path} 64 x 64\n" for path in saved)


async def test_covers_in_trouble_are_saved_by_the_next_run(
    emulator, example, capsys, tmp_path, monkeypatch
):
    """A finished cover is saved or marked as failed; one in trouble is saved by the next run."""
    monkeypatch.setattr("backoff.full_jitter", lambda _: 0.0)
    main = example("save_many.py")["main"]
    good, bad, troubled = [
        emulator.add_job(CoverScript(statuses=[poll])) for poll in ("success", "failure", "success")
    ]
    trouble = Fault.reset(midway=True)
    emulator.fault(trouble, endpoint="image", task_id=troubled, count=8)
    await main(str(tmp_path), good, bad, troubled)
    printed = capsys.readouterr()
    assert printed.out.count(good) == 2
    assert bad in printed.err
    assert troubled in printed.err
    await main(str(tmp_path))
    printed = capsys.readouterr()
    assert printed.out.count(troubled) == len(printed.out.splitlines()) == 2
    assert printed.err == ""


async def test_wrong_key_leaves_covers_pending(emulator, example, capsys, tmp_path):
    """Covers stay pending while the key is refused, and are saved when it is fixed."""
    main = example("save_many.py")["main"]
    task_id = emulator.add_job(CoverScript(statuses=[Fault.answer(401), "success"]))
    await main(str(tmp_path), task_id)
    assert "401" in capsys.readouterr().err
    await main(str(tmp_path))
    assert capsys.readouterr().out.count(task_id) == 2


async def test_missing_image_is_reported_and_made_pending(emulator, example, capsys, tmp_path):
    """A missing image is reported, and its cover is made pending."""
    await example("save_a_cover.py")["main"](str(tmp_path), emulator.add_job(task_id="an-id"))
    (tmp_path / "an-id-2.png").unlink()
    capsys.readouterr()
    async with CoverArchive(tmp_path) as archive:
        await archive.mark_failed("lost", DownloadError(reason="gone"))
        await example("look_after_covers.py")["main"](str(tmp_path), str(tmp_path / "all.csv"))
        assert [cover.task_id for cover in await archive.pending()] == ["an-id"]
    assert capsys.readouterr().out.splitlines() == [
        f"missing {tmp_path / 'an-id-2.png'}",
        "2 covers, 2 images",
    ]


BY_HAND = [
    (CoverScript(statuses=["missing"]), TypeError, "null data for a new job"),
    (CoverScript(statuses=["generating"]), RuntimeError, "flag 2 read as failure"),
    (CoverScript(statuses=["429"]), TypeError, "a 429"),
    (CoverScript(statuses=[Fault.reset(midway=True)]), ClientPayloadError, "a reset"),
    (CoverScript(statuses=[Fault.gateway_page()]), ContentTypeError, "a gateway page"),
]


@pytest.mark.parametrize(
    ("script", "error"),
    [pytest.param(script, error, id=name) for script, error, name in BY_HAND],
)
async def test_loop_by_hand_fails(emulator, example, script, error):
    """The loop on the page `why` raises although the cover is being made."""
    images_of = example("by_hand.py")["images_of"]
    async with ClientSession() as session:
        with pytest.raises(error):
            await images_of(session, emulator.add_job(script))


async def test_loop_by_hand_works_without_faults(emulator, example):
    """It returns the images of a cover that is done."""
    images_of = example("by_hand.py")["images_of"]
    async with ClientSession() as session:
        assert len(await images_of(session, emulator.add_job())) == 2


def test_readme_shows_the_tested_example():
    """The README shows the same code as the example that is tested here."""
    code = (EXAMPLES / "cover_of_a_song.py").read_text(encoding="utf-8")
    shown = re.sub(r'^""".*?"""\n\n', "", code, flags=re.DOTALL)
    assert f"```python\n{shown}```" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_is_on_a_page(name):
    """Each example is shown on a page."""
    pages = [page.read_text(encoding="utf-8") for page in ROOT.glob("docs/**/*.md")]
    assert f"examples/{name}\n" in "".join(pages)
