from collections.abc import Iterator

import pytest

from kie_cover_async.api import responses


@pytest.fixture(scope="module", params=["json", "orjson"])
def parser(request: pytest.FixtureRequest) -> Iterator[str]:
    """Reads every body with `json`, and again with orjson if that is installed."""
    pytest.importorskip(request.param)
    parse = responses.orjson_parser() if request.param == "orjson" else responses.parse_with_json
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(responses, "parse_quickly", parse)
        yield request.param
