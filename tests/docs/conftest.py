import runpy
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kie_cover_async.emulator import CoverEmulator

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

Example = Callable[[str], dict[str, Any]]


@pytest.fixture
async def emulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CoverEmulator]:
    """An API that makes covers without delay, and an environment that points to it."""
    async with CoverEmulator(generation_time=0.0) as emulator:
        monkeypatch.setenv("KIE_API_KEY", "example-key")
        monkeypatch.setenv("KIE_BASE_URL", emulator.url)
        yield emulator


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Example:
    """Return a function that runs the file of an example and returns its names."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def example(name: str) -> dict[str, Any]:
        return runpy.run_path(str(EXAMPLES / name))

    return example
