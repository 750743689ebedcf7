"""The page on troubleshooting quotes messages that the package has."""

import ast
import re
from collections.abc import Iterator

import pytest
from support.documentation import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
QUOTED = [
    quoted
    for heading in re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    for quoted in re.findall(r"`([^`]+)`", heading)
    if " " in quoted and not quoted.startswith("kie-cover ")
]
PLACEHOLDER = re.compile(r"\0|; |%[-,.\d]*[sdrf]|\{\w+\}")


def texts() -> Iterator[str]:
    """Yield every text of the package, with a NUL for each formatted value."""
    for path in [*ROOT.glob("_kie_*.py"), *(ROOT / "kie_cover_async").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                yield "".join(part if isinstance(part, str) else "\0" for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.fixture(scope="module")
def package_texts() -> list[str]:
    return [*texts()]


@pytest.fixture(scope="module")
def phrases(package_texts) -> list[str]:
    """Return the literal parts of all texts that identify a message: those of two words or more."""
    parts = {part.strip(" ;:,.(") for text in package_texts for part in PLACEHOLDER.split(text)}
    return [part for part in parts if " " in part and len(part) > 6]


@pytest.mark.parametrize("quoted", QUOTED)
def test_quoted_message_exists(quoted, package_texts, phrases):
    """Each message in a heading has words that a text of the package has, too."""
    pieces = [piece.strip() for piece in re.split(r"…|: |; ", quoted)]
    assert any(phrase in quoted for phrase in phrases) or any(
        piece in text for piece in pieces if len(piece) > 9 for text in package_texts
    )


def test_every_entry_has_a_cause_and_a_remedy():
    """Each symptom is followed by its cause and by what to do."""
    for entry in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        assert entry.count("**Cause.**") == entry.count("**What to do.**") == 1
