"""What is fuzzed: functions of bytes, of which nothing may come but what is checked here.

Each has `SEEDS` to begin with. A fuzzer is to find more by itself, so the forms are easy to mutate.
"""

import json
from collections.abc import Callable
from pathlib import Path

from anything import check_answer, check_record
from api_answers import CALLS, envelope, record
from multidict import CIMultiDict

from kie_cover_async.wire import Answer

REPLIES = Path(__file__).parents[1] / "replies"


def answers(data: bytes) -> None:
    """Reading an answer: the endpoint's number and the HTTP status, headers, a blank line, body."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    endpoint = list(CALLS)[ord(first[:1] or "0") % len(CALLS)]
    status = int(first[1:4]) if first[1:4].isdecimal() else 200
    fields = CIMultiDict(line.split(": ", 1) for line in lines if ": " in line)
    check_answer(endpoint, Answer(status, fields, body))


def records(data: bytes) -> None:
    """Reading a stored record, which may be any JSON value."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    check_record(value)


def _answer(endpoint: int, body: bytes) -> bytes:
    fields = b"Retry-After: 7\nDate: Wed, 15 Jan 2025 10:33:01 GMT\ncf-ray: 1-FRA"
    return b"%d200\n%s\n\n%s" % (endpoint, fields, body)


_BODIES = [path.read_bytes() for path in sorted(REPLIES.glob("*.json"))]
_RECORD = record(
    parentTaskId="song",
    createTime="2025-01-15T10:33:01.000Z",
    completeTime=1736937181000,
    errorCode="200",
    errorMessage="",
)

TARGETS: dict[str, Callable[[bytes], None]] = {"answers": answers, "records": records}
SEEDS: dict[str, list[bytes]] = {
    "answers": [
        _answer(endpoint, body)
        for endpoint in range(len(CALLS))
        for body in [*_BODIES, json.dumps(envelope(200, _RECORD)).encode()]
    ],
    "records": [json.dumps(_RECORD).encode(), b'{"taskId":"a","status":"SUCCESS"}'],
}
