"""The tables of the record, and whether a database has them."""

import sqlite3
from contextlib import closing
from pathlib import Path

VERSION = 1

SCHEMA = f"""
CREATE TABLE tasks (
    place INTEGER PRIMARY KEY, task_id TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
    details TEXT, expires_at REAL, error TEXT, added_at REAL NOT NULL
);
CREATE TABLE files (
    task_id TEXT NOT NULL, number INTEGER NOT NULL, url TEXT NOT NULL, name TEXT NOT NULL,
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL,
    PRIMARY KEY (task_id, number)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION}
"""

# What a row of each is read as; somebody may have added columns of their own.
TASK = "task_id, state, details, expires_at, error, added_at"
FILE = "task_id, number, url, name, sha256, size, media_type, width, height"

_CURE = "give the archive another folder, or put a backup in its place"


def check_version(path: Path, version: int) -> None:
    """Raises `ValueError` for one that is not ours to read."""
    if version > VERSION:
        raise ValueError(
            f"{path} is a record of version {version}, and this release reads up to {VERSION}"
        )
    if version < 0:
        raise somebody_elses(path)


def check_tables(path: Path, connection: sqlite3.Connection) -> None:
    """Raises `ValueError` where they are not ours: programs number their versions alike."""
    for table, wanted in (("tasks", f"place, {TASK}"), ("files", FILE)):
        columns = {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}
        missing = [name for name in wanted.split(", ") if name not in columns]
        if missing:
            more = f", or damaged: {table} has no {', '.join(missing)}; {_CURE}"
            raise somebody_elses(path, more)


def check_integrity(path: Path) -> None:
    """Raise `sqlite3.DatabaseError` if pages of it contradict each other, which no row may tell."""
    with closing(sqlite3.connect(path)) as connection:
        [found] = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(found.split()))


def somebody_elses(path: Path, more: str = "") -> ValueError:
    """The refusal of a database that is not to be altered."""
    return ValueError(f"{path} is a database of somebody else's{more}")
