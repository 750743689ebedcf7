import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import _kie_cover_async_pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PLUGIN = _kie_cover_async_pytest.__name__
MODES = {
    "auto": ("asyncio_mode = auto", ""),
    "strict": ("", "pytestmark = pytest.mark.asyncio"),
    "anyio": ("", "pytestmark = pytest.mark.anyio"),
}


@pytest.fixture
def project(pytester):
    """Writes a user's project: the text as its tests, run in one of the modes."""

    def project(text: str, mode: str = "auto") -> pytest.Pytester:
        ini, mark = MODES[mode]
        settings = ["asyncio_default_fixture_loop_scope = function", "filterwarnings = error"]
        pytester.makeini("\n".join(["[pytest]", "addopts = --strict-markers", *settings, ini]))
        pytester.makepyfile(f"import asyncio\nimport os\nimport pytest\n{mark}\n{text}")
        if mode == "anyio":
            pytester.makeconftest((EXAMPLES / "anyio_conftest.py").read_text("utf-8"))
        return pytester

    return project


@pytest.fixture
def outcomes(project):
    """Runs the text as tests of a user."""
    return lambda *texts: project(*texts).runpytest_inprocess("-p", PLUGIN)


@pytest.mark.parametrize("mode", MODES)
def test_every_plugin_for_async_tests_works(outcomes, mode):
    """The fixtures run in the test's loop, whichever plugin runs it."""
    result = outcomes(
        """
async def test_a_cover_comes(cover_emulator, cover_client):
    task_id = cover_emulator.add_job("success")
    assert (await cover_client.wait_for_cover(task_id)).images

async def test_a_cover_comes_at_once(cover_client, cover_emulator, instant_time):
    assert asyncio.get_running_loop() is instant_time
    task_id = cover_emulator.add_job("pending, generating, 429, success")
    assert (await cover_client.wait_for_cover(task_id)).images
    assert instant_time.elapsed > 5
""",
        mode,
    )
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("scope", ["class", "module", "package", "session"])
def test_the_loop_may_be_shared(outcomes, scope):
    """The fixtures run in the test's loop, however many tests share it."""
    result = outcomes(f"""
@pytest.mark.asyncio(loop_scope="{scope}")
class TestTogether:
    loops = set()

    async def test_one(self, cover_emulator, cover_client, instant_time):
        task_id = cover_emulator.add_job("generating, success")
        assert (await cover_client.wait_for_cover(task_id)).images
        self.loops.add(asyncio.get_running_loop())

    async def test_other(self, cover_emulator, cover_client, instant_time):
        await self.test_one(cover_emulator, cover_client, instant_time)
        assert self.loops == {{instant_time}}
""")
    result.assert_outcomes(passed=2)


def test_markers_make_settings(outcomes):
    """Markers set the settings of both, and the nearest overrides the others."""
    result = outcomes("""
from kie_cover_async import AuthenticationError

pytestmark = pytest.mark.cover_emulator(credits=1.5, api_key="module-key")

async def test_module(cover_client):
    assert await cover_client.get_credits() == 1.5

@pytest.mark.cover_emulator(credits=2.5)
async def test_nearest(cover_client):
    assert await cover_client.get_credits() == 2.5
    assert os.environ["KIE_API_KEY"] == "module-key"

@pytest.mark.cover_client(api_key="another-key")
async def test_client(cover_client):
    with pytest.raises(AuthenticationError):
        await cover_client.get_credits()
""")
    result.assert_outcomes(passed=3)


def test_positional_settings_are_rejected(outcomes):
    """A marker with positional arguments fails the test."""
    result = outcomes("""
@pytest.mark.cover_emulator(47)
async def test_settings(cover_emulator):
    pass
""")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the marker cover_emulator takes its settings by name*"])


def test_the_environment_points_to_the_emulator(outcomes, monkeypatch):
    """A client that the code makes reaches the emulator, and the real key is replaced."""
    monkeypatch.setenv("KIE_API_KEY", "the-real-key")
    monkeypatch.setenv("KIE_BASE_URL", "https://real.example")
    result = outcomes("""
from kie_cover_async import CoverClient

async def test_own_client(cover_emulator):
    async with CoverClient() as client:
        await client.get_credits()
    [request] = cover_emulator.requests
    assert "the-real-key" not in request.headers["Authorization"]
""")
    result.assert_outcomes(passed=1)
    assert os.environ["KIE_API_KEY"] == "the-real-key"
    assert os.environ["KIE_BASE_URL"] == "https://real.example"


def test_route_is_a_fixture_to_parametrize(outcomes, monkeypatch):
    """It is the route of the client and of KIE_ROUTE, which is the default."""
    monkeypatch.setenv("KIE_ROUTE", "market")
    result = outcomes("""
from kie_cover_async import CoverClient

PATHS = {"suno": "/api/v1/suno/cover/record-info", "market": "/api/v1/jobs/recordInfo"}

async def test_default(cover_emulator, cover_client, cover_route):
    task_id = cover_emulator.add_job(age=10)
    async with CoverClient() as own:
        for client in (cover_client, own):
            assert (await client.get_cover_details(task_id)).images
    assert {request.path for request in cover_emulator.requests} == {PATHS[cover_route]}

@pytest.mark.parametrize("cover_route", PATHS)
async def test_both(cover_emulator, cover_client, cover_route):
    await test_default(cover_emulator, cover_client, cover_route)

def test_restored():
    assert os.environ["KIE_ROUTE"] == "market"
""")
    result.assert_outcomes(passed=4)


def test_both_are_closed_after_the_test(outcomes):
    """No connection and no client is left after the test."""
    result = outcomes("""
kept = []

async def test_use(cover_emulator, cover_client):
    await cover_client.get_credits()
    assert cover_emulator.open_connections
    kept.extend([cover_emulator, cover_client])

def test_closed():
    emulator, client = kept
    assert emulator.open_connections == 0
    assert repr(client).endswith("closed>")
""")
    result.assert_outcomes(passed=2)


def test_the_emulator_fixture_can_be_overridden(outcomes):
    """The client is one of an overriding `cover_emulator`."""
    result = outcomes("""
from kie_cover_async.emulator import CoverEmulator

@pytest.fixture
async def cover_emulator():
    async with CoverEmulator(credits=3.5) as emulator:
        yield emulator

async def test_client(cover_client):
    assert await cover_client.get_credits() == 3.5
""")
    result.assert_outcomes(passed=1)


def test_other_tests_keep_their_loops(outcomes):
    """A test without `instant_time` runs as without the plugin."""
    result = outcomes("""
from kie_cover_async.testing import InstantTimeLoop

async def test_instant(instant_time):
    pass

async def test_other(request):
    assert not isinstance(asyncio.get_running_loop(), InstantTimeLoop)
    assert not hasattr(request.node, "callspec")
""")
    result.assert_outcomes(passed=2)


def test_jitter_is_the_same_in_every_run(outcomes):
    """Tests in instant time draw the same random numbers, and others are not affected."""
    result = outcomes("""
import random

seen = []

@pytest.fixture
def other_numbers():
    random.seed()

@pytest.mark.parametrize("run", range(3))
@pytest.mark.cover_emulator(generation_time=100)
async def test_run(other_numbers, cover_emulator, cover_client, instant_time, run):
    await cover_client.wait_for_cover(cover_emulator.add_job())
    seen.append(round(instant_time.elapsed, 6))
    assert seen == (run + 1) * seen[:1]

def test_state():
    random.seed(1)
    test_state.next = random.Random(1).random()

async def test_instant(instant_time):
    random.random()

def test_undisturbed():
    assert random.random() == test_state.next
""")
    result.assert_outcomes(passed=6)


def test_a_test_without_a_loop_fails_with_a_hint(outcomes):
    """A plain test function that uses a fixture fails with a hint."""
    result = outcomes("""
def test_plain(cover_emulator):
    pass
""")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["cover_emulator lives in the event loop of an async test*"])


def test_without_a_plugin_for_async_tests_only_users_fail(project, monkeypatch):
    """Without such a plugin only tests with our fixtures fail, with an install hint."""
    tests = project(
        """
def test_plain():
    pass

async def test_async(cover_client):
    pass
""",
        "strict",
    )
    tests.makeini("[pytest]\nmarkers = asyncio")
    monkeypatch.setenv("PYTHONPATH", str(Path(_kie_cover_async_pytest.__file__).parent))
    result = tests.runpytest_subprocess("-p", PLUGIN, "-p", "no:asyncio", "-p", "no:anyio")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(['*pip install "pytest-asyncio>=1.4"*'])


def test_late_instant_time_fails_with_a_hint(outcomes):
    """Requesting `instant_time` after the loop was made fails with a hint."""
    result = outcomes("""
@pytest.fixture
def late(request):
    return request.getfixturevalue("instant_time")

async def test_late(late):
    pass
""")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["instant_time has to be an argument of the test*"])


def test_unused_fixtures_load_nothing():
    """Loading the plugin loads neither the package nor its dependencies."""
    # Measuring coverage would load more.
    environment = {name: os.environ[name] for name in os.environ if "COVERAGE" not in name}
    script = f"""
import pytest, sys
before = set(sys.modules)
import {PLUGIN}
print(*set(sys.modules) - before)
"""
    loaded = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert loaded == [PLUGIN]


def test_pytest_finds_the_plugin():
    """The entry point has the module's name, so `-p` and installation load it once."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [(name, value)] = project["entry-points"]["pytest11"].items()
    assert name == PLUGIN
    assert EntryPoint(name, value, "pytest11").load().__name__ == PLUGIN


def test_the_examples_pass(project):
    """The tests in the documentation pass, in little real time."""
    tests = project("")
    for name in ("cover_service.py", "test_cover_service.py", "test_first_cover.py"):
        (tests.path / name).write_text((EXAMPLES / name).read_text("utf-8"), "utf-8")
    tests.syspathinsert()
    tests.runpytest_inprocess("-p", PLUGIN).assert_outcomes(passed=7)
