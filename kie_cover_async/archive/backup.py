"""A copy of the record, which SQLite makes while archives are in use."""

import asyncio
import os
import sqlite3
from contextlib import closing
from errno import EEXIST
from functools import partial
from pathlib import Path

from .files import sync_folder
from .parts import part_files
from .threads import Threads


async def back_up(record: Path, target: Path, threads: Threads) -> None:
    """Copy the record to a file that does not exist yet; it is there when all of it is.

    Raises `FileExistsError` if it does, and `OSError` naming both files if either cannot be used.
    """
    part = next(part_files(target.parent))
    try:
        await threads.begin(partial(part.keep_made, partial(_copy, record, target), target))
    except BaseException:
        # A thread may be at it still, and this comes after it, cancelled again or not.
        await asyncio.shield(threads.begin(part.discard))
        raise
    await threads.begin(partial(sync_folder, target.parent))


def _copy(record: Path, target: Path, part: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(EEXIST, "a backup does not replace a file", str(target))
    try:
        with closing(sqlite3.connect(record)) as source, closing(sqlite3.connect(part)) as copy:
            source.backup(copy)
            # The record's own mode needs two more files, and cannot be read from a read-only disk.
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise OSError(f"{record} cannot be copied to {target}: {error}") from error
