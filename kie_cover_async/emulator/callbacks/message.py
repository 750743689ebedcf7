"""What a callback says, and how it is signed."""

import hmac
from base64 import b64encode
from collections.abc import Callable
from hashlib import blake2b

from attrs import frozen

from kie_cover_async.emulator.answers import encoded
from kie_cover_async.emulator.callbacks.plan import Kind
from kie_cover_async.emulator.jobs import Job

_FORGER = "https://forged.example/s"
_NOBODYS_KEY = "a key that nobody has"


@frozen
class Message:
    """Body and header fields of one callback."""

    body: bytes
    headers: dict[str, str]


def written(
    job: Job, kind: Kind, images_of: Callable[[Job], list[str]], key: str | None, wall_time: float
) -> Message:
    """The message, signed for this moment, in Unix seconds, where there is a key."""
    body = _forged(job) if kind == "forged" else _genuine(job, images_of)
    key = _NOBODYS_KEY if kind == "wrong-signature" else key
    signature = {} if key is None else _signature(key, job.task_id, int(wall_time))
    return Message(body, {"Content-Type": "application/json", **signature})


def _genuine(job: Job, images_of: Callable[[Job], list[str]]) -> bytes:
    job.end()
    if job.outcome == "success":
        return _body(200, "success", job.task_id, images_of(job))
    code = job.script.error_code if isinstance(job.script.error_code, int) else 501
    told = job.script.error_message or "Cover generation failed"
    return _body(code, told, job.task_id, None)


def _forged(job: Job) -> bytes:
    name = blake2b(job.task_id.encode(), digest_size=16).hexdigest()
    images = [f"{_FORGER}/{name}_{at}.png" for at in range(2)]
    return _body(200, "success", job.task_id, images)


def _body(code: int, msg: str, task_id: str, images: list[str] | None) -> bytes:
    return encoded({"code": code, "msg": msg, "data": {"taskId": task_id, "images": images}})


def _signature(key: str, task_id: str, timestamp: int) -> dict[str, str]:
    """The two header fields; of the message only the task's id is signed."""
    signed = f"{task_id}.{timestamp}".encode()
    digest = hmac.digest(key.encode(), signed, "sha256")
    return {
        "X-Webhook-Timestamp": str(timestamp),
        "X-Webhook-Signature": b64encode(digest).decode(),
    }
