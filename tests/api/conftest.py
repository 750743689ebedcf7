from collections.abc import Iterator

import pytest
from support.parsers import parsed_by


@pytest.fixture(scope="module", params=["json", "orjson"])
def parser(request: pytest.FixtureRequest) -> Iterator[str]:
    """Reads every body with `json`, and again with orjson if that is installed."""
    pytest.importorskip(request.param)
    with parsed_by(request.param):
        yield request.param
