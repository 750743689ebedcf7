"""The code blocks of the documentation, as a reader sees them and pastes them."""

import re
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(path for path in ROOT.glob("docs/**/*.md") if "_build" not in path.parts),
]

_BLOCK = re.compile(r"^( *)```(\S+)(?: (\S+))?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_OPTION = re.compile(r"^:([\w-]+): ?(.*)\n", re.MULTILINE)


@frozen
class Snippet:
    """A block of code on a page."""

    page: Path
    line: int
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def snippets(*languages: str) -> Iterator[Snippet]:
    """Yield all blocks in one of these languages, included files among them."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for block in _BLOCK.finditer(text):
            indent, language, argument, body = block.groups()
            line = text.count("\n", 0, block.start()) + 1
            if language == "{literalinclude}":
                options = dict(_OPTION.findall(body))
                language = options.pop("language")
                body = _included(page.parent / argument, options)
            code = re.sub(f"^{indent}", "", body, flags=re.MULTILINE)
            if language in languages:
                yield Snippet(page, line, language, code)


def _included(file: Path, options: dict[str, str]) -> str:
    """Return what Sphinx shows of a file with these options."""
    code = file.read_text("utf-8")
    start = options.pop("start-at", "").strip('"')
    options.pop("caption", None)
    assert not options, f"{file.name} is shown with {options}, which no test reads"
    return code[code.index(start) :]
