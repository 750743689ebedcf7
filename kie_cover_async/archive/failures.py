"""What SQLite raises, as errors that name the record's file and what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .files import UNOPENED_HINT

_ROW_CURE = "copy the file, then correct or delete this row with an SQLite tool"
_FILE_CURE = "put a backup in its place, or recover it with an SQLite tool"
_MOVE = (
    "or move it away: a new record takes over whole images as their covers are saved again, and "
    "lacks ids that only this one has"
)


class DamagedRecordError(ValueError):
    """The record of an archive cannot be read: the text names the file, the row and the cure."""


@contextmanager
def failures_of(path: Path) -> Iterator[None]:
    """Raise `OSError` or `DamagedRecordError` for what SQLite raises inside."""
    try:
        yield
    except sqlite3.OperationalError as error:
        hint = UNOPENED_HINT if "unable to open" in str(error) else ""
        raise OSError(f"the record {path} cannot be used: {error}{hint}") from error
    except sqlite3.DatabaseError as error:
        cure = _ROW_CURE if isinstance(error, sqlite3.DataError) else _FILE_CURE
        raise _damaged(path, error, cure) from error
    except UnicodeDecodeError as error:
        # SQLite quotes a damaged schema in its message, which Python then cannot read.
        raise _damaged(path, "its schema is not UTF-8", _FILE_CURE) from error


def _damaged(path: Path, reason: object, cure: str) -> DamagedRecordError:
    said = f"{path} cannot be read as an archive's record: {reason}"
    return DamagedRecordError(f"{said}; {cure}, {_MOVE}")
