"""The fuzzed functions of bytes: each fails if its input breaks a rule of `support.strategies`.

`answers`, `callbacks` and `images` take bytes as they are. The others take lines with a name and a
JSON value, so that a fuzzer breaks one value and not the whole text. Fuzzing begins with `SEEDS`.
"""

import json
import re
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from multidict import CIMultiDict
from support.api_answers import CALLS, IMAGE, TASK
from support.strategies import (
    KEY,
    SIGNED_AT,
    StoredRows,
    check_answer,
    check_callback,
    check_image,
    check_market_record,
    check_record,
)

from kie_cover_async.api import Response
from kie_cover_async.callbacks import sign_callback
from kie_cover_async.emulator.images import png

REPLIES = Path(__file__).parents[1] / "replies"


def answers(data: bytes) -> None:
    """Reading an answer: endpoint and HTTP status, header lines, a blank line, the body."""
    head, _, body = data.partition(b"\n\n")
    endpoint, status, headers = _head(head)
    check_answer(endpoint, Response(status, headers, body))


def envelopes(data: bytes) -> None:
    """The same with an envelope: its fields, a blank line, and those of its `data`, if any."""
    head, _, rest = data.partition(b"\n\n")
    outer, _, inner = rest.partition(b"\n\n")
    endpoint, status, headers = _head(head)
    envelope = _fields(outer) | ({"data": _fields(inner)} if inner else {})
    check_answer(endpoint, Response(status, headers, json.dumps(envelope).encode()))


def records(data: bytes) -> None:
    """Reading a stored record, of these fields."""
    check_record(_fields(data))


def market(data: bytes) -> None:
    """Reading the Market's record: its fields, those of `resultJson`, `param` and its `input`.

    Blank lines separate the four. The last three are written as JSON texts.
    """
    fields, results, request, song = map(_fields, (data.split(b"\n\n", 3) + [b""] * 3)[:4])
    if song:
        request["input"] = json.dumps(song)
    texts = {"resultJson": results, "param": request}
    check_market_record(fields | {name: json.dumps(text) for name, text in texts.items() if text})


def callbacks(data: bytes) -> None:
    """Reading and verifying a callback: header lines, a blank line, the body."""
    head, _, body = data.partition(b"\n\n")
    lines = [line.split(": ", 1) for line in head.decode("latin-1").split("\n") if ": " in line]
    check_callback([(name, value) for name, value in lines], body)


def rows(data: bytes) -> None:
    """Reading an archive's record, with these columns in its rows."""
    columns = {name: value for name, value in _fields(data).items() if name in _COLUMNS}
    _stored_rows().check({name: _column(value) for name, value in columns.items()})


def images(data: bytes) -> None:
    """Reading what kind of image there is."""
    check_image(data)


@cache
def _stored_rows() -> StoredRows:
    return StoredRows(Path(mkdtemp(prefix="fuzz-")))


def _column(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def _head(head: bytes) -> tuple[str, int, CIMultiDict[str]]:
    first, *lines = head.decode("latin-1").split("\n")
    endpoint = list(CALLS)[ord(first[:1] or "0") % len(CALLS)]
    status = int(first[1:4]) if first[1:4].isdecimal() else 200
    fields = [line.split(": ", 1) for line in lines if ": " in line]
    return endpoint, status, CIMultiDict([(name, value) for name, value in fields])


def _fields(lines: bytes) -> dict[str, Any]:
    """Of each line `name value` the value as JSON; what is no JSON is left out."""
    found = {}
    for line in lines.split(b"\n"):
        name, _, value = line.partition(b" ")
        try:
            found[name.decode("latin-1")] = json.loads(value)
        except (ValueError, RecursionError):
            continue
    return found


_HEAD = b"%d200\nRetry-After: 7\nDate: Wed, 15 Jan 2025 10:33:01 GMT\ncf-ray: 1-FRA\n\n"
_RECORD = f"""\
taskId "{TASK}"
parentTaskId "song"
callbackUrl "https://example.com/hook"
createTime "2025-01-15T10:33:01.000Z"
completeTime 1736937181000
response {{"images":["{IMAGE}",null]}}
successFlag 1
errorCode "200"
errorMessage ""
status "SUCCESS"
""".encode()
_MARKET_FIELDS = f"""\
taskId "{TASK}"
state "success"
response {{"resultUrls":["{IMAGE}"]}}
failCode "500"
failMsg 501
createTime 1776862567160
completeTime 1776862622656
creditsConsumed 0.5
successFlag 1
status "SUCCESS"
""".encode()
_MARKET_RECORD = b"\n".join(
    [
        _MARKET_FIELDS,
        f'resultUrls ["{IMAGE}",null]\nimages []\ndata {{"images":["{IMAGE}"]}}\n'.encode(),
        b'callBackUrl "https://example.com/hook"\nmodel "ai-music-api/cover-generate"\n',
        b'task_id "song"\n',
    ]
)
_COLUMNS = {*StoredRows.TASKS, *StoredRows.FILES}
_ROWS = f"""\
state "pending"
details {{"taskId":"an-id","successFlag":1,"response":{{"images":["{IMAGE}"]}}}}
expires_at 1736937181.5
error "DownloadError"
added_at 1e9
number 1
url "{IMAGE}"
name "an-id-1.png"
sha256 "{"0" * 64}"
size 5
media_type "image/png"
width 1
height 1
""".encode()
_GENUINE = "".join(
    f"{name}: {value}\n" for name, value in sign_callback(TASK, KEY, timestamp=SIGNED_AT).items()
).encode()
_JPEG = (
    b"\xff\xd8\xff\xe0\0\4ab\xff\xc0\0\7" + struct.pack(">BHH", 8, 2, 3) + b"\xff\xda\0\2px\xff\xd9"
)
_LOSSY = b"VP8 \x0a\0\0\0\x30\x01\0\x9d\x01\x2a\3\0\2\0"
_WEBPS = [
    b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
    for chunks in (
        _LOSSY,
        b"VP8L\x0a\0\0\0\x2f\2\x40\0\0px px",
        b"VP8X\x0a\0\0\0\0\0\0\0\2\0\0\1\0\0" + _LOSSY,
    )
]


def _with_task(path: Path) -> bytes:
    """A recorded callback, with the id for which the headers are genuine."""
    return re.sub(rb'("taskId":) ?"[^"]*"', rb'\1"%s"' % TASK.encode(), path.read_bytes())


_ENDPOINTS = range(len(CALLS))

TARGETS: dict[str, Callable[[bytes], None]] = {
    "answers": answers,
    "envelopes": envelopes,
    "records": records,
    "market": market,
    "callbacks": callbacks,
    "rows": rows,
    "images": images,
}
SEEDS: dict[str, list[bytes]] = {
    "answers": [
        _HEAD % endpoint + path.read_bytes()
        for endpoint in _ENDPOINTS
        for path in sorted(REPLIES.glob("*.json"))
    ],
    "envelopes": [
        _HEAD % endpoint + b'code 200\nmsg "record does not exist"\ndata 1.5\n\n' + inner
        for endpoint in _ENDPOINTS
        for inner in (b"", _RECORD, _MARKET_FIELDS)
    ],
    "records": [_RECORD, b'taskId "a"\nstatus "PENDING"\nresponse {}'],
    "market": [
        _MARKET_RECORD,
        b'state "generating"\nresultJson ""\nsuccessFlag 0\nresponse null\n',
        b'state "odd"\nresponse {"resultObject":{"images":[]}}\n\nresultObject {"images":7}\n',
    ],
    "callbacks": [
        _GENUINE + b"\n" + body
        for body in (
            *(_with_task(path) for path in sorted(REPLIES.glob("*callback-*.json"))),
            b'{"taskId":"%s"}' % TASK.encode(),
            b'{"data":{"task_id":"%s","taskId":"%s"}}' % (TASK.encode(), TASK.encode()),
        )
    ],
    "rows": [_ROWS, b'details {"taskId":"an-id"}\nexpires_at null\nstate "failed"\n'],
    "images": [png("a", 2), _JPEG, *_WEBPS],
}
