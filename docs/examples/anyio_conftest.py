"""A `conftest.py` for tests that anyio's plugin runs: all of them in instant time."""

import pytest

from kie_cover_async.testing import InstantTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": InstantTimeLoop}
