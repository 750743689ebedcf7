"""The pytest plugin: fixtures for an emulator, a client of it, and a clock that jumps.

It is outside the package and imports it only for a test that uses a fixture, so that other test
runs do not load it.
"""

import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from kie_cover_async import CoverClient
    from kie_cover_async.emulator import CoverEmulator
    from kie_cover_async.testing import InstantTimeLoop

_ANY_KEY = "a-key-for-tests"
_LOOPS = "_loops_of_pytest_asyncio"

_MARKERS = (
    "cover_emulator(**settings): the settings of the fixture's CoverEmulator",
    "cover_client(**settings): the settings of the fixture's CoverClient",
)
_NO_LOOP = (
    "{fixture} lives in the event loop of an async test, and this test has none; pytest-asyncio "
    'gives it one, from release 1.4 on (pip install "pytest-asyncio>=1.4"), if the test is '
    'marked with @pytest.mark.asyncio, or asyncio_mode is "auto"; so does the plugin of anyio'
)
_NOT_INSTANT = (
    "instant_time has to be an argument of the test, or of a fixture that is, and pytest-asyncio "
    'has to be 1.4 or newer (pip install "pytest-asyncio>=1.4"); with anyio\'s plugin, let '
    'anyio_backend return ("asyncio", {"loop_factory": kie_cover_async.testing.InstantTimeLoop})'
)


@pytest.fixture
def cover_route() -> str:
    """Return the route of the test's clients: that of KIE_ROUTE, or suno.

    Override it in a conftest, or parametrise it to run a test on both routes.
    """
    return os.environ.get("KIE_ROUTE") or "suno"


@pytest.fixture
def cover_emulator(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, cover_route: str
) -> "Iterator[CoverEmulator]":
    """Start a CoverEmulator with the settings of the marker of this name.

    KIE_BASE_URL and KIE_API_KEY point to it, and KIE_ROUTE is `cover_route`, for code that makes
    its own client.
    """
    from kie_cover_async.emulator import CoverEmulator

    loop = _loop_of(request)
    emulator = CoverEmulator(**_settings(request, "cover_emulator"))
    loop.run_until_complete(emulator.start())
    monkeypatch.setenv("KIE_BASE_URL", emulator.url)
    monkeypatch.setenv("KIE_API_KEY", _api_key(request))
    monkeypatch.setenv("KIE_ROUTE", cover_route)
    yield emulator
    loop.run_until_complete(emulator.aclose())


@pytest.fixture
def cover_client(
    request: pytest.FixtureRequest, cover_emulator: "CoverEmulator", cover_route: str
) -> "Iterator[CoverClient]":
    """Make a CoverClient of the emulator, with the settings of the marker of this name."""
    from kie_cover_async import CoverClient

    loop = _loop_of(request)
    defaults = {"api_key": _api_key(request), "base_url": cover_emulator.url}
    defaults["route"] = cover_route
    client = CoverClient(**{**defaults, **_settings(request, "cover_client")})
    yield client
    loop.run_until_complete(client.aclose())


@pytest.fixture
def instant_time(request: pytest.FixtureRequest) -> "Iterator[InstantTimeLoop]":
    """Return the test's loop, in which waiting takes no time; `random` is seeded."""
    from kie_cover_async.testing import InstantTimeLoop

    loop = _loop_of(request)
    if not isinstance(loop, InstantTimeLoop):
        pytest.fail(_NOT_INSTANT, pytrace=False)
    state = random.getstate()
    random.seed(0)
    yield loop
    random.setstate(state)


def _settings(request: pytest.FixtureRequest, marker: str) -> dict[str, Any]:
    """Return the settings of all markers; those nearest to the test override the others."""
    settings: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers(marker))):
        if mark.args:
            pytest.fail(f"the marker {marker} takes its settings by name", pytrace=False)
        settings.update(mark.kwargs)
    return settings


def _api_key(request: pytest.FixtureRequest) -> str:
    return _settings(request, "cover_emulator").get("api_key") or _ANY_KEY


def _loop_of(request: pytest.FixtureRequest) -> "AbstractEventLoop":
    """Return the loop that will run the test; it is not running yet."""
    if "anyio_backend" in request.fixturenames:
        runner = "anyio"
    elif _is_for_pytest_asyncio(request):
        runner = _loop_scope(request)
    else:
        pytest.fail(_NO_LOOP.format(fixture=request.fixturename), pytrace=False)
    loop: AbstractEventLoop = request.getfixturevalue(f"_loop_of_{runner}")
    return loop


def _is_for_pytest_asyncio(request: pytest.FixtureRequest) -> bool:
    if not request.config.pluginmanager.has_plugin(_LOOPS):
        return False
    from pytest_asyncio import is_async_test

    return is_async_test(request.node)


def _loop_scope(request: pytest.FixtureRequest) -> str:
    default = request.config.getini("asyncio_default_test_loop_scope")
    mark = request.node.get_closest_marker("asyncio")
    return str(mark.kwargs.get("loop_scope", default))


def _running_loop() -> "Callable[[], AsyncIterator[AbstractEventLoop]]":
    async def running_loop() -> "AsyncIterator[AbstractEventLoop]":
        import asyncio

        # Suspended until the end of the test: anyio closes a loop without tasks.
        yield asyncio.get_running_loop()

    return running_loop


_loop_of_anyio = pytest.fixture(_running_loop(), name="_loop_of_anyio")


def _loops_of_pytest_asyncio() -> ModuleType:
    """Return a plugin with a fixture for each scope that the loop of a test may have."""
    import pytest_asyncio

    loops = ModuleType(_LOOPS)
    for scope in ("function", "class", "module", "package", "session"):
        name = f"_loop_of_{scope}"
        loop = pytest_asyncio.fixture(_running_loop(), loop_scope=scope, name=name)
        setattr(loops, name, loop)
    return loops


class _InstantTime:
    """The plugin that is registered while a test with `instant_time` is collected."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_asyncio_loop_factories(self) -> Mapping[str, "Callable[[], AbstractEventLoop]"]:
        from kie_cover_async.testing import InstantTimeLoop

        return {"instant_time": InstantTimeLoop}


@pytest.hookimpl(hookwrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterator[None]:
    if "instant_time" not in metafunc.fixturenames:
        yield
        return
    # If it were always registered, pytest-asyncio would ask it for the loops of all tests.
    plugin = _InstantTime()
    metafunc.config.pluginmanager.register(plugin)
    yield
    metafunc.config.pluginmanager.unregister(plugin)


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    # Earlier releases of pytest-asyncio lack this hook and other features that are needed here.
    if hasattr(config.hook, "pytest_asyncio_loop_factories"):
        config.pluginmanager.register(_loops_of_pytest_asyncio())
