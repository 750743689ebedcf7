"""Inputs for Hypothesis, and the properties that hold for any input, also for a fuzzer's."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from kie_cover_async import (
    CoverDetails,
    InvalidResponseError,
    KieCoverError,
    SignatureError,
    structure_details,
    unstructure_details,
)
from kie_cover_async.api import Response
from kie_cover_async.api.responses import parse_body
from kie_cover_async.archive import ArchivedCover, DamagedRecordError
from kie_cover_async.archive.covers import find
from kie_cover_async.archive.database import NAME, ArchiveDatabase, database_errors
from kie_cover_async.archive.formats import MAX_PIXELS, InvalidImageError, read_image_info
from kie_cover_async.callbacks import parse_callback, sign_callback, verify_signature
from kie_cover_async.validation import is_http_url
from support.api_answers import TASK, answer, envelope, outcome_of
from support.pickling import pickled

VALUES = {
    "record-info": CoverDetails,
    "recordInfo": CoverDetails,
    "generate": str,
    "createTask": str,
    "credit": float,
    "download-url": str,
}


def check_answer(call: str, answer: Response) -> None:
    """A value of the endpoint's type comes of it, or an error of ours, and nothing else."""
    outcome = outcome_of(call, answer)
    if isinstance(outcome, KieCoverError):
        check_error(outcome)
    else:
        assert type(outcome) is VALUES[call]


def check_error(error: KieCoverError) -> None:
    """It can be shown on one line, logged, and sent to another process."""
    message = str(error)
    assert message.isprintable()
    assert len(message) < 2000
    message.encode()
    assert str(pickled(error)) == message


def check_record(data: Any) -> None:
    """What can be read can be written as JSON, and read again it is the same."""
    try:
        details = structure_details(data)
    except InvalidResponseError as error:
        check_error(error)
        return
    written = unstructure_details(details)
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert structure_details(written) == details


def check_market_record(record: dict[str, Any]) -> None:
    """It is an error, or has the state and the images that it should, and reads back equal."""
    details = outcome_of("recordInfo", answer(envelope(200, record)))
    if isinstance(details, KieCoverError):
        check_error(details)
        return
    assert details.task_id == TASK
    assert details.is_terminal == _has_ended(record)
    assert details.images == next(filter(None, map(_urls_in, _image_places(record))), ())
    assert len(details.record_shape or "") <= 2000
    check_record(unstructure_details(details))


def _has_ended(record: dict[str, Any]) -> bool:
    """Return whether the job has ended; a record without a `state` only tells a success."""
    if state := str(record.get("state") or "").strip():
        return state.lower() in ("success", "fail")
    return record.get("successFlag") in (1, "1") or record.get("status") == "SUCCESS"


def _image_places(record: dict[str, Any]) -> Iterator[Any]:
    for value in (record.get("resultJson"), record.get("response")):
        results = parse_body(value) if isinstance(value, str) else value
        if isinstance(results, dict):
            inner = [results, results.get("data"), results.get("resultObject")]
            yield results.get("resultUrls")
            yield from (part.get("images") for part in inner if isinstance(part, dict))


def _urls_in(place: Any) -> tuple[str, ...]:
    return tuple(filter(is_http_url, place)) if isinstance(place, list) else ()


KEY, SIGNED_AT = "test-webhook-hmac-key", 1769670760


def check_callback(headers: Any, body: Any) -> None:
    """It can be read or not; if it can, one that is verified is one that the key has signed."""
    try:
        callback = parse_callback(body)
    except InvalidResponseError as error:
        check_error(error)
        return
    assert callback.task_id.isprintable()
    assert " " not in callback.task_id
    assert all(map(is_http_url, callback.images or ()))
    hash(callback)
    try:
        verify_signature(headers, body, KEY, now=SIGNED_AT)
    except SignatureError as error:
        check_error(error)
        return
    given = {name.lower(): value for name, value in headers}
    stamp = given["x-webhook-timestamp"]
    genuine = sign_callback(callback.task_id, KEY, timestamp=int(stamp))["X-Webhook-Signature"]
    # Digits may have zeros before them, of which the signature is another one.
    assert given["x-webhook-signature"] == genuine or stamp.startswith("0")


def check_image(content: bytes) -> None:
    """Check that the bytes are an image with pixels or refused, also with right checksums."""
    for each in (content, with_right_checksums(content)):
        with suppress(InvalidImageError):
            found = read_image_info([each])
            assert 0 < found.width * found.height <= MAX_PIXELS


def with_right_checksums(png: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what is in them: no fuzzer finds these."""
    pieces, at = [png[:8]], 8
    while len(head := png[at : at + 8]) == 8:
        end = at + 8 + int.from_bytes(head[:4], "big")
        pieces += [png[at:end], crc32(png[at + 4 : end]).to_bytes(4, "big")]
        at = end + 4
    return b"".join(pieces)


class StoredRows:
    """A record with one cover and its image, of whose rows any column may have any value."""

    TASKS = ("state", "details", "expires_at", "error", "added_at", "route", "origin")
    FILES = ("number", "url", "name", "sha256", "size", "media_type", "width", "height")

    def __init__(self, folder: Path) -> None:
        self.folder, self.database = folder, ArchiveDatabase(folder)
        self._execute: Callable[..., Any] = self.database.execute
        self._execute("PRAGMA synchronous = OFF")

    def check(self, columns: dict[str, Any]) -> None:
        """Reading it brings a cover, or an error that names the file."""
        self._reset()
        for column, value in columns.items():
            table = "tasks" if column in self.TASKS else "files"
            # What SQLite does not take cannot stand there.
            with suppress(OverflowError, UnicodeEncodeError, sqlite3.Error):
                self._execute(f"UPDATE {table} SET {column} = ?", value)  # noqa: S608 - our own names
        outcome = self._outcome()
        if isinstance(outcome, ArchivedCover):
            assert all(image.path.parent == self.folder for image in outcome.images)
        else:
            assert type(outcome) in {OSError, DamagedRecordError}
            assert str(self.folder) in str(outcome)

    def _outcome(self) -> ArchivedCover | Exception:
        try:
            with database_errors(self.folder / NAME):
                cover = find(self.database, "an-id")
        except (OSError, ValueError) as error:
            return error
        assert cover is not None
        return cover

    def _reset(self) -> None:
        self._execute("DELETE FROM tasks")
        self._execute("DELETE FROM files")
        task = ("an-id", "saved", '{"taskId": "an-id"}', 1e9, None, 1e9)
        self._execute("INSERT INTO tasks VALUES (1, ?, ?, ?, ?, ?, ?, NULL, NULL)", *task)
        image = ("an-id", 1, "https://a/b", "an-id-1.png", "0" * 64, 9, "image/png", 3, 2)
        self._execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *image)
