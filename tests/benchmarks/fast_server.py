"""A server as quick as Python allows, in a process of its own.

Every id is a finished cover, but for those that begin with `pending`, which never are.
`python fast_server.py` prints its URL and serves until its stdin ends.
"""

import asyncio
import json
import sys
from email.utils import formatdate

RECORD = {
    "taskId": "",
    "parentTaskId": "26aa3cf035e9660408fce96954acfbfa",
    "completeTime": 1760512082000,
    "response": {
        "images": [
            "https://tempfile.aiquickdraw.com/s/1760512076_5dbf29ba8de3493b9ef87ed650831c14.png",
            "https://tempfile.aiquickdraw.com/s/1760512078_7795f6847112469c85dc6f22d34f479e.png",
        ]
    },
    "successFlag": 1,
    "errorCode": None,
    "errorMessage": None,
    "createTime": 1760512035000,
}
PENDING = RECORD | {"completeTime": None, "response": None, "successFlag": 2}


def around_the_id(record: dict[str, object]) -> tuple[bytes, bytes]:
    envelope = {"code": 200, "msg": "success", "data": record}
    before, after = json.dumps(envelope, separators=(",", ":")).encode().split(b'"taskId":""')
    return before + b'"taskId":"', b'"' + after


FINISHED_BODY, PENDING_BODY = around_the_id(RECORD), around_the_id(PENDING)


class FastServer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while b"\r\n\r\n" in self._seen:
            head, _, self._seen = self._seen.partition(b"\r\n\r\n")
            task_id = head.partition(b"taskId=")[2].partition(b" ")[0]
            self._transport.write(answer(task_id))


def answer(task_id: bytes) -> bytes:
    before, after = PENDING_BODY if task_id.startswith(b"pending") else FINISHED_BODY
    body = before + task_id + after
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json;charset=UTF-8\r\n"
        b"Date: %s\r\nServer: cloudflare\r\nCF-RAY: 8f1a2b3c4d5e6f70-FRA\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (formatdate(usegmt=True).encode(), len(body), body)
    )


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(FastServer, "127.0.0.1", 0, backlog=1024)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
