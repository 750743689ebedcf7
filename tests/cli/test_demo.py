"""`demo`: its run, its views, and its end by an interruption."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from kie_cover_async import (
    AuthenticationError,
    CoverDetails,
    CoverFailedError,
    CoverResponse,
    CoverTimeoutError,
    RateLimitedError,
    ServerError,
)
from kie_cover_async.archive import SavedImage
from kie_cover_async.cli.commands.demo import LiveView, report
from kie_cover_async.cli.commands.demo_state import COVERS, FAILING, REFUSED, STUCK, DemoState
from kie_cover_async.cli.output import DONE, INTERRUPTED, USAGE
from kie_cover_async.events import CoverPolled, RequestFinished, RequestsPaused, RetryScheduled

DRAWN = CoverDetails(task_id="a", success_flag=1, response=CoverResponse(images=("x", "y")))
GENERATING = CoverDetails(task_id="a", success_flag=2)
BROKEN = CoverDetails(task_id="a", success_flag=3, error_message="no idea")

IMAGE = SavedImage(
    number=1,
    url="x",
    path=Path("2b7a505010d5ae8f841df04b4918071a-1.png"),
    sha256="0",
    size=1_500_000,
    media_type="image/png",
    width=1024,
    height=1024,
)


# The demo has its emulator in its own process, and both have the same clock.
INSTANT = """
import asyncio
from kie_cover_async.testing import InstantTimeLoop
asyncio.events.new_event_loop = InstantTimeLoop
"""
FAST = "speed_up(5)"


@pytest.mark.parametrize("route", ["suno", "market"])
async def test_json_lines_have_each_cover_and_the_totals(run, tmp_path, route):
    """One cover fails, one is out of time, one has a refused poll; the files are as listed."""
    arguments = ("demo", "--json", "--out", str(tmp_path), "--route", route)
    ended = await run(*arguments, before=INSTANT)
    assert (ended.code, ended.err) == (DONE, "")
    *lines, last = ended.documents
    covers = {line["cover"]: line for line in lines}
    assert list(range(1, COVERS + 1)) == sorted(covers)
    ends = {number: covers[number]["ended"] for number in covers}
    assert ends == dict.fromkeys(ends, "success") | {FAILING: "failed", STUCK: "timed out"}
    assert [n for n in covers if covers[n]["refusals"]] == [REFUSED]
    assert {len(covers[n]["images"]) for n in covers} == {0, 2}
    files = sorted(file for line in lines for file in line["files"])
    assert files == sorted(map(str, tmp_path.glob("*.png")))
    totals = last["totals"]
    assert (totals["images"], last["folder"]) == (len(files), str(tmp_path))
    assert totals["requests"] == totals["covers"] + totals["polls"]
    assert totals["polls"] < totals["plain_polls"]


async def test_second_run_in_a_folder_makes_its_own_covers(run, tmp_path):
    """Those of the first run stay as they are."""
    files = []
    for _ in range(2):
        ended = await run("demo", "--json", "--out", str(tmp_path), before=INSTANT)
        assert ended.code == DONE
        *lines, _ = ended.documents
        assert len(lines) == COVERS
        files += [file for line in lines for file in line["files"]]
    assert len(files) == 2 * 2 * (COVERS - 2)
    assert sorted(files) == sorted(map(str, tmp_path.glob("*.png")))


async def test_text_in_a_pipe_is_a_log_and_a_plain_table(run, tmp_path):
    """The table fits 80 columns and 24 lines, and stderr has a line for each cover."""
    ended = await run("demo", "--out", str(tmp_path), before=INSTANT, COLUMNS="80")
    assert ended.code == DONE
    assert "\x1b" not in ended.out
    assert max(len(line.removesuffix(str(tmp_path))) for line in ended.out.splitlines()) <= 80
    assert f", in the folder {tmp_path}\n" in ended.out
    assert len(ended.out.splitlines()) <= 24
    assert ended.err.count("\n") == COVERS


async def test_terminal_shows_all_phases_and_then_the_table(on_terminal, tmp_path):
    """The live view is erased before the table is printed."""
    # Slow enough for each phase to be drawn.
    before = "import kie_cover_async.cli.progress as p; p.FRAMES_PER_SECOND = 30; speed_up(3)"
    async with on_terminal("demo", "--out", str(tmp_path), before=before) as terminal:
        ended = await terminal.end()
    assert ended.code == DONE
    view, _, table = ended.out.rpartition("\x1b[2K")
    for word in ("queued", "submitted", "generating", "rate-limited", "pause"):
        assert word in view
    for word in ("success", "failed", "timed out", "Next:"):
        assert word in table


@pytest.mark.parametrize("phase", ["submitted", "generating"])
async def test_ctrl_c_ends_the_view_at_any_time(on_terminal, tmp_path, phase):
    """The cursor comes back, and neither a traceback nor a warning is left."""
    options = {"before": FAST, "PYTHONASYNCIODEBUG": "1"}
    async with on_terminal("demo", "--out", str(tmp_path), **options) as terminal:
        await terminal.wait_for(phase)
        terminal.interrupt()
        ended = await terminal.end()
    assert ended.code == INTERRUPTED
    assert "\x1b[?25h" in ended.out.rpartition("\x1b[?25l")[2]
    assert "Traceback" not in ended.out
    assert "Warning" not in ended.out


async def test_ctrl_c_ends_json_lines(started, tmp_path):
    """The exit code says so, and stderr says nothing."""
    async with started("demo", "--json", "--out", str(tmp_path), before=FAST) as command:
        await command.document()
        command.interrupt()
        ended = await command.end()
    assert (ended.code, ended.err) == (INTERRUPTED, "")


async def test_reader_that_goes_away_ends_the_demo(started, tmp_path):
    """That is not an error."""
    async with started("demo", "--json", "--out", str(tmp_path), before=FAST) as command:
        await command.document()
        command.close_stdout()
        ended = await command.end()
    assert (ended.code, ended.err) == (DONE, "")


async def test_folder_that_cannot_be_made_is_rejected(run, tmp_path):
    """Nothing is submitted."""
    file = tmp_path / "file"
    file.touch()
    ended = await run("demo", "--out", str(file))
    assert (ended.code, ended.out) == (USAGE, "")
    assert ended.usage_error.startswith(f"--out {file}: ")


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> DemoState:
    """Two covers, the first of which was submitted a second after the beginning."""
    state = DemoState(2, clock=clock)
    clock.now += 1
    state.submit(state.covers[0], "a")
    return state


def poll(brought) -> CoverPolled:
    seen = isinstance(brought, CoverDetails)
    details, error = (brought, None) if seen else (None, brought)
    return CoverPolled(task_id="a", wait=object(), age=0.0, details=details, error=error)


def text(*things, width: int = 80, height: int = 24) -> str:
    console = Console(file=StringIO(), width=width, height=height, markup=False, highlight=False)
    with console.capture() as captured:
        for thing in things:
            console.print(thing)
    return captured.get()


def test_each_poll_is_recorded_by_its_phase(state):
    """An error that is not a refusal keeps the phase."""
    refusal, trouble = RateLimitedError(code=429), ServerError(code=500)
    for brought in (trouble, GENERATING, refusal, trouble, BROKEN, DRAWN):
        state.on_event(poll(brought))
    state.on_event(RetryScheduled(task_id="a", attempt=1, delay=0.1, error=trouble))
    cover = state.covers[0]
    assert cover.polls == [
        "submitted",
        "generating",
        "rate-limited",
        "rate-limited",
        "failed",
        "success",
    ]
    assert cover.phase == "success"


def test_failed_submit_is_an_end_and_news(state):
    """The cover has no task id."""
    state.end(state.covers[1], AuthenticationError(code=401))
    assert state.news == [(1.0, "cover 02 failed: AuthenticationError 401")]
    assert state.covers[1].as_json()["error"] == "AuthenticationError"
    assert state.covers[1].as_json()["seconds"] == 0


def test_tile_has_number_phase_time_and_polls(state, clock):
    """Below the tiles are the totals."""
    state.on_event(poll(GENERATING))
    state.on_event(
        RequestFinished(
            endpoint="generate",
            method="POST",
            attempt=1,
            http_status=200,
            task_id=None,
            queue_time=0.0,
            duration=0.1,
            error=None,
        )
    )
    clock.now += 2.5
    first, second, *rest = text(LiveView(state)).splitlines()[2:]
    assert first.split() == ["01", first.split()[1], "generating", "02", "·", "queued"]
    assert second.split() == ["2.5", "s", "•"]
    assert "0 of 2 covers  0 images  1 requests  3.5 s  each • is a poll" in map(str.rstrip, rest)


def test_pause_is_drawn_and_counted_down(state, clock):
    """The refusal is news."""
    state.on_event(
        RequestsPaused(kind="submits", seconds=1.5, error=RateLimitedError(code=429, task_id="a"))
    )
    clock.now += 1
    drawn = text(LiveView(state))
    assert "requests pause, 0.5 s more" in drawn
    assert "  1.0 s  cover 01 refused with a 429: all submits pause for 1.5 s" in drawn


@pytest.mark.parametrize(("width", "height", "lines"), [(80, 24, 20), (120, 40, 20), (30, 24, 59)])
def test_all_covers_fit_the_terminal(width, height, lines):
    """A tall terminal has blank lines between them."""
    drawn = text(
        LiveView(DemoState(COVERS, clock=Clock())), width=width, height=height
    ).splitlines()
    assert len(drawn) == lines
    assert max(map(len, drawn)) <= width


def test_report_has_ends_reasons_and_totals(state, clock):
    """The reasons stand below the table."""
    for brought in (GENERATING, DRAWN):
        state.on_event(poll(brought))
    clock.now += 4.2
    state.covers[0].images = (IMAGE, IMAGE)
    state.end(state.covers[0], DRAWN)
    state.end(state.covers[1], CoverFailedError(task_id="b", details=BROKEN))
    printed = text(*report(state, Path("here")))
    assert "01  ✓ success  4.2 s      2  2b7a50*" in printed
    assert "  5.2 s  cover 02 failed: no idea" in printed
    assert (
        "2 covers in 5.2 s: 1 done, 1 failed, 0 timed out.\n2 images, 3.0 MB, in the folder here\n"
        in printed
    )
    assert state.totals()["plain_polls"] == 9


@pytest.mark.parametrize(
    ("width", "lines", "covers_at_once"), [(80, 14, 2), (40, 26, 1), (25, 26, 1)]
)
def test_table_fits_its_terminal(width, lines, covers_at_once):
    """A narrow terminal has fewer covers per line, or fewer columns."""
    state = DemoState(COVERS, clock=Clock())
    for cover in state.covers:
        cover.images = (IMAGE, IMAGE)
        state.end(cover, CoverTimeoutError(polls=3, waited=8.5))
    table, *_ = report(state, Path("here"))
    drawn = text(table, width=width).splitlines()
    assert len(drawn) == lines
    assert max(map(len, drawn)) <= width
    assert sum(line.count("timed out  ") for line in drawn) == COVERS
    assert sum(line.count("2b7a50*") for line in drawn) == COVERS
    assert drawn[2].count("2b7a50*") == covers_at_once


def test_failure_without_a_message_is_news_with_its_state(state):
    """A timeout is news with its time."""
    silent = CoverDetails(task_id="a", success_flag=3)
    state.end(state.covers[0], CoverFailedError(details=silent))
    state.end(state.covers[1], CoverTimeoutError(polls=3, waited=8.5))
    assert [news for _, news in state.news] == [
        "cover 01 failed: GENERATE_COVER_FAILED",
        "cover 02 timed out: not done in 8.5 s",
    ]
