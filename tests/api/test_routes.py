"""The routes differ in `api` only: nothing above it asks which one a client uses."""

import ast
from pathlib import Path

import pytest

import kie_cover_async
from kie_cover_async.api import ROUTES

PACKAGE = Path(kie_cover_async.__path__[0])
# `settings` has the default. The emulator imports nothing of the package.
MAY_NAME_A_ROUTE = {"api", "emulator", "settings"}
MODULES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).with_suffix("").parts[0] not in MAY_NAME_A_ROUTE
]


def names_and_texts(path):
    """Yield every name and every text of a module."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        for field in ("id", "attr", "name", "value", "module"):
            if isinstance(text := getattr(node, field, None), str):
                yield text


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_module_above_the_rules_names_no_route(path):
    """It has no route's name, constant or file, so it cannot depend on which one is used."""
    known = {*ROUTES, *map(str.upper, ROUTES)}
    modules = {f"{package}api.{name}" for name in ROUTES for package in ("", "kie_cover_async.")}
    assert (known | modules).isdisjoint(names_and_texts(path))


def test_every_route_is_listed_by_its_name():
    """The name is that of the route's file, so that it can be found."""
    for name, route in ROUTES.items():
        assert route.name == name
        assert (PACKAGE / "api" / f"{name}.py").exists()
    assert repr(ROUTES["market"]) == "<Route market>"
