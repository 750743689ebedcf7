"""`collect` with a record that a disk or another program has damaged."""

import sqlite3
from contextlib import closing

import pytest

from kie_cover_async import CoverClient
from kie_cover_async.archive import CoverArchive
from kie_cover_async.cli.output import DONE, FAILED, USAGE
from kie_cover_async.emulator import CoverScript


def change(folder, statement):
    with closing(sqlite3.connect(folder / "covers.sqlite3")) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(statement)


@pytest.fixture
def collect(run, emulator, tmp_path):
    async def collect(*arguments):
        folder = str(tmp_path / "covers")
        return await run("collect", *arguments, "--out", folder, KIE_BASE_URL=emulator.url)

    return collect


@pytest.fixture
async def folder(emulator, tmp_path):
    """A folder with a cover that was saved."""
    job = emulator.add_job(CoverScript(statuses=["success"], images=2), task_id="an-id")
    client = CoverClient("a-key", base_url=emulator.url)
    async with client, CoverArchive(tmp_path / "covers") as archive:
        await archive.save(client, await client.get_cover_details(job))
    return archive.folder


ROW_CURE = "; copy the file, then correct or delete this row with an SQLite tool, or move it away: "
FILE_CURE = "; replace it with a backup, or recover it with an SQLite tool, or move it away: "
DAMAGES = {
    "state": ("UPDATE tasks SET state = 'odd'", "state of task 'an-id' is 'odd'", ROW_CURE),
    "no state": ("UPDATE tasks SET state = x'00'", "state of task 'an-id' is b", ROW_CURE),
    "details": ("UPDATE tasks SET details = '{'", "details of task 'an-id' is '{'", ROW_CURE),
    "name": ("UPDATE files SET name = '../x'", "name of task 'an-id' is '../x'", ROW_CURE),
    "size": ("UPDATE files SET size = -1", "size of task 'an-id' is -1", ROW_CURE),
    "bytes": ("UPDATE tasks SET error = CAST(x'ff' AS TEXT)", "error of task 'an-id'", ROW_CURE),
    "root": (
        "UPDATE sqlite_master SET rootpage = 2 WHERE name = 'files'",
        "malformed",
        FILE_CURE,
    ),
}


@pytest.mark.parametrize(("statement", "says", "cure"), DAMAGES.values(), ids=DAMAGES)
async def test_unreadable_record_is_one_line(collect, folder, statement, says, cure):
    """It names the file, the row and what to do."""
    change(folder, statement)
    ended = await collect("an-id")
    assert (ended.code, ended.out) == (FAILED, "")
    [line] = ended.err.splitlines()
    assert line.startswith(f"kie-cover: {folder / 'covers.sqlite3'} cannot be read as an archive's")
    assert says in line
    assert cure in line


@pytest.mark.parametrize("state", ["odd", "PENDING", ""])
async def test_unreadable_state_is_not_taken_for_nothing_pending(collect, folder, state):
    """The command fails."""
    change(folder, f"UPDATE tasks SET state = '{state}'")  # noqa: S608 - ours
    ended = await collect()
    assert ended.code == FAILED
    assert f"state of task 'an-id' is '{state}'" in ended.err
    assert "nothing is pending" not in ended.err


async def test_unreadable_schema_is_a_usage_error(collect, folder):
    """The message names the file."""
    change(folder, "UPDATE sqlite_master SET sql = CAST(x'4352ff' AS TEXT) WHERE name = 'tasks'")
    ended = await collect()
    assert (ended.code, ended.out) == (USAGE, "")
    assert f"{folder / 'covers.sqlite3'} cannot be read" in ended.usage_error
    assert "its schema is not UTF-8" + FILE_CURE in ended.usage_error


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM files", "DELETE FROM files WHERE number = 2", "UPDATE tasks SET details = NULL"],
)
async def test_saved_cover_without_its_rows_is_collected_again(
    collect, folder, emulator, statement
):
    """Its files are kept."""
    change(folder, statement)
    emulator.requests.clear()
    ended = await collect("an-id")
    assert ended.code == DONE
    assert [len(line["files"]) for line in ended.documents] == [2]
    assert [request.endpoint for request in emulator.requests] == ["record-info"]
    files = {path.name for path in folder.iterdir()}
    assert files == {".in-use", "an-id-1.png", "an-id-2.png", "covers.sqlite3"}
