"""The record: its lists, exports and checks, and what opening it refuses."""

import csv
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from kie_cover_async import (
    CoverDetails,
    CoverFailedError,
    CoverResponse,
    CoverTimeoutError,
    DownloadError,
    InvalidTaskIdError,
    structure_details,
)
from kie_cover_async.archive import CoverArchive, DamagedRecordError, VerificationReport
from kie_cover_async.emulator import Fault

NOW = datetime.now(UTC)


def ids(covers):
    return [cover.task_id for cover in covers]


async def test_added_ids_are_pending_after_a_restart(opened):
    """`add` returns the new ids in order."""
    archive = await opened()
    assert await archive.add(["b", "a", "b"]) == ["b", "a"]
    assert await archive.add(task_id for task_id in ("c", "a")) == ["c"]
    await archive.aclose()
    pending = await (await opened()).pending()
    assert ids(pending) == ["b", "a", "c"]
    assert all((each.details, each.images, each.error) == (None, (), None) for each in pending)
    assert all(abs(each.added_at - NOW) < timedelta(hours=1) for each in pending)


@pytest.mark.parametrize(
    ("given", "error"),
    [("an-id", TypeError), (b"an-id", TypeError), (7, TypeError), (["ok", ""], InvalidTaskIdError)],
    ids=["a text", "bytes", "a number", "an invalid id"],
)
async def test_invalid_ids_are_rejected(archive, given, error):
    """The error names the argument, and nothing is added."""
    with pytest.raises(error, match="task_ids must be"):
        await archive.add(given)
    with pytest.raises(error, match="task_ids must be"):
        await archive.mark_pending(given)
    assert await archive.pending() == []


async def test_adding_ids_on_a_full_disk(archive, small_disk):
    """The error says what the disk said, nothing is added, and the archive continues."""
    full = pytest.raises(OSError, match=r"covers\.sqlite3 cannot be used: (disk|database)")
    with small_disk(), full:
        await archive.add(f"{number:032}" for number in range(20_000))
    assert await archive.pending() == []
    assert await archive.add(["a"]) == ["a"]


async def test_an_unknown_id_is_not_found(archive):
    """An id that was never added yields `None`; an invalid one is an error."""
    assert await archive.find("unknown") is None
    with pytest.raises(InvalidTaskIdError):
        await archive.find("")


async def test_a_failed_cover_can_become_pending_again(client, archive, cover):
    """A failed cover has its error; `mark_pending` clears it, and the cover can be saved."""
    details = await cover("b")
    await archive.add(["a", "b", "c"])
    await archive.mark_failed("a", DownloadError(reason="gone"))
    await archive.mark_failed("b", OSError("the disk is full"))
    await archive.mark_failed(
        "new", CoverFailedError(details=CoverDetails(task_id="new", success_flag=3))
    )
    assert ids(await archive.pending()) == ["c"]
    first, second, third = await archive.failed()
    assert first.error == "DownloadError: image not saved: gone"
    assert second.error == "OSError: the disk is full"
    assert third.details.success_flag == 3
    assert await archive.mark_pending(["a", "c", "unknown"]) == ["a"]
    assert await archive.mark_pending() == ["b", "new"]
    assert await archive.mark_pending() == []
    assert ids(await archive.pending()) == ["a", "b", "c", "new"]
    assert all(each.error is None for each in await archive.pending())
    await archive.save(client, details)
    assert ids(await archive.saved()) == ["b"]
    assert await archive.mark_pending(["b"]) == ["b"]


async def test_saving_a_failed_cover_clears_its_error(client, archive, cover):
    """A cover that failed and is saved later is saved."""
    details = await cover("a")
    await archive.mark_failed("a", DownloadError(reason="gone"))
    assert (await archive.save(client, details)).error is None
    assert await archive.failed() == []


async def test_a_saved_cover_cannot_be_marked_failed(client, archive, opened, cover):
    """A cover that another archive saved meanwhile stays saved."""
    saved = await archive.save(client, await cover("a"))
    late = CoverTimeoutError(
        task_id="a", polls=1, waited=1.0, details=CoverDetails(task_id="a", success_flag=2)
    )
    await (await opened()).mark_failed("a", late)
    assert await archive.find("a") == saved


@pytest.mark.parametrize(
    ("task_id", "error", "says"),
    [("", OSError(), "task_id"), ("a", "gone", "error"), ("a", KeyboardInterrupt(), "error")],
    ids=["no id", "a text", "an exit"],
)
async def test_invalid_arguments_of_mark_failed(archive, task_id, error, says):
    """The error names the argument."""
    with pytest.raises((TypeError, ValueError), match=f"^{says} must be"):
        await archive.mark_failed(task_id, error)


def finished(task_id, ago, url="https://10.0.0.1/a.png"):
    """Return a cover that was completed this long ago, whose image cannot be fetched."""
    response = CoverResponse(images=(url,))
    return CoverDetails(task_id=task_id, success_flag=1, response=response, complete_time=NOW - ago)


async def test_expiring_covers_are_listed_by_urgency(client, archive):
    """Covers that are not saved and expire soon, or have expired, come first."""
    await archive.add(["unknown"])
    for task_id, days in [("soon", 12), ("later", 5), ("gone", 15), ("sooner", 13)]:
        with pytest.raises(DownloadError):
            await archive.save(client, finished(task_id, timedelta(days=days)))
    await archive.mark_failed("sooner", DownloadError(reason="no public address"))
    await archive.mark_failed("never", CoverFailedError(details=CoverDetails(task_id="never")))
    expiring = await archive.expiring()
    assert ids(expiring) == ["gone", "sooner", "soon"]
    assert abs(expiring[2].expires_at - NOW - timedelta(days=2)) < timedelta(seconds=1)
    assert ids(await archive.expiring(within=timedelta(0))) == ["gone"]
    assert ids(await archive.expiring(timedelta(days=10)))[-1] == "later"
    assert ids(await archive.expiring(timedelta(days=15)))[-1] == "unknown"
    with pytest.raises(TypeError, match="within must be a timedelta"):
        await archive.expiring(3)


@pytest.mark.usefixtures("route")
async def test_saved_covers_do_not_expire(client, archive, cover):
    """A saved cover is never listed as expiring."""
    await archive.save(client, await cover())
    assert await archive.expiring(timedelta(days=30)) == []


async def test_verify_reports_missing_and_altered_images(client, archive, cover):
    """All images are read, and nothing is changed."""
    assert await archive.verify() == VerificationReport(checked=0, findings=())
    saved = [await archive.save(client, await cover(task_id)) for task_id in ("a", "b", "c")]
    assert await archive.verify() == VerificationReport(checked=6, findings=())
    saved[0].images[1].path.unlink()
    saved[2].images[0].path.write_bytes(b"other")
    report = await archive.verify()
    assert not report.ok
    assert report.checked == 6
    assert [(each.task_id, each.image, each.problem) for each in report.findings] == [
        ("a", saved[0].images[1], "missing"),
        ("c", saved[2].images[0], "altered"),
    ]
    assert await archive.verify() == report


async def test_verify_reports_unreadable_images(client, archive, cover):
    """The other images are verified, and `save` replaces unreadable ones."""
    covers = [await cover(task_id, images=1) for task_id in ("a", "b", "c", "d", "e")]
    saved = [await archive.save(client, each) for each in covers]
    first, second, third, fourth, fifth = (each.images[0] for each in saved)
    for image in (first, second, third, fourth):
        image.path.unlink()
    first.path.mkdir()
    second.path.symlink_to(second.path)
    os.mkfifo(third.path)
    fourth.path.symlink_to("/dev/zero")
    fifth.path.write_bytes(b"other")
    report = await archive.verify()
    assert report.checked == 5
    assert [(each.task_id, each.problem) for each in report.findings] == [
        ("a", "unreadable"),
        ("b", "unreadable"),
        ("c", "unreadable"),
        ("d", "unreadable"),
        ("e", "altered"),
    ]
    first.path.rmdir()
    for details in covers:
        await archive.save(client, details)
    assert (await archive.verify()).ok


async def test_verify_reads_several_pages(client, archive, cover, monkeypatch):
    """Each image is read once."""
    monkeypatch.setattr("kie_cover_async.archive.archive._VERIFIED_PER_PAGE", 2)
    for _ in range(3):
        await archive.save(client, await cover(images=1))
    assert (await archive.verify()).checked == 3


@pytest.mark.usefixtures("route")
async def test_an_export_as_json_lines(client, archive, cover, tmp_path):
    """Each cover has a line with everything that is known of it."""
    saved = await archive.save(client, await cover("a"))
    await archive.mark_failed("b", DownloadError(reason="gone"))
    path = tmp_path / "covers.jsonl"
    assert await archive.export(path) == 2
    first, second = map(json.loads, path.read_text("utf-8").splitlines())
    assert structure_details(first["details"]) == saved.details
    assert first["state"] == "saved"
    assert datetime.fromisoformat(first["expires_at"]) == saved.expires_at.replace(microsecond=0)
    assert [image["file"] for image in first["images"]] == ["a-1.png", "a-2.png"]
    assert first["images"][0]["sha256"] == saved.images[0].sha256
    assert (second["task_id"], second["details"], second["images"]) == ("b", None, [])
    assert second["error"] == "DownloadError: image not saved: gone"


async def test_an_export_as_csv(client, archive, cover, tmp_path):
    """Each image has a row, and so has a cover without images."""
    await archive.save(client, await cover("a"))
    await archive.add(["b"])
    path = tmp_path / "covers.CSV"
    assert await archive.export(str(path)) == 2
    with path.open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [(row["task_id"], row["number"], row["file"]) for row in rows] == [
        ("a", "1", "a-1.png"),
        ("a", "2", "a-2.png"),
        ("b", "", ""),
    ]


FORMULAS = ["=1+1", "+1", "-1", "@SUM(1)", '=HYPERLINK("http://x")', "'=1", "''"]


async def test_csv_cells_are_not_formulas(archive, tmp_path):
    """An apostrophe precedes a text that a spreadsheet would evaluate; the rest is unchanged."""
    await archive.add([*FORMULAS, "1+1", "a='"])
    await archive.export(tmp_path / "covers.csv")
    with (tmp_path / "covers.csv").open(encoding="utf-8", newline="") as file:
        ids = [row["task_id"] for row in csv.DictReader(file)]
    assert ids == [*(f"'{formula}" for formula in FORMULAS), "1+1", "a='"]
    await archive.export(tmp_path / "covers.jsonl")
    lines = (tmp_path / "covers.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["task_id"] for line in lines] == [*FORMULAS, "1+1", "a='"]


async def test_csv_file_names_are_not_formulas(client, archive, cover, tmp_path):
    """The file names of an unsafe id begin with a plus."""
    saved = await archive.save(client, await cover("=1+1", images=1))
    await archive.export(tmp_path / "covers.csv")
    with (tmp_path / "covers.csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert row["file"] == f"'{saved.images[0].path.name}"
    assert (row["number"], row["url"]) == ("1", saved.images[0].url)


async def test_lone_surrogates_are_kept(archive, client, cover, tmp_path):
    """A text that the service cut off in the middle of an emoji is unchanged."""
    failed = CoverDetails(task_id="a", success_flag=3, error_message="sorry \ud83d")
    await archive.mark_failed("a", CoverFailedError(task_id="a", details=failed))
    saved = attrs.evolve(await cover("b"), callback_url="https://example.com/\ud83d")
    await archive.save(client, saved)
    [first], [second] = await archive.failed(), await archive.saved()
    assert (first.details, second.details) == (failed, saved)
    await archive.mark_failed("a", OSError("sorry \ud83d"))
    [first] = await archive.failed()
    assert (first.details, first.error) == (failed, "OSError: sorry \\ud83d")
    await archive.export(tmp_path / "covers.csv")
    await archive.export(tmp_path / "covers.jsonl")
    lines = (tmp_path / "covers.jsonl").read_text("utf-8").splitlines()
    assert [structure_details(json.loads(line)["details"]) for line in lines] == [failed, saved]


@pytest.mark.parametrize("path", ["covers.txt", "covers", "covers.json"])
async def test_an_export_with_an_unknown_suffix(archive, tmp_path, path):
    """The error lists the known suffixes."""
    with pytest.raises(ValueError, match=re.escape("path must end in .jsonl or .csv")):
        await archive.export(tmp_path / path)


async def test_a_failed_export_leaves_the_target(archive, tmp_path):
    """What has the name stays, and no part file is left."""
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(OSError, match=r"out\.csv"):
        await archive.export(tmp_path / "out.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"covers", "out.csv"}


@pytest.mark.usefixtures("route")
async def test_the_key_is_in_no_file(client, emulator, opened, cover):
    """No file in the folder contains the API key after a failure."""
    archive = await opened()
    details = await cover()
    emulator.fault(Fault.answer(401, {"code": 401, "msg": "sk-0f1e2d3c4b5a6978"}), rate=1.0)
    emulator.fault(Fault.answer(404), endpoint="image", count=1)
    with pytest.raises(Exception, match="401") as caught:
        await archive.save(client, details)
    await archive.mark_failed(details.task_id, caught.value)
    # The record must not be read as a file while the archive is open.
    await archive.aclose()
    contents = [path.read_bytes() for path in archive.folder.iterdir()]
    assert any(b"AuthenticationError" in content for content in contents)
    assert not any(b"0f1e2d3c4b5a6978" in content for content in contents)


async def test_a_record_of_a_later_version_is_refused(opened):
    """The error names the file and the version."""
    archive = await opened()
    await archive.aclose()
    path = archive.folder / "covers.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 4")
    connection.close()
    with pytest.raises(ValueError, match=re.escape(f"{path} is a record of version 4")):
        await opened()


@pytest.mark.parametrize("version", [0, 1, -1])
async def test_another_programs_database_is_refused(opened, tmp_path, version):
    """The file is not altered, whatever its version is."""
    path = tmp_path / "covers.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE tasks (task_id, state)")
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"covers\.sqlite3 is another program's database"):
        await opened(tmp_path)
    assert path.read_bytes() == before
    assert not (tmp_path / "covers.sqlite3-wal").exists()


async def alter(archive, statement):
    """Close the archive, and execute a statement on its record."""
    await archive.aclose()
    with sqlite3.connect(archive.folder / "covers.sqlite3") as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("table", "column"), [("tasks", "details"), ("files", "width"), ("files", "url")]
)
async def test_a_record_without_a_column_is_refused(opened, table, column):
    """The error names the file, the table and the column."""
    archive = await opened()
    await alter(archive, f"ALTER TABLE {table} DROP COLUMN {column}")
    says = (
        rf"covers\.sqlite3 is another program's database, or damaged: {table} has no {column};"
        " give the archive another folder, or replace it with a backup$"
    )
    with pytest.raises(ValueError, match=says):
        await opened()


async def test_additional_columns_are_ignored(client, opened, cover):
    """A user may add columns to both tables."""
    archive = await opened()
    first = await archive.save(client, await cover("a"))
    for table in ("tasks", "files"):
        await alter(archive, f"ALTER TABLE {table} ADD COLUMN mine TEXT DEFAULT 'a note'")
    archive = await opened()
    second = await archive.save(client, await cover("b"))
    assert await archive.saved() == [first, second]
    assert (await archive.verify()).checked == 4


async def test_a_record_restored_from_a_dump(client, opened, cover):
    """A dump by SQLite's shell lacks the version, and is a record nevertheless."""
    archive = await opened()
    saved = await archive.save(client, await cover("a"))
    await archive.aclose()
    path = archive.folder / "covers.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        dump = "\n".join(connection.iterdump())
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(dump)
        assert connection.execute("PRAGMA user_version").fetchone() == (0,)
    for _ in range(2):
        archive = await opened()
        assert await archive.saved() == [saved]
        await archive.aclose()


SCHEMAS = {
    "not UTF-8": ("sql = CAST(x'4352ff' AS TEXT) WHERE name = 'tasks'", "its schema is not UTF-8"),
    "not SQL": ("sql = 'nonsense' WHERE name = 'files'", r"malformed database schema \(files\)"),
    "elsewhere": ("rootpage = 999 WHERE name = 'tasks'", "invalid rootpage"),
}


@pytest.mark.parametrize(("change", "says"), SCHEMAS.values(), ids=SCHEMAS)
async def test_a_damaged_schema_is_an_error(opened, change, says):
    """The error names the file and the cure."""
    archive = await opened()
    await archive.aclose()
    path = archive.folder / "covers.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"UPDATE sqlite_master SET {change}")  # noqa: S608 - ours
    cure = "replace it with a backup, .* or move it away: a new record adopts complete images"
    with pytest.raises(DamagedRecordError, match=rf"^{path} cannot be read .*{says}.*; {cure}"):
        await opened()


def clear_page(archive, number):
    """Overwrite a page of the closed record with zeros, as a broken disk may."""
    path = archive.folder / "covers.sqlite3"
    with path.open("r+b") as file:
        file.seek(number * 4096)
        file.write(bytes(4096))


async def test_a_damaged_page_is_an_error(opened):
    """The error names the file and the cure."""
    archive = await opened()
    await archive.add(["a"])
    await archive.aclose()
    clear_page(archive, 1)
    archive = await opened()
    for call in (archive.pending, archive.verify):
        with pytest.raises(DamagedRecordError, match=r"covers\.sqlite3 cannot .*; replace it with"):
            await call()


async def test_verify_finds_damage_outside_the_rows(opened):
    """`verify` checks the whole file, even if every cover can be read."""
    archive = await opened()
    await archive.add(["a"])
    await archive.aclose()
    with closing(sqlite3.connect(archive.folder / "covers.sqlite3")) as connection, connection:
        page = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_tasks_1'"
        ).fetchone()[0]
    path = archive.folder / "covers.sqlite3"
    # The index now states that it has no entries.
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + 3)
        file.write(bytes(2))
    archive = await opened()
    assert ids(await archive.pending()) == ["a"]
    with pytest.raises(DamagedRecordError, match=r"covers\.sqlite3 cannot be read .*; replace it"):
        await archive.verify()


async def test_a_record_that_is_not_a_database(opened, tmp_path):
    """The error names the file, which is not altered."""
    path = tmp_path / "covers.sqlite3"
    path.write_bytes(b"this is no database, and never was one" * 100)
    with pytest.raises(ValueError, match=re.escape(f"{path} cannot be read as an archive's")):
        await opened(tmp_path)
    assert path.read_bytes().startswith(b"this is no database")


async def test_a_table_that_is_dropped_while_the_archive_is_open(opened):
    """The error names the file and quotes SQLite."""
    archive = await opened()
    with sqlite3.connect(archive.folder / "covers.sqlite3") as connection:
        connection.execute("DROP TABLE tasks")
    connection.close()
    with pytest.raises(OSError, match=r"covers\.sqlite3 cannot be used: no such table"):
        await archive.pending()


async def test_a_folder_that_is_removed_while_the_archive_is_open(client, opened, cover):
    """Every call raises an error that says so."""
    archive, details = await opened(), await cover()
    await archive.save(client, details)
    shutil.rmtree(archive.folder)
    for call in (archive.add(["a"]), archive.save(client, details), archive.saved()):
        with pytest.raises(
            OSError, match=r"covers\.sqlite3 cannot be used: it was removed, moved or replaced"
        ):
            await call
    await archive.aclose()
    assert await (await opened()).pending() == []


@pytest.mark.parametrize("moved", [".", "covers.sqlite3"], ids=["the folder", "the record"])
async def test_a_folder_that_is_replaced_while_the_archive_is_open(
    client, opened, cover, tmp_path, moved
):
    """The old archive raises errors, and writes to neither folder."""
    archive, details = await opened(), await cover()
    await archive.add(["before"])
    (archive.folder / moved).rename(tmp_path / "elsewhere")
    new = await opened()
    for call in (archive.add(["a"]), archive.save(client, details), archive.pending()):
        with pytest.raises(OSError, match=r"covers\.sqlite3 .* it was removed, moved or replaced"):
            await call
    assert ids(await new.saved()) == ids(await new.pending()) == []


async def test_a_folder_that_is_replaced_by_a_file(opened):
    """The error is the same as for a removed folder."""
    archive = await opened()
    shutil.rmtree(archive.folder)
    archive.folder.write_text("mine")
    with pytest.raises(OSError, match="it was removed, moved or replaced"):
        await archive.pending()


async def test_a_file_cannot_be_opened_as_a_folder(opened, tmp_path):
    """The error names the file."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="file"):
        await opened(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match="file"):
        await opened(tmp_path / "file" / "below")


async def test_a_record_that_cannot_be_opened(opened, tmp_path):
    """The error names the file and suggests a cause."""
    (tmp_path / "covers.sqlite3").mkdir()
    with pytest.raises(
        OSError, match=r"covers\.sqlite3 .*: unable to open .*; may this process write"
    ):
        await opened(tmp_path)


async def test_a_lock_file_that_cannot_be_created(opened, tmp_path):
    """The error names the file, and nothing stays open."""
    (tmp_path / ".in-use").symlink_to(tmp_path / "nowhere" / "file")
    with pytest.raises(OSError, match=r"/\.in-use cannot be used: unable .*; may this process"):
        await opened(tmp_path)


async def test_a_lock_file_that_is_a_folder(opened, tmp_path):
    """The error names it and the cure, which works."""
    (tmp_path / ".in-use").mkdir()
    with pytest.raises(
        OSError, match=r"/\.in-use cannot be used: .*; remove it while no program uses"
    ):
        await opened(tmp_path)
    (tmp_path / ".in-use").rmdir()
    assert await (await opened(tmp_path)).pending() == []


async def test_a_lock_file_that_is_not_a_database(opened, tmp_path):
    """The error names the lock file and the cure, and not the record."""
    await (await opened(tmp_path)).aclose()
    (tmp_path / ".in-use").write_bytes(b"this is no database, and never was one" * 100)
    with pytest.raises(ValueError, match=r"/\.in-use cannot be read, .*; remove it while"):
        await opened(tmp_path)


async def test_a_lock_that_is_held_too_long(opened, tmp_path, monkeypatch):
    """Opening fails if another process holds the exclusive lock."""
    monkeypatch.setattr("kie_cover_async.archive.locking._MAX_WAIT", 0.01)
    connection = sqlite3.connect(tmp_path / ".in-use")
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OSError, match=r"/\.in-use cannot be used: database is locked$"):
        await opened(tmp_path)
    connection.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("",), "folder must be a path"),
        ((None,), "folder must be a path"),
        (("a", {"max_image_bytes": 0}), "max_image_bytes must be a whole number of at least 1"),
        (
            ("a", {"max_concurrent_downloads": 1.5}),
            "max_concurrent_downloads must be a whole number of at least 1",
        ),
    ],
    ids=["an empty folder", "no folder", "a size", "a number"],
)
def test_invalid_arguments_are_rejected(arguments, says):
    """The error names the argument, and no folder is created."""
    folder, settings = (*arguments, {})[:2]
    with pytest.raises((TypeError, ValueError), match=says):
        CoverArchive(folder, **settings)


async def test_an_archive_can_be_opened_again(tmp_path):
    """The repr says whether it is open; closing it twice is allowed, opening it twice is not."""
    archive = CoverArchive(tmp_path)
    assert repr(archive) == f"<CoverArchive {tmp_path} closed>"
    with pytest.raises(RuntimeError, match="not open: use it inside `async with`"):
        await archive.add(["a"])
    for _ in range(2):
        async with archive:
            assert repr(archive) == f"<CoverArchive {tmp_path} open>"
            await archive.add(["a"])
            with pytest.raises(RuntimeError, match="already open"):
                await archive.__aenter__()
        await archive.aclose()
