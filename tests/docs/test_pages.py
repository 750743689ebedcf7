"""The pages: commands that exist, and a reference that is complete."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from support.documentation import PAGES, ROOT
from typer.main import get_command

import kie_cover_async
import kie_cover_async.archive
import kie_cover_async.callbacks
import kie_cover_async.emulator
from kie_cover_async import CoverClient, errors, events
from kie_cover_async.cli.app import app

BLOCK = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:^|[\s/`])kie-cover (?=[a-z-])(.*)")


def commands():
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.splitlines():
                if found := COMMAND.search(line):
                    yield pytest.param(found[1], id=f"{page.stem}: {found[1]}")


@pytest.mark.parametrize("typed", [*commands()])
def test_every_command_line_is_parsed(typed):
    """Every command on a page has options and arguments that the command accepts."""
    typed = re.split(r"\s(?:\||>|2>|#)", typed)[0]
    group = get_command(app)
    _, command, arguments = group.resolve_command(None, shlex.split(typed))
    command.make_context(command.name, arguments)


def test_every_command_has_a_row():
    """The table of commands is complete."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `kie-cover (\w+)", page, re.MULTILINE)
    assert sorted(rows) == sorted(get_command(app).commands)


def documented():
    """Yield every object that the reference documents, all of a module that it shows whole."""
    pages = (ROOT / "docs" / "reference").glob("*.md")
    reference = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    for name in re.findall(r"\.\. automodule:: (\S+)\n   :members:", reference):
        yield from vars(import_module(name)).values()
    for name in re.findall(r"\.\. auto(?:class|exception|function):: ([\w.]+)", reference):
        module, _, last = name.rpartition(".")
        yield getattr(import_module(module or "kie_cover_async"), last)


@pytest.mark.parametrize(
    "public",
    [
        *(getattr(kie_cover_async, name) for name in kie_cover_async.__all__ if name[0] != "_"),
        *(getattr(kie_cover_async.archive, name) for name in kie_cover_async.archive.__all__),
        *(getattr(kie_cover_async.callbacks, name) for name in kie_cover_async.callbacks.__all__),
        *(getattr(kie_cover_async.emulator, name) for name in kie_cover_async.emulator.__all__),
        *(
            each
            for each in vars(events).values()
            if getattr(each, "__module__", "") == events.__name__
        ),
    ],
    ids=lambda public: public.__name__,
)
def test_every_public_name_is_in_the_reference(public):
    """Every public name is on a page of the reference."""
    assert public in [*documented()]


def test_every_module_is_in_the_architecture():
    """The page on the architecture has a row for each module of the package."""
    package = Path(kie_cover_async.__path__[0])
    modules = {path.stem for path in package.iterdir() if not path.stem.startswith(("_", "py"))}
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    owners = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert owners == modules


def test_tree_of_errors_is_complete():
    """The tree on the page of errors has every class, and its notes are true."""

    def note(error):
        also = "".join(f"also a {base.__name__}" for base in error.__bases__[1:])
        return "transient" if error.transient else also

    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    tree = page.partition("```text\n")[2].partition("```")[0]
    shown = dict(re.findall(r"(\w+Error)(?: {2,}(.+))?$", tree, re.MULTILINE))
    assert shown == {name: note(getattr(errors, name)) for name in errors.__all__}


def logged():
    """Yield level and logger of every log call in the package."""
    package = Path(kie_cover_async.__path__[0])
    for module in package.rglob("*.py"):
        logger = ".".join(module.relative_to(package).with_suffix("").parts)
        calls = r"\b_?log\.(debug|info|warning|error|exception|log)\("
        for method in re.findall(calls, module.read_text(encoding="utf-8")):
            levels = {"log": ("INFO", "DEBUG"), "exception": ("ERROR",)}
            yield from ((level, logger) for level in levels.get(method, (method.upper(),)))


def test_every_logger_has_a_row():
    """The page on logging has a row for each level and logger."""
    page = (ROOT / "docs" / "logging.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z]+)` \|.*\| `([\w.]+)` \|$", page, re.MULTILINE)
    assert set(rows) == set(logged())


async def test_tutorial_shows_the_id_that_a_reader_gets(emulator):
    """The emulator gives the song of the tutorial the id that the page shows."""
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    shown = re.search(r"^ID=(\w+)$", tutorial, re.MULTILINE)
    async with CoverClient() as client:
        task_id = await client.generate_cover("my-song", callback_url="https://example.com/covers")
    assert shown
    assert task_id == shown[1]
