"""Requests to a callback URL, valid and invalid: each for an id, byte for byte."""

import gzip
import json
import time
from collections.abc import Callable
from typing import Any

from attrs import frozen

from kie_cover_async.callbacks import sign_callback
from support.raw_peer import Connection, Repeat, Step

KEY = "test-webhook-hmac-key"
FORGED = "https://forged.example/image.png"
HEAD = "POST /callbacks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
SIGNATURE, TIMESTAMP = "X-Webhook-Signature", "X-Webhook-Timestamp"
MIB, GIB = 1 << 20, 1 << 30


async def HANG_UP(connection: Connection) -> None:  # noqa: N802 - used like a constant
    """Close the connection, whatever the headers announced."""
    connection.writer.close()


def success_body(task_id: str, **more: Any) -> bytes:
    """Return the body of a success, with forged images."""
    data = {"taskId": task_id, "images": [FORGED]}
    return json.dumps({"code": 200, "data": data, **more}).encode()


@frozen
class Posted:
    """A complete callback: headers and body."""

    headers: list[tuple[str, str]]
    body: bytes
    method: str = "POST"
    path: str = "/callbacks"

    def steps(self) -> list[Step]:
        """Return the bytes to send on a separate connection."""
        head = HEAD.replace("POST /callbacks", f"{self.method} {self.path}")
        lines = [*self.headers, ("Content-Length", str(len(self.body)))]
        fields = "".join(f"{name}: {value}\r\n" for name, value in lines)
        return [(head + fields + "\r\n").encode() + self.body]


# The requests of one row, each on a separate connection.
Row = Callable[[str], Posted | list[list[Step]]]


def signed(
    task_id: str, body: bytes | None = None, *, key: str = KEY, of: str | None = None, **more: Any
) -> Posted:
    """Return a genuine callback, with the given deviations."""
    headers = sign_callback(of or task_id, key)
    return Posted([*headers.items()], success_body(task_id) if body is None else body, **more)


def with_headers(**changes: Callable[[str], list[str]]) -> Row:
    """Return a genuine callback whose headers are changed by these functions."""

    def row(task_id: str) -> Posted:
        headers = sign_callback(task_id, KEY)
        names = {"signature": SIGNATURE, "timestamp": TIMESTAMP}
        lines = [
            (name, value)
            for short, name in names.items()
            for value in changes.get(short, lambda value: [value])(headers[name])
        ]
        return Posted(lines, success_body(task_id))

    return row


def signed_at(time_of: Callable[[float], float]) -> Row:
    """Return a callback signed at another time, in Unix seconds."""

    def row(task_id: str) -> Posted:
        headers = sign_callback(task_id, KEY, timestamp=int(time_of(time.time())))
        return Posted([*headers.items()], success_body(task_id))

    return row


def with_body(body: bytes) -> Row:
    """Return a signed callback with this body, in which `TASK` is the id."""
    return lambda task_id: signed(task_id, body.replace(b"TASK", task_id.encode()))


def raw(fields: dict[str, object], *steps: Step) -> Row:
    """Return a signed callback with these additional headers, followed by the raw steps."""

    def row(task_id: str) -> list[list[Step]]:
        lines = [*sign_callback(task_id, KEY).items(), *fields.items()]
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        return [[(HEAD + head + "\r\n").encode(), *steps]]

    return row


def compressed(content: bytes) -> Row:
    """Return a signed callback with a compressed body."""
    body = gzip.compress(content)
    return raw({"Content-Encoding": "gzip", "Content-Length": len(body)}, body)


def repeated(task_id: str) -> list[list[Step]]:
    """Return three equal callbacks, as the API repeats one that was not answered."""
    return [signed(task_id).steps()] * 3


def different_content(task_id: str) -> list[list[Step]]:
    """Return genuine headers with different bodies, twenty times a second."""
    bodies = [success_body(task_id, msg=str(number)) for number in range(200)]
    return [[0.05, *signed(task_id, body).steps()] for body in bodies]


CALLBACKS: dict[str, Row] = {
    "is genuine, but too early": signed,
    "is repeated three times with the same content": repeated,
    "is repeated for ten seconds, 200 times with different content": different_content,
    "says that the job has failed": lambda task_id: signed(
        task_id, success_body(task_id, code=501)
    ),
    "has no signature": with_headers(signature=lambda _: [], timestamp=lambda _: []),
    "has only a timestamp": with_headers(signature=lambda _: []),
    "has only a signature": with_headers(timestamp=lambda _: []),
    "has two signatures": with_headers(signature=lambda value: [value, value]),
    "has two timestamps": with_headers(timestamp=lambda value: [value, value]),
    "has a forged signature before the genuine one": with_headers(
        signature=lambda value: ["x", value]
    ),
    "has a forged signature": with_headers(signature=lambda value: ["A" * 43 + "="]),
    "has a truncated signature": with_headers(signature=lambda value: [value[:-4]]),
    "has a signature of 60 KB": with_headers(signature=lambda value: [value * 1363]),
    "has a signature that is not ASCII": with_headers(signature=lambda value: ["é" * 44]),
    "has a timestamp moved by a second": with_headers(
        timestamp=lambda value: [str(int(value) + 1)]
    ),
    "has a timestamp that is not a number": with_headers(timestamp=lambda _: ["now"]),
    "has a timestamp of 5,000 digits": with_headers(timestamp=lambda _: ["9" * 5000]),
    "is signed with another key": lambda task_id: signed(task_id, key="another"),
    "is signed for another id": lambda task_id: signed(task_id, of="another"),
    "was signed ten minutes ago": signed_at(lambda now: now - 600),
    "will be signed in ten minutes": signed_at(lambda now: now + 600),
    "is signed in milliseconds": signed_at(lambda now: now * 1000),
    "is for an id without a wait": lambda _: signed("another"),
    "has no body": with_body(b""),
    "has an HTML body": with_body(b"<html>"),
    "has a body that is not UTF-8": with_body(b"\xff\xfe\xff"),
    "has truncated JSON": with_body(b'{"data": {"taskId": "TASK"'),
    "has a list": with_body(b"[]"),
    "has lists nested 30,000 deep": with_body(b"[" * 30_000),
    "has no id": with_body(b'{"code": 200}'),
    "has an id that is a number": with_body(b'{"data": {"taskId": 5}}'),
    "has an id with a blank in it": with_body(b'{"data": {"taskId": "TASK "}}'),
    "has an id of 201 characters": with_body(b'{"data": {"taskId": "%s"}}' % (b"x" * 201)),
    "has two ids that differ": with_body(b'{"data": {"taskId": "TASK"}, "taskId": "another"}'),
    "has a code of 5,000 digits": with_body(b'{"code": %s, "taskId": "TASK"}' % (b"9" * 5000)),
    "has more than 64 KiB": with_body(b'{"taskId": "TASK"}'.ljust(65_550)),
    "announces 1 GiB, and sends it": raw({"Content-Length": GIB}, Repeat(bytes(65_536), pause=0.1)),
    "announces 1 GiB, and sends nothing": raw({"Content-Length": GIB}, b"{"),
    "has 1 GiB in chunks": raw(
        {"Transfer-Encoding": "chunked"}, Repeat(b"10000\r\n" + bytes(65_536) + b"\r\n", pause=0.1)
    ),
    "is a gzip bomb": compressed(bytes(16 * MIB)),
    "says gzip, but is not gzip": raw({"Content-Encoding": "gzip", "Content-Length": 6}, b"nogzip"),
    "has broken chunks": raw({"Transfer-Encoding": "chunked"}, b"5\r\nabcdefgh\r\n"),
    "announces two lengths": raw({"content-length": 5, "Content-Length": 6}, b"{}    "),
    "announces both a length and chunks": raw(
        {"Content-Length": 5, "Transfer-Encoding": "chunked"}, b"0\r\n\r\n"
    ),
    "sends a byte a second": raw({"Content-Length": 99}, Repeat(b" ", pause=1.0)),
    "closes the connection in its body": raw({"Content-Length": 99}, b"{", HANG_UP),
    "has headers without end": lambda _: [[HEAD.encode(), Repeat(b"X: x\r\n", pause=1.0)]],
    "has an invalid header": lambda _: [[HEAD.encode() + b"none\r\n\r\n"]],
    "is sent by GET": lambda task_id: signed(task_id, method="GET"),
    "is sent by PUT": lambda task_id: signed(task_id, method="PUT"),
    "is sent to another path": lambda task_id: signed(task_id, path="/callback"),
}
