"""Count lines of code: without blanks, comments and docstrings.

`python tests/packaging/count_code.py PATH…` prints a line for each path, a file or a folder, and
their sum.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def code_lines(source: str) -> int:
    """Return how many lines have code on them."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines.difference(*docstrings(source)))


def docstrings(source: str) -> Iterator[range]:
    """Yield the lines of each docstring, and of each text that stands alone like one."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield range(node.lineno, (node.end_lineno or node.lineno) + 1)


def count(path: Path) -> int:
    """Return the lines of code of a file, or of all files of a folder."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return sum(code_lines(file.read_text(encoding="utf-8")) for file in files)


def main(paths: list[str]) -> None:
    counts = {path: count(Path(path)) for path in paths}
    for path, lines in counts.items():
        print(f"{lines:6,} {path}")
    print(f"{sum(counts.values()):6,} in all")


if __name__ == "__main__":
    main(sys.argv[1:])
