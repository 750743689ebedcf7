"""What can be posted to a callback URL, right and wrong: each for an id, byte for byte."""

import gzip
import json
import time
from collections.abc import Callable
from typing import Any

from attrs import frozen

from kie_cover_async.callbacks import sign_callback
from support.raw_peer import Again, Connection, Step

KEY = "test-webhook-hmac-key"
FORGED = "https://forged.example/image.png"
HEAD = "POST /callbacks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
SIGNATURE, TIMESTAMP = "X-Webhook-Signature", "X-Webhook-Timestamp"
MIB, GIB = 1 << 20, 1 << 30


async def HANG_UP(connection: Connection) -> None:  # noqa: N802 - it stands among the bytes
    """End the connection, whatever was promised."""
    connection.writer.close()


def written(task_id: str, **more: Any) -> bytes:
    """The body of a success, with images of somebody else's."""
    data = {"taskId": task_id, "images": [FORGED]}
    return json.dumps({"code": 200, "data": data, **more}).encode()


@frozen
class Posted:
    """A callback that is whole: header lines and a body."""

    headers: list[tuple[str, str]]
    body: bytes
    method: str = "POST"
    path: str = "/callbacks"

    def steps(self) -> list[Step]:
        """On a connection of its own."""
        head = HEAD.replace("POST /callbacks", f"{self.method} {self.path}")
        lines = [*self.headers, ("Content-Length", str(len(self.body)))]
        fields = "".join(f"{name}: {value}\r\n" for name, value in lines)
        return [(head + fields + "\r\n").encode() + self.body]


# What is posted one after the other, each on a connection of its own.
Row = Callable[[str], Posted | list[list[Step]]]


def signed(
    task_id: str, body: bytes | None = None, *, key: str = KEY, of: str | None = None, **more: Any
) -> Posted:
    """Genuine, but for what is said otherwise."""
    headers = sign_callback(of or task_id, key)
    return Posted([*headers.items()], written(task_id) if body is None else body, **more)


def with_headers(**changes: Callable[[str], list[str]]) -> Row:
    """The headers are the genuine ones, each changed by a function of what it was."""

    def row(task_id: str) -> Posted:
        headers = sign_callback(task_id, KEY)
        names = {"signature": SIGNATURE, "timestamp": TIMESTAMP}
        lines = [
            (name, value)
            for short, name in names.items()
            for value in changes.get(short, lambda value: [value])(headers[name])
        ]
        return Posted(lines, written(task_id))

    return row


def signed_at(moment: Callable[[float], float]) -> Row:
    """Signed at another time, in Unix seconds."""

    def row(task_id: str) -> Posted:
        headers = sign_callback(task_id, KEY, timestamp=int(moment(time.time())))
        return Posted([*headers.items()], written(task_id))

    return row


def with_body(body: bytes) -> Row:
    """Signed, around this body, in which `TASK` is the id."""
    return lambda task_id: signed(task_id, body.replace(b"TASK", task_id.encode()))


def raw(fields: dict[str, object], *steps: Step) -> Row:
    """Signed, with these fields in its header; what follows is done as it is."""

    def row(task_id: str) -> list[list[Step]]:
        lines = [*sign_callback(task_id, KEY).items(), *fields.items()]
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        return [[(HEAD + head + "\r\n").encode(), *steps]]

    return row


def packed(content: bytes) -> Row:
    """Signed, and compressed."""
    body = gzip.compress(content)
    return raw({"Content-Encoding": "gzip", "Content-Length": len(body)}, body)


def three_times(task_id: str) -> list[list[Step]]:
    """The same, as the API repeats what was not answered."""
    return [signed(task_id).steps()] * 3


def in_other_words(task_id: str) -> list[list[Step]]:
    """Headers that were genuine once, around other words, twenty times a second."""
    bodies = [written(task_id, msg=str(number)) for number in range(200)]
    return [[0.05, *signed(task_id, body).steps()] for body in bodies]


CALLBACKS: dict[str, Row] = {
    "is genuine, but too early": signed,
    "is so three times, in the same words": three_times,
    "is so for ten seconds, 200 times in other words": in_other_words,
    "says that the job has failed": lambda task_id: signed(task_id, written(task_id, code=501)),
    "has no signature": with_headers(signature=lambda _: [], timestamp=lambda _: []),
    "has a timestamp alone": with_headers(signature=lambda _: []),
    "has a signature alone": with_headers(timestamp=lambda _: []),
    "has its signature twice": with_headers(signature=lambda value: [value, value]),
    "has its timestamp twice": with_headers(timestamp=lambda value: [value, value]),
    "has a forged signature before its own": with_headers(signature=lambda value: ["x", value]),
    "has a forged signature": with_headers(signature=lambda value: ["A" * 43 + "="]),
    "has a signature that is cut off": with_headers(signature=lambda value: [value[:-4]]),
    "has a signature of 60 KB": with_headers(signature=lambda value: [value * 1363]),
    "has a signature that is no ASCII": with_headers(signature=lambda value: ["é" * 44]),
    "has a timestamp a second later": with_headers(timestamp=lambda value: [str(int(value) + 1)]),
    "has a timestamp that is none": with_headers(timestamp=lambda _: ["now"]),
    "has a timestamp of 5,000 digits": with_headers(timestamp=lambda _: ["9" * 5000]),
    "is signed with another key": lambda task_id: signed(task_id, key="another"),
    "is signed for another id": lambda task_id: signed(task_id, of="another"),
    "was signed ten minutes ago": signed_at(lambda now: now - 600),
    "will be signed in ten minutes": signed_at(lambda now: now + 600),
    "is signed in milliseconds": signed_at(lambda now: now * 1000),
    "is for an id that nobody waits for": lambda _: signed("another"),
    "has no body": with_body(b""),
    "has a page as its body": with_body(b"<html>"),
    "has bytes that are no text": with_body(b"\xff\xfe\xff"),
    "has JSON that is cut off": with_body(b'{"data": {"taskId": "TASK"'),
    "has a list": with_body(b"[]"),
    "has lists in lists, 30,000 deep": with_body(b"[" * 30_000),
    "has no id": with_body(b'{"code": 200}'),
    "has an id that is a number": with_body(b'{"data": {"taskId": 5}}'),
    "has an id with a blank in it": with_body(b'{"data": {"taskId": "TASK "}}'),
    "has an id of 201 characters": with_body(b'{"data": {"taskId": "%s"}}' % (b"x" * 201)),
    "has two ids that differ": with_body(b'{"data": {"taskId": "TASK"}, "taskId": "another"}'),
    "has a code of 5,000 digits": with_body(b'{"code": %s, "taskId": "TASK"}' % (b"9" * 5000)),
    "has 64 KiB and a byte": with_body(b'{"taskId": "TASK"}'.ljust(65_550)),
    "announces 1 GiB, and sends it": raw({"Content-Length": GIB}, Again(bytes(65_536), pause=0.1)),
    "announces 1 GiB, and is silent": raw({"Content-Length": GIB}, b"{"),
    "has 1 GiB in chunks": raw(
        {"Transfer-Encoding": "chunked"}, Again(b"10000\r\n" + bytes(65_536) + b"\r\n", pause=0.1)
    ),
    "is a gzip bomb": packed(bytes(16 * MIB)),
    "says gzip, and is something else": raw(
        {"Content-Encoding": "gzip", "Content-Length": 6}, b"nogzip"
    ),
    "has broken chunks": raw({"Transfer-Encoding": "chunked"}, b"5\r\nabcdefgh\r\n"),
    "announces two lengths": raw({"content-length": 5, "Content-Length": 6}, b"{}    "),
    "announces a length, and chunks": raw(
        {"Content-Length": 5, "Transfer-Encoding": "chunked"}, b"0\r\n\r\n"
    ),
    "comes a byte a second": raw({"Content-Length": 99}, Again(b" ", pause=1.0)),
    "hangs up in its body": raw({"Content-Length": 99}, b"{", HANG_UP),
    "has a header without an end": lambda _: [[HEAD.encode(), Again(b"X: x\r\n", pause=1.0)]],
    "has a header that is none": lambda _: [[HEAD.encode() + b"none\r\n\r\n"]],
    "comes by GET": lambda task_id: signed(task_id, method="GET"),
    "comes by PUT": lambda task_id: signed(task_id, method="PUT"),
    "comes by another path": lambda task_id: signed(task_id, path="/callback"),
}
