"""The prose of pages, docstrings, comments and messages avoids phrases that read badly."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from support.documentation import ROOT

# Each pattern with what to write instead. They are matched without regard to case.
PATTERNS = {
    r"\bat once\b": "immediately; or: at the same time",
    r"\banew\b": "again",
    r"\bonce more\b": "again",
    r"\bfor ever\b": "forever",
    r"\bin (?:the|its|their) place\b": "instead; instead of",
    r"\bbeside\b": "next to; in addition to",
    r"\bupon (?:which|that|this|it)\b": "then",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\bwhoever\b": "the caller; a client",
    r"\b(?:nobody|somebody|anybody|everybody)\b": "no caller; a caller; another process; a client",
    r"\bis (?:no|none) (?:better|worse|more|less)\b": "the affirmative",
    r"\bthat (?:is|are) (?:no|none)\b": "that is not a …",
    r"\bit is (?:no(?! longer)|none)\b": "it is not a …",
    r"\b(?:is|are|was|were) to be\b": "must be; will be",
    r"\b(?:is|are) not to\b": "must not",
    r"\bhears?\b": "receives",
    r"\bheard of\b": "received; known",
    r"\b(?:hurry|hurries|hurried)\b": "prioritize",
    r"\bpatien(?:t|ce) with\b": "name the timeout",
    r"\b(?:has|have) a say in\b": "decides",
    r"\b(?:has|have) it that\b": "says that",
    r"\blie(?:s)? about\b": "is not used",
    r"\bgoes by\b": "uses; follows",
    r"\bis told of\b": "is notified of; is reported",
    r"\btell(?:s)? (?:the|a|an|its|their) (?:wait|waits|client|other)\b": "notifies",
    r"\bas ever\b": "as before; as always",
    r"\bof (?:its|their) own accord\b": "automatically",
}
FORBIDDEN = re.compile("|".join(f"(?P<p{n}>{p})" for n, p in enumerate(PATTERNS)), re.IGNORECASE)


@frozen
class Passage:
    """A piece of prose and the line on which it begins."""

    line: int
    text: str


def prose_of(path: Path) -> Iterator[Passage]:
    """Yield what a reader reads in a file: pages without code, docstrings, comments, messages."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        # Blanks instead of code keep the lines where they are.
        blank = re.sub(r"^```.*?^```$|`[^`\n]*`", _blank, text, flags=re.DOTALL | re.MULTILINE)
        yield Passage(1, blank)
    elif path.suffix == ".py":
        yield from _prose_of_python(text)
    else:
        for number, line in enumerate(text.splitlines(), 1):
            yield Passage(number, line.partition("#")[2])


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _prose_of_python(text: str) -> Iterator[Passage]:
    for node in ast.walk(ast.parse(text)):
        # A message is a text with blanks in it; a name or a path has none.
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield Passage(node.lineno, re.sub(r"`[^`]*`", _blank, node.value))
    comments = [
        token
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    # Comments on consecutive lines are one passage, since a phrase may be broken between them.
    previous = None
    passage: list[str] = []
    for token in comments:
        line = token.start[0]
        if previous is not None and line != previous + 1:
            yield Passage(previous - len(passage) + 1, "\n".join(passage))
            passage = []
        passage.append(token.string.lstrip("# "))
        previous = line
    if previous is not None:
        yield Passage(previous - len(passage) + 1, "\n".join(passage))


def files() -> Iterator[Path]:
    """Yield every page, and every Python file of the package, the examples and the tests."""
    for pattern in ("*.md", "*.py", "pyproject.toml", "docs/**/*.md", "docs/**/*.py"):
        yield from sorted(ROOT.glob(pattern))
    for folder in ("kie_cover_async", "tests"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def is_checked(path: Path) -> bool:
    return "_build" not in path.parts and path != Path(__file__)


def faults(path: Path) -> list[str]:
    """Return each bad phrase of a file, with its line and what to write instead."""
    instead, found = list(PATTERNS.values()), []
    for passage in prose_of(path):
        for match in FORBIDDEN.finditer(passage.text.replace("\n", " ")):
            line = passage.line + passage.text.count("\n", 0, match.start())
            found.append(f"{line}: {match[0]!r}; write {instead[int(match.lastgroup[1:])]!r}")
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in files() if is_checked(path)],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_prose_is_plain(path):
    """No page, docstring, comment or message of this file has one of the patterns."""
    assert faults(path) == []


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("page.md", "# Title\n\nA wait that is called\npolls at\nonce.\n", 4),
        ("module.py", '"""A summary.\n\nIt polls at\nonce."""\n', 3),
        ("module.py", "# The caller\n# polls at\n# once.\nvalue = 1\n# Another comment\n", 2),
        ("module.py", 'raise ValueError("call it at once")\n', 1),
        ("pyproject.toml", "[project]\n# called at once\n", 2),
    ],
    ids=["page", "docstring", "comment", "message", "toml"],
)
def test_bad_phrase_is_found(name, text, line, tmp_path):
    """A phrase is found in every kind of prose, also across a line break."""
    path = tmp_path / name
    path.write_text(text, "utf-8")
    found = [f"{line}: 'at once'; write 'immediately; or: at the same time'"]
    assert faults(path) == found


def test_code_is_not_prose(tmp_path):
    """Code on a page, in single backticks or in a block, is not checked."""
    page = tmp_path / "page.md"
    page.write_text("The field `at once`:\n\n```text\nat once\n```\n", "utf-8")
    assert faults(page) == []
