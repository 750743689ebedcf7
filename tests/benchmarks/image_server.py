"""A fast image server in a process of its own.

Every path is a different PNG of 1.5 MB. `python image_server.py [BYTES] [CERTIFICATE]` prints its
URL and serves until its stdin ends: at most BYTES per second over all connections together, and by
https if a certificate is given.
"""

import asyncio
import os
import ssl
import struct
import sys
import zlib
from hashlib import sha256
from math import inf

SIZE, PIECE = 1_500_000, 1 << 16
HEADER = struct.pack(">IIBBBBB", 1024, 1024, 8, 2, 0, 0, 0)


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


BEFORE = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", HEADER)
AFTER = chunk(b"IDAT", os.urandom(SIZE)) + chunk(b"IEND", b"")


class Line:
    """The network line to the client, with its bandwidth in bytes per second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def send(self, transport: asyncio.WriteTransport, content: bytes) -> None:
        if self._rate == inf:
            transport.write(content)
            return
        loop = asyncio.get_running_loop()
        for start in range(0, len(content), PIECE):
            piece, now = content[start : start + PIECE], loop.time()
            wait = self._free_at - now
            self._free_at = max(self._free_at, now) + len(piece) / self._rate
            await asyncio.sleep(max(wait, 0))
            transport.write(piece)


class ImageServer(asyncio.Protocol):
    def __init__(self, line: Line) -> None:
        self._line = line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            # A chunk with the hash of the request line makes each image different.
            name = chunk(b"tEXt", sha256(head.partition(b"\r\n")[0]).digest())
            length = len(BEFORE) + len(name) + len(AFTER)
            headers = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
            answer = b"".join([headers % length, BEFORE, name, AFTER])
            self._sending = asyncio.create_task(self._line.send(self._transport, answer))


def tls(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def main(rate: str = "inf", *certificate: str) -> None:
    loop, line = asyncio.get_running_loop(), Line(float(rate))
    [context] = [tls(each) for each in certificate] or [None]
    server = await loop.create_server(
        lambda: ImageServer(line), "127.0.0.1", 0, backlog=1024, ssl=context
    )
    host, port = server.sockets[0].getsockname()
    print(f"{'https' if context else 'http'}://{host}:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
