"""The two JSON parsers, and how to read with one of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kie_cover_async.api import responses
from kie_cover_async.api.responses import orjson_parser, parse_with_json

_PARSERS = {"json": parse_with_json, "orjson": orjson_parser()}

INSTALLED = [name for name, parse in _PARSERS.items() if parse]


@contextmanager
def parsed_by(name: str) -> Iterator[None]:
    """Read every body with this parser."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(responses, "parse_quickly", _PARSERS[name])
        yield
