"""Every code block of the documentation runs when it is pasted."""

import ast
import asyncio
import logging
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Coroutine, Iterator
from inspect import CO_COROUTINE
from itertools import takewhile
from pathlib import Path
from types import CodeType
from typing import Any, Self, TypeVar

import pytest
from support.documentation import ROOT, Snippet, snippets

from kie_cover_async.emulator import CoverEmulator
from kie_cover_async.testing import InstantTimeLoop

T = TypeVar("T")
BASH = shutil.which("bash") or "/bin/sh"
BARE_NAME = re.compile(r"(?<![/\w])kie[-_]cover[-_]async(\[[a-z,]+\])?['\"]?( |$)")
EXAMPLES = ROOT / "docs" / "examples"
PYTHON = [*snippets("python")]
SHELL = [*snippets("sh", "bash", "console")]
TEST = re.compile(r"^(?:async )?def test_", re.MULTILINE)
TESTS = [snippet for snippet in PYTHON if TEST.search(snippet.code)]
SCRIPTS = [snippet for snippet in PYTHON if snippet not in TESTS]


def compiled(snippet: Snippet) -> CodeType:
    """Compile a snippet as `python -m asyncio` and Jupyter do: `await` may stand at top level."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compile(snippet.code, snippet.name, "exec", flags, dont_inherit=True)


class EmulatorThread:
    """An emulator in another thread, for scripts that call `asyncio.run` themselves."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self.emulator = CoverEmulator(generation_time=0.0)
        self._run(self.emulator.start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.emulator.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.close()

    def add_job(self) -> str:
        async def add_job() -> str:
            return self.emulator.add_job()

        return self._run(add_job())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


@pytest.fixture
def emulator_thread() -> Iterator[EmulatorThread]:
    with EmulatorThread() as thread:
        yield thread


@pytest.fixture
def pasted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty folder and the environment that the pages ask the reader to set."""
    log = logging.getLogger("kie_cover_async")
    level = log.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("KIE_API_KEY", "emulated")
    monkeypatch.setenv("KIE_CALLBACK_KEY", "a-webhook-key")
    monkeypatch.setenv("CALLBACK_URL", "https://covers.example.com/callbacks/secret")
    yield
    log.setLevel(level)


def arguments(snippet: Snippet, thread: EmulatorThread, folder: Path) -> list[str]:
    """Return what the snippet's own usage line asks for."""
    usage = re.search(r'"usage: python \S+ (.+)"', snippet.code)
    values = {
        "TASK_ID": thread.add_job,
        "SONG": lambda: "a-song",
        "FOLDER": lambda: str(folder / "covers"),
        "FILE": lambda: str(folder / "file"),
        "TABLE": lambda: str(folder / "table.csv"),
    }
    names = re.findall(r"[A-Z_]+", usage[1]) if usage else []
    return [values[name]() for name in names]


@pytest.mark.parametrize("snippet", SCRIPTS, ids=lambda snippet: snippet.name)
def test_snippet_runs_when_pasted(snippet, emulator_thread, pasted, monkeypatch, tmp_path):
    """A Python block of any page runs in an empty folder, from its first line to its last."""
    code = compiled(snippet)
    # A server runs until it is stopped, or is needed; the tests of these start them.
    needs_server = re.search(r"run_app\(|PostgresLedger\(", snippet.code)
    name = "pasted" if needs_server else "__main__"
    namespace = {"__name__": name}
    if code.co_flags & CO_COROUTINE:
        with asyncio.Runner(loop_factory=InstantTimeLoop) as runner:
            runner.run(at_top_level(code, namespace, monkeypatch))
        return
    monkeypatch.setenv("KIE_BASE_URL", emulator_thread.emulator.url)
    given = arguments(snippet, emulator_thread, tmp_path)
    monkeypatch.setattr(sys, "argv", [snippet.name, *given])
    exec(code, namespace)  # noqa: S102 - that is what pasting does


async def at_top_level(
    code: CodeType, namespace: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a snippet that awaits at top level, with an emulator in the same instant time."""
    async with CoverEmulator() as emulator:
        monkeypatch.setenv("KIE_BASE_URL", emulator.url)
        for name in ("first", "second", "third"):
            emulator.add_job(task_id=f"{name}-cover")
        await eval(code, namespace)  # noqa: S307 - likewise


def test_tests_pass_when_pasted(pasted, pytester):
    """The tests that pages show pass in a project that is set up as the page says."""
    for number, snippet in enumerate(TESTS):
        (pytester.path / f"test_{number}.py").write_text(snippet.code, "utf-8")
    [settings] = [block.code for block in snippets("toml") if "pytest" in block.code]
    pytester.makepyprojecttoml(settings)
    written = sum(snippet.code.count("def test_") for snippet in TESTS)
    pytester.runpytest_inprocess("-p", "_kie_cover_async_pytest").assert_outcomes(passed=written)


@pytest.mark.parametrize("snippet", SHELL, ids=lambda snippet: snippet.name)
def test_shell_block_is_understood(snippet):
    """A shell block has no syntax error and names only files, sessions and extras that exist."""
    parsed = subprocess.run([BASH, "-n"], input=snippet.code, text=True, check=False)
    assert parsed.returncode == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    sessions = re.findall(r"^def (\w+)\(session", noxfile, re.MULTILINE)
    for line in snippet.code.splitlines():
        words = shlex.split(line, comments=True)
        for word in words:
            if word.startswith(("docs/", "tests/")):
                assert (ROOT / word.partition("::")[0]).exists(), word
            for extra in re.findall(r"\[([a-z,]+)\]", word):
                assert set(extra.split(",")) <= set(extras)
        if words and words[0].endswith("nox"):
            named = words[words.index("--sessions") + 1 :]
            assert set(takewhile("--".__ne__, named)) <= set(sessions)


def test_no_block_installs_the_package_by_its_bare_name():
    """The package is on no index yet, so pip cannot find it by its name."""
    for snippet in SHELL:
        for line in snippet.code.splitlines():
            if re.search(r"\b(pip install|uv add|uv pip install)\b", line):
                assert not BARE_NAME.search(line), line
