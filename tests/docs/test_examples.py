import re
import runpy
from pathlib import Path

import pytest

from kie_cover_async.emulator import CoverEmulator, CoverScript

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
async def emulator(monkeypatch):
    async with CoverEmulator(generation_time=0.0) as emulator:
        monkeypatch.setenv("KIE_API_KEY", "example-key")
        monkeypatch.setenv("KIE_BASE_URL", emulator.url)
        yield emulator


def example(name):
    return runpy.run_path(str(EXAMPLES / name))


async def test_a_song_gets_its_cover(emulator, capsys):
    """The README's example prints the URLs of the images."""
    await example("cover_of_a_song.py")["main"]("a-song")
    assert capsys.readouterr().out.count(emulator.image_url) == 2


async def test_a_song_whose_cover_fails(emulator, capsys):
    """The README's example says why there is no cover."""
    emulator.script_song("a-song", CoverScript(looks=["failure"]))
    await example("cover_of_a_song.py")["main"]("a-song")
    assert capsys.readouterr().out.startswith("no cover: ")


async def test_a_wait_tells_how_it_goes(emulator, capsys):
    """Progress goes to stderr, the URLs to stdout."""
    task_id = emulator.add_job()
    await example("wait_with_progress.py")["main"](task_id)
    printed = capsys.readouterr()
    assert printed.err == "SUCCESS\n"
    assert printed.out.count(emulator.image_url) == 2


async def test_a_schedule_of_ones_own(emulator, capsys):
    """Any object with a method `delay` serves as a schedule."""
    names = example("own_schedule.py")
    await names["main"](emulator.add_job())
    assert capsys.readouterr().out.count(emulator.image_url) == 2
    assert names["AfterTwentyFive"]().delay(10.0, 1.0) == 15.0
    assert names["AfterTwentyFive"]().delay(40.0, 2.0) == 6.0


async def test_one_budget_for_two_clients(emulator, capsys):
    """Two clients wait at once under one budget."""
    await example("one_budget.py")["main"](emulator.add_job(), emulator.add_job())
    assert capsys.readouterr().out.count(emulator.image_url) == 4


async def test_a_cover_is_asked_for_with_care(emulator, capsys):
    """The first request gets an id, the second hears that there is one already."""
    main = example("careful_generate.py")["main"]
    await main("a-song")
    task_id = capsys.readouterr().out.strip()
    await main("a-song")
    assert capsys.readouterr().out == f"already there: {task_id}\n"


async def test_the_test_of_a_service_passes():
    """The example of a user's own test is a test that passes."""
    await example("test_a_service.py")["test_a_picture_comes_in_spite_of_everything"]()


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_is_shown(name):
    """No example lies about that no page shows."""
    pages = [*ROOT.glob("docs/*.md"), ROOT / "README.md"]
    shown = "".join(page.read_text(encoding="utf-8") for page in pages)
    code = (EXAMPLES / name).read_text(encoding="utf-8")
    assert f"examples/{name}" in shown or _without_frame(code) in shown


def _without_frame(code):
    """What the README shows of an example: neither its docstring nor the lines that start it."""
    return re.sub(r'^""".*?"""\n\n|\n\nif __name__.*', "", code, flags=re.DOTALL)
