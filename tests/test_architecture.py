import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import kie_cover_async

PACKAGE = kie_cover_async.__name__
ROOT = Path(kie_cover_async.__path__[0])
MODULES = sorted(ROOT.rglob("*.py"))
NAMES = {module.relative_to(ROOT).parts[0].removesuffix(".py") for module in MODULES}

LAYERS = [
    row.split()
    for row in (
        "cli",
        "__init__",
        "jobs fleet",
        "client archive callbacks emulator testing",
        "polling bulk",
        "transport",
        "api retry rate_limiter settings inbox ledger",
        "models errors schedule events validation fair_queue cancel_scope descriptors _version",
    )
]
HEIGHT = {name: height for height, row in enumerate(reversed(LAYERS)) for name in row}

NEIGHBOURS = {
    ("settings", "api"),
    ("errors", "models"),
    ("events", "errors"),
    ("events", "models"),
    ("events", "validation"),
    ("validation", "errors"),
    ("schedule", "validation"),
    ("schedule", "models"),
}

# The first pattern that fits decides.
HOMES = {
    # The client's own and external ones; the emulator calls back with one of its own.
    r"aiohttp\.ClientSession": {"transport", "client", "settings", "cli", "emulator"},
    r"aiohttp\.web.*": {"callbacks", "emulator", "cli"},
    r"aiohttp\.(Http|hdrs).*": {"transport", "callbacks", "emulator"},
    r"aiohttp\..+": {"transport", "emulator"},
    r"cattrs?\..+": {"api"},
    r"orjson\..+": {"api"},
    r"backoff\..+": {"schedule", "retry"},
    r"hmac\..+": {"callbacks", "emulator"},  # each checks the other
    r"sqlite3\..+": {"archive"},
    r"(asyncpg|redis)\..+": {"fleet"},
    r"(typer|click|rich)\..+": {"cli"},
    r"_?pytest(_asyncio)?\..*": set(),  # the plugin is outside the package
}


def name_of(module: Path) -> str:
    """The module's name in the layers: a folder counts as the one module it grew out of."""
    return module.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[str]:
    """The full name of all that is imported; of a whole module, what is used of it."""
    folder = module.relative_to(ROOT.parent).parent.parts
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from uses(tree, alias)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            source = ".".join([*above, node.module] if node.module else above)
            yield from (f"{source}.{alias.name}" for alias in node.names)


def uses(tree: ast.Module, alias: ast.alias) -> Iterator[str]:
    """What is taken of a module imported whole, as `module.thing`."""
    yield f"{alias.name}."
    root = alias.name.partition(".")[0]
    known_as, source = (alias.asname, alias.name) if alias.asname else (root, root)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == known_as:
            yield f"{source}.{node.attr}"


def homes_of(imported: str) -> set[str]:
    """The names in the layers of the modules that may import it."""
    return next((homes for name, homes in HOMES.items() if re.fullmatch(name, imported)), NAMES)


def siblings(module: Path) -> set[str]:
    """The names in the layers of the other modules of the package that are imported."""
    inside = [name.split(".")[1] for name in imports(module) if name.startswith(f"{PACKAGE}.")]
    # What is no module is taken from the face of the package.
    return {name if name in NAMES else "__init__" for name in inside} - {name_of(module)}


@pytest.fixture(params=MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def module(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_every_module_has_a_place_in_the_layers(module):
    """Every module has a row in the layers."""
    assert name_of(module) in HEIGHT, "add it to LAYERS"


def test_imports_point_downwards(module):
    """A module imports from rows below its own, and in its row only from a named neighbour."""
    name = name_of(module)
    upwards = {
        other
        for other in siblings(module)
        if HEIGHT[other] >= HEIGHT[name] and (name, other) not in NEIGHBOURS
    }
    assert not upwards


def test_imports_within_a_row_are_used_and_acyclic():
    """Every exception in a row is used, and imports in a row have no cycle."""
    used = {(name_of(module), other) for module in MODULES for other in siblings(module)}
    assert used >= NEIGHBOURS
    graph: TopologicalSorter[str] = TopologicalSorter()
    for name, other in NEIGHBOURS:
        graph.add(name, other)
    graph.prepare()  # raises CycleError


def test_each_library_has_one_home(module):
    """A library with a home is imported there and nowhere else."""
    astray = [name for name in imports(module) if name_of(module) not in homes_of(name)]
    assert not astray


def test_the_emulator_is_independent():
    """The emulator imports nothing of the package that it tests."""
    emulator = [module for module in MODULES if name_of(module) == "emulator"]
    imported = set().union(*map(siblings, emulator))
    assert not imported


def test_importing_the_package_loads_no_more_than_the_client_needs():
    """Importing the package loads neither optional modules nor their libraries."""
    # Measuring coverage would load sqlite3 by itself.
    environment = {name: os.environ[name] for name in os.environ if "COVERAGE" not in name}
    script = f"import {PACKAGE}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert PACKAGE in loaded
    own_names = ("archive", "callbacks", "emulator", "fleet", "jobs", "testing", "cli")
    own_path = {f"{PACKAGE}.{name}" for name in own_names}
    libraries = {"aiohttp.web", "asyncpg", "click", "redis", "rich", "sqlite3", "typer"}
    too_much = (own_path | libraries).intersection(loaded)
    assert not too_much
