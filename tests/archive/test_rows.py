"""Rows that another program or a broken disk has changed."""

import re
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.strategies import StoredRows

from kie_cover_async import CoverDetails, CoverFailedError, InvalidTaskIdError
from kie_cover_async.archive import DamagedRecordError

NAMES = (*StoredRows.TASKS, *StoredRows.FILES)
NAME = "an-id-1.png"


def write(archive, column, value):
    """Change the only row of a table as another program would, and return the old value."""
    table = "files" if column in StoredRows.FILES else "tasks"
    with closing(sqlite3.connect(archive.folder / "covers.sqlite3")) as connection, connection:
        old = connection.execute(f"SELECT {column} FROM {table}").fetchone()  # noqa: S608 - ours
        connection.execute(f"UPDATE {table} SET {column} = ?", (value,))  # noqa: S608 - ours
    return old[0]


DAMAGED = [
    ("task_id", "a b"),
    ("task_id", b"an-id"),
    ("state", "odd"),
    ("details", "no JSON"),
    ("details", "[" * 100_000),
    ("details", "[]"),
    ("details", '{"taskId": "another"}'),
    ("details", b"{}"),
    ("expires_at", "soon"),
    ("expires_at", 1e300),
    ("error", b"bytes"),
    ("added_at", "now"),
    ("added_at", float("inf")),
    ("number", 0),
    ("number", "x"),
    ("url", b"https://a/b"),
    ("name", "../an-id-1.png"),
    ("name", "/etc/passwd"),
    ("name", "an-id-2.png"),
    ("name", "an-id-1.jpg"),
    ("name", 5),
    ("sha256", "0" * 63),
    ("sha256", b"0"),
    ("size", -1),
    ("size", 1.5),
    ("media_type", "image/gif"),
    ("width", "wide"),
    ("height", b"high"),
]


@pytest.mark.parametrize(("column", "value"), DAMAGED)
async def test_an_unreadable_row_is_an_error_until_it_is_fixed(
    client, archive, cover, column, value
):
    """The error names the file, the task, the column and the cure."""
    details = await cover("an-id", images=1)
    saved = await archive.save(client, details)
    before = write(archive, column, value)
    file = re.escape(str(archive.folder / "covers.sqlite3"))
    says = f"^{file} cannot be read .*: {column} of task .*; copy the file, then correct or delete"
    with pytest.raises(DamagedRecordError, match=says):
        await archive.verify()
    with pytest.raises(DamagedRecordError, match=f"{column} of task"):
        await archive.export(archive.folder / "out.csv")
    write(archive, column, before)
    assert await archive.saved() == [saved] == [await archive.save(client, details)]


@pytest.mark.parametrize("state", ["odd", "", 5, b"pending", float("inf")])
async def test_no_list_omits_a_row_with_an_unreadable_state(archive, state):
    """Each list fails, and names the row."""
    await archive.add(["an-id"])
    before = write(archive, "state", state)
    lists = (archive.pending, archive.failed, archive.saved, archive.mark_pending)
    for listing in (*lists, lambda: archive.expiring(timedelta(days=99))):
        with pytest.raises(DamagedRecordError, match="state of task 'an-id' is"):
            await listing()
    write(archive, "state", before)
    assert [cover.task_id for cover in await archive.pending()] == ["an-id"]


@pytest.mark.parametrize("expires_at", ["soon", b"a day", 1e300, float("inf"), -1e300])
async def test_expiring_omits_no_row_with_an_unreadable_time(archive, expires_at):
    """The cover may be about to expire, so the list fails, and names the row."""
    await archive.add(["an-id"])
    write(archive, "expires_at", expires_at)
    with pytest.raises(DamagedRecordError, match="expires_at of task 'an-id' is"):
        await archive.expiring()


@pytest.mark.parametrize(("column", "text"), [("error", b"\xff"), ("details", b'{"a": "\xff"}')])
async def test_text_that_is_not_utf_8_is_an_error_that_names_the_row(archive, column, text):
    """SQLite stores such a text, and Python cannot decode it."""
    await archive.mark_failed("an-id", OSError("the disk is full"))
    with closing(sqlite3.connect(archive.folder / "covers.sqlite3")) as connection, connection:
        connection.execute(f"UPDATE tasks SET {column} = CAST(? AS TEXT)", (text,))  # noqa: S608 - ours
    with pytest.raises(DamagedRecordError, match=rf"{column} of task 'an-id' is b'.*\\xff"):
        await archive.failed()


@pytest.mark.parametrize("place", [0, -1, -(2**63) + 1])
async def test_rows_with_unusual_positions_are_listed(archive, place):
    """A list begins before any position that SQLite allows."""
    await archive.add(["an-id"])
    with closing(sqlite3.connect(archive.folder / "covers.sqlite3")) as connection, connection:
        connection.execute("UPDATE tasks SET place = ?", (place,))
    assert [cover.task_id for cover in await archive.pending()] == ["an-id"]


async def test_a_stored_error_does_not_keep_a_transaction_open(client, archive, cover, tmp_path):
    """While a caller keeps the error, the record can still be read as it is now, and written."""
    saved = await archive.save(client, await cover("an-id"))
    before = write(archive, "state", "odd")
    errors = []
    for reading in (
        lambda: archive.find("an-id"),
        archive.verify,
        lambda: archive.export(tmp_path / "a.jsonl"),
    ):
        with pytest.raises(ValueError, match="state of task 'an-id' is 'odd'") as caught:
            await reading()
        errors.append(caught.value)
    write(archive, "state", before)
    assert await archive.saved() == [saved]
    assert await archive.add(["another"]) == ["another"]
    assert len(errors) == 3


async def test_an_export_that_fails_keeps_the_old_file(archive, tmp_path, small_disk):
    """If the disk fails in the middle of an export, no other file is left, and the record can be
    written afterwards."""
    await archive.add(f"{number:032}" for number in range(1001))
    (tmp_path / "out.jsonl").write_text("old")
    with small_disk(), pytest.raises(OSError, match="File too large") as caught:
        await archive.export(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"covers", "out.jsonl"}
    assert await archive.add(["a"]) == ["a"]
    assert caught.value.__traceback__ is not None


async def test_lone_surrogates_are_stored_and_exported(client, archive, cover, tmp_path):
    """SQLite takes no lone surrogates, but JSON may hold them."""
    details = await cover("an-id")
    odd = CoverDetails(
        task_id="an-id",
        success_flag=1,
        response=details.response,
        callback_url='"\\\udc80\\ud800"',
        parent_task_id="\ud800",
    )
    saved = await archive.save(client, odd)
    assert saved.details == odd
    assert await archive.find("an-id") == saved
    assert await archive.export(tmp_path / "out.jsonl") == 1
    assert '"\\ud800"' in (tmp_path / "out.jsonl").read_text("utf-8")
    await archive.mark_failed("another", OSError("no such file: \udc80"))
    assert (await archive.find("another")).error == "OSError: no such file: \\udc80"


@pytest.mark.parametrize("task_id", ["", "a b", "\ud800", 5, None])
async def test_a_cover_with_an_invalid_id_is_not_saved(client, archive, cover, task_id):
    """The id is refused before anything is recorded."""
    response = (await cover()).response
    odd = CoverDetails(task_id=task_id, success_flag=1, response=response)
    with pytest.raises(InvalidTaskIdError, match=r"details\.task_id must be"):
        await archive.save(client, odd)
    assert await archive.pending() == []


async def test_details_of_another_cover_are_not_recorded(archive):
    """Only the error of the cover itself is recorded."""
    error = CoverFailedError(details=CoverDetails(task_id="another", success_flag=3))
    await archive.mark_failed("an-id", error)
    assert [(each.task_id, each.details) for each in await archive.failed()] == [("an-id", None)]
    assert await archive.find("another") is None


texts = st.text(st.characters(exclude_categories=[]), max_size=20) | st.sampled_from(
    ["saved", "image/png", NAME, "0" * 64, '{"taskId":"an-id"}', "[", '{"taskId":"an-id",']
)
values = st.none() | st.integers() | st.floats() | texts | st.binary(max_size=20)


@pytest.fixture(scope="module")
def stored_rows(tmp_path_factory):
    rows = StoredRows(tmp_path_factory.mktemp("covers"))
    yield rows
    rows.database.close()


@given(columns=st.dictionaries(st.sampled_from(NAMES), values, max_size=3))
@example(columns={"added_at": 2**62, "number": -(2**70), "error": "\ud800"})
@example(columns={"details": b"\xff", "url": 5})
def test_any_row_is_a_cover_or_an_error(stored_rows, columns):
    """Whatever the columns hold, reading returns a cover or raises an error that names the file."""
    stored_rows.check(columns)
