"""What is fuzzed: functions of bytes, of which nothing may come but what is checked here.

`answers` takes bytes as they are. The others take JSON line by line, each with a name before it, so
that what a fuzzer breaks is one value and not the whole text. `SEEDS` are what each begins with.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anything import check_answer, check_record
from api_answers import CALLS, IMAGE, TASK
from multidict import CIMultiDict

from kie_cover_async.wire import Answer

REPLIES = Path(__file__).parents[1] / "replies"


def answers(data: bytes) -> None:
    """Reading an answer: endpoint and HTTP status, header lines, a blank line, the body."""
    head, _, body = data.partition(b"\n\n")
    endpoint, status, headers = _head(head)
    check_answer(endpoint, Answer(status, headers, body))


def envelopes(data: bytes) -> None:
    """The same with an envelope: its fields, a blank line, and those of its `data`, if any."""
    head, _, rest = data.partition(b"\n\n")
    outer, _, inner = rest.partition(b"\n\n")
    endpoint, status, headers = _head(head)
    envelope = _fields(outer) | ({"data": _fields(inner)} if inner else {})
    check_answer(endpoint, Answer(status, headers, json.dumps(envelope).encode()))


def records(data: bytes) -> None:
    """Reading a stored record, of these fields."""
    check_record(_fields(data))


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
_ENDPOINTS = range(len(CALLS))

TARGETS: dict[str, Callable[[bytes], None]] = {
    "answers": answers,
    "envelopes": envelopes,
    "records": records,
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
        for inner in (b"", _RECORD)
    ],
    "records": [_RECORD, b'taskId "a"\nstatus "PENDING"\nresponse {}'],
}
