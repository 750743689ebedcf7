"""What the README, CONTRIBUTING and the workflows claim about the project."""

import re
import tomllib

import pytest
from support.documentation import PAGES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CLASSIFIERS = PROJECT["project"]["classifiers"]
README = (ROOT / "README.md").read_text("utf-8")
PYTHONS = [line.rpartition(" ")[2] for line in CLASSIFIERS if re.search(r":: 3\.\d+$", line)]


def test_badges_are_true():
    """The badges show the versions of Python and the licence that the metadata names."""
    badges = re.findall(r"^!\[(.+?)\]\(https://img.*?/badge/(.+?)\)$", README, re.MULTILINE)
    assert badges == [
        (f"Python {PYTHONS[0]} to {PYTHONS[-1]}", f"python-{PYTHONS[0]}_to_{PYTHONS[-1]}-blue"),
        (f"License: {PROJECT['project']['license']}", "license-MIT-blue"),
    ]


def test_workflow_tests_every_supported_python():
    """The workflow for tests runs on every Python that the metadata names."""
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8")
    [matrix] = re.findall(r"^ +python: \[(.+)\]$", workflow, re.MULTILINE)
    assert re.findall(r"[\d.]+", matrix) == PYTHONS


def test_hooks_install_the_tools_of_the_lint_session():
    """The hooks of pre-commit name the same releases as the dependency group `lint`."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    named = re.findall(r'additional_dependencies: \["(.+)"\]', hooks)
    assert set(named) <= set(PROJECT["dependency-groups"]["lint"])


def test_every_workflow_is_checked_by_its_schema():
    """The session `lint` names every file below .github that has a schema."""
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    for path in (ROOT / ".github").rglob("*.yml"):
        assert f'"{path.stem}"' in noxfile or path.name in noxfile


def named_paths():
    for page in PAGES:
        text = page.read_text("utf-8")
        for path in sorted(set(re.findall(r"`((?:kie_cover_async|tests|docs)/[\w/.-]+)`", text))):
            if "_build" not in path:
                yield pytest.param(path, id=f"{page.stem}: {path}")


@pytest.mark.parametrize("path", [*named_paths()])
def test_named_path_exists(path):
    """Every file or folder that a page names is there."""
    assert (ROOT / path).exists()
