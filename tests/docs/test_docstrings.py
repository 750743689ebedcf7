"""The examples in the docstrings of public classes run and print what they show."""

import ast
import asyncio
import doctest
import inspect
import io
from contextlib import redirect_stdout

import pytest

import kie_cover_async
from kie_cover_async import (
    AdaptiveSchedule,
    CoverClient,
    ExponentialSchedule,
    RateLimiter,
    RetryPolicy,
)
from kie_cover_async.archive import CoverArchive
from kie_cover_async.callbacks import CallbackInbox
from kie_cover_async.emulator import CoverEmulator
from kie_cover_async.testing import InstantTimeLoop

CLASSES = [
    AdaptiveSchedule,
    CallbackInbox,
    CoverArchive,
    CoverClient,
    CoverEmulator,
    ExponentialSchedule,
    RateLimiter,
    RetryPolicy,
]
FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def instant_runner():
    with asyncio.Runner(loop_factory=InstantTimeLoop) as runner:
        yield runner


async def run_examples(examples, names, setenv):
    """Run examples as `python -m asyncio` does, and return what each prints."""
    async with CoverEmulator() as emulator:
        setenv("KIE_API_KEY", "emulated")
        setenv("KIE_BASE_URL", emulator.url)
        for task_id in ("first-cover", "second-cover"):
            emulator.add_job(task_id=task_id)
        printed = []
        for example in examples:
            code = compile(example.source, "<docstring>", "single", FLAGS, dont_inherit=True)
            with redirect_stdout(io.StringIO()) as output:
                if (coroutine := eval(code, names)) is not None:  # noqa: S307 - our own docstrings
                    await coroutine
            names.pop("_", None)
            printed.append(output.getvalue())
    return printed


@pytest.mark.parametrize("documented", CLASSES, ids=lambda documented: documented.__name__)
def test_example_prints_what_it_shows(documented, instant_runner, monkeypatch, tmp_path):
    """The docstring of a public class has an example; it runs and prints what it shows."""
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(documented))
    assert examples
    names = {name: getattr(kie_cover_async, name) for name in kie_cover_async.__all__}
    printed = instant_runner.run(run_examples(examples, names, monkeypatch.setenv))
    checker = doctest.OutputChecker()
    for example, got in zip(examples, printed, strict=True):
        assert checker.check_output(example.want, got, OPTIONS), (example.source, got)
