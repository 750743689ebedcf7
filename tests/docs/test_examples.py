import asyncio
import logging
import re
import runpy
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
def test_an_example_without_arguments_says_what_it_takes(path, monkeypatch):
    """A script that is run without its arguments ends with a line on how to run it."""
    monkeypatch.setattr(sys, "argv", [str(path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    usage = re.fullmatch(r"usage: python (\S+)( \[?[A-Z_]+(\.\.\.\])?)+", str(ended.value.code))
    assert usage is not None
    assert usage[1] == path.name


async def test_a_poll(emulator, example, capsys):
    """The first example prints the state and the URLs of the images."""
    await example("first_poll.py")["main"](emulator.add_job())
    state, *images = capsys.readouterr().out.split()
    assert state == "SUCCESS"
    assert len(images) == 2


async def test_a_song_gets_its_cover(emulator, example, capsys):
    """The README's example prints the URLs of the images."""
    await example("cover_of_a_song.py")["main"]("a-song")
    assert capsys.readouterr().out.count(emulator.image_url) == 2


async def test_a_song_whose_cover_fails(emulator, example, capsys):
    """The README's example says why there is no cover."""
    emulator.script_song("a-song", CoverScript(statuses=["failure"]))
    await example("cover_of_a_song.py")["main"]("a-song")
    assert capsys.readouterr().out.startswith("no cover: ")


async def test_a_wait_tells_how_it_goes(emulator, example, capsys):
    """Progress goes to stderr, the URLs to stdout."""
    task_id = emulator.add_job()
    await example("wait_with_progress.py")["main"](task_id)
    printed = capsys.readouterr()
    assert printed.err == "SUCCESS\n"
    assert printed.out.count(emulator.image_url) == 2


async def test_a_schedule_of_ones_own(emulator, example, capsys):
    """Any object with a method `delay` serves as a schedule."""
    names = example("own_schedule.py")
    await names["main"](emulator.add_job())
    assert capsys.readouterr().out.count(emulator.image_url) == 2
    assert names["AfterTwentyFive"]().delay(10.0, 1.0) == 15.0
    assert names["AfterTwentyFive"]().delay(40.0, 2.0) == 6.0


async def test_one_rate_limiter_for_two_clients(emulator, example, capsys):
    """Two clients wait at once under one rate limiter."""
    await example("one_rate_limiter.py")["main"](emulator.add_job(), emulator.add_job())
    assert capsys.readouterr().out.count(emulator.image_url) == 4


async def test_a_cover_is_asked_for_with_care(emulator, example, capsys):
    """The first request gets an id, the second hears that there is one already."""
    main = example("careful_generate.py")["main"]
    await main("a-song")
    task_id = capsys.readouterr().out.strip()
    await main("a-song")
    assert capsys.readouterr().out == f"already there: {task_id}\n"


async def test_an_external_session_is_accepted(emulator, example, capsys):
    """A client works over a session that it does not own."""
    await example("external_session.py")["main"](emulator.add_job())
    assert capsys.readouterr().out.count(emulator.image_url) == 2


async def test_an_id_is_noted_whoever_is_gone(emulator, example):
    """The id of a paid request is noted although the one who asked was cancelled meanwhile."""
    noted = asyncio.Queue()
    emulator.fault(Fault.slow(0.05))
    async with CoverClient() as client:
        ask = example("ask_and_note.py")["ask"]
        asking = asyncio.create_task(ask(client, "a-song", lambda *pair: noted.put_nowait(pair)))
        await asyncio.sleep(0)  # until it has begun
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        song, task_id = await noted.get()
        assert song == "a-song"
        assert (await client.get_cover_details(task_id)).is_success


async def test_a_noted_id_survives_a_restart(emulator, example, capsys):
    """Begun again with what was noted, it waits for that cover, and pays for no other."""
    main, notes = example("note_the_id.py")["main"], []
    await main("a-song", None, notes.append)
    await main("a-song", notes[0], notes.append)
    first, second = capsys.readouterr().out.splitlines()[::2]
    assert first == second
    assert [request.endpoint for request in emulator.requests].count("generate") == 1


async def test_what_a_wait_logs(emulator, example, caplog):
    """The poll that brings the cover is logged as a change, with nothing of the key."""
    caplog.set_level(logging.DEBUG, "kie_cover_async")
    task_id = emulator.add_job()
    await example("with_logging.py")["main"](task_id)
    ours = [record for record in caplog.records if record.name.startswith("kie_cover_async")]
    assert [record.levelname for record in ours] == ["INFO"]
    assert re.fullmatch(rf"cover {task_id} at \d+\.\d s: SUCCESS", ours[0].message)


async def test_an_observer_counts(emulator, example, capsys):
    """The refusal and the good poll are counted, and the pause between them."""
    emulator.fault(Fault.rate_limited(retry_after=0))
    await example("counting_requests.py")["main"](emulator.add_job())
    counted = "{'record-info RateLimitedError': 1, 'record-info ok': 1} paused for 0."
    assert capsys.readouterr().out.startswith(counted)


async def test_the_test_of_a_service_passes(example):
    """The example of a user's own test is a test that passes."""
    await example("test_a_service.py")["test_a_picture_comes_in_spite_of_everything"]()


async def test_the_test_of_a_callback_passes(example):
    """The example of a test that is called back is one, too."""
    await example("test_a_callback.py")["test_the_service_is_told"]()


async def test_a_cover_is_saved(emulator, example, capsys, tmp_path):
    """The images lie where the example says, and are as large as it says."""
    await example("save_a_cover.py")["main"](str(tmp_path), emulator.add_job())
    saved = sorted(path for path in tmp_path.iterdir() if path.suffix == ".png")
    assert len(saved) == 2
    assert capsys.readouterr().out == "".join(f"{path} 64 x 64\n" for path in saved)


async def test_many_are_saved(emulator, example, capsys, tmp_path, monkeypatch):
    """What ended is saved or has failed, and what was in trouble is saved by the next run."""
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


async def test_a_wrong_key_gives_up_no_cover(emulator, example, capsys, tmp_path):
    """What is wrong with the account leaves covers pending, until it is mended."""
    main = example("save_many.py")["main"]
    task_id = emulator.add_job(CoverScript(statuses=[Fault.answer(401), "success"]))
    await main(str(tmp_path), task_id)
    assert "401" in capsys.readouterr().err
    await main(str(tmp_path))
    assert capsys.readouterr().out.count(task_id) == 2


async def test_an_archive_is_looked_after(emulator, example, capsys, tmp_path):
    """What is missing is told, and made pending."""
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
    (CoverScript(statuses=["missing"]), TypeError, "a new job is a bug in the loop"),
    (CoverScript(statuses=["generating"]), RuntimeError, "a cover that is being made has failed"),
    (CoverScript(statuses=["429"]), TypeError, "a refusal is a bug in the loop"),
    (CoverScript(statuses=[Fault.reset(midway=True)]), ClientPayloadError, "a reset ends the wait"),
    (CoverScript(statuses=[Fault.gateway_page()]), ContentTypeError, "so does a gateway's page"),
]


@pytest.mark.parametrize(
    ("script", "error"),
    [pytest.param(script, error, id=says) for script, error, says in BY_HAND],
)
async def test_the_loop_by_hand_fails(emulator, example, script, error):
    """What the page on hand-written loops says of this one: it loses covers that are being made."""
    images_of = example("by_hand.py")["images_of"]
    async with ClientSession() as session:
        with pytest.raises(error):
            await images_of(session, emulator.add_job(script))


async def test_the_loop_by_hand_works_on_a_good_day(emulator, example):
    """It returns the images of a cover that is done."""
    images_of = example("by_hand.py")["images_of"]
    async with ClientSession() as session:
        assert len(await images_of(session, emulator.add_job())) == 2


def test_the_readme_shows_the_first_example():
    """What the README tells the reader to write is the very code that is tested here."""
    code = (EXAMPLES / "cover_of_a_song.py").read_text(encoding="utf-8")
    # Neither the docstring nor the lines that start it.
    shown = re.sub(r'^""".*?"""\n\n|\n\nif __name__.*', "", code, flags=re.DOTALL)
    assert f"```python\n{shown}```" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_is_shown(name):
    """No example lies about that no page shows."""
    pages = [page.read_text(encoding="utf-8") for page in ROOT.glob("docs/*.md")]
    assert f"examples/{name}\n" in "".join(pages)
