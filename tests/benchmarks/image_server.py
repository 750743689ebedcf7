"""A fast image server in a process of its own.

Every path is a different PNG of 1.5 MB. `python image_server.py [BYTES] [CERTIFICATE]` prints its
URL and serves until its stdin ends: at most BYTES per second over all connections together, and by
https if a certificate is given. It has a thread for each connection, since it shares the processor
with the client that is measured, and asyncio's TLS takes 1.6 times the time of blocking sockets.
"""

import os
import ssl
import struct
import sys
import zlib
from hashlib import sha256
from socket import IPPROTO_TCP, TCP_CORK
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Lock, Thread
from time import monotonic, sleep

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
        self._lock = Lock()

    def wait(self, size: int) -> None:
        """Wait until the line is free for so many bytes."""
        with self._lock:
            now = monotonic()
            start = max(self._free_at, now)
            self._free_at = start + size / self._rate
        if start > now:
            sleep(start - now)


class Connection(StreamRequestHandler):
    server: "ImageServer"

    def setup(self) -> None:
        if self.server.tls is not None:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        while request := self.rfile.readline():
            while self.rfile.readline() != b"\r\n":
                pass
            self.send_image(request.strip())

    def send_image(self, request: bytes) -> None:
        # A chunk with the hash of the request line makes each image different.
        before = BEFORE + chunk(b"tEXt", sha256(request).digest())
        headers = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
        self.request.setsockopt(IPPROTO_TCP, TCP_CORK, 1)
        self.request.sendall(headers % (len(before) + len(AFTER)) + before)
        for start in range(0, len(AFTER), PIECE):
            piece = memoryview(AFTER)[start : start + PIECE]
            self.server.line.wait(len(piece))
            self.request.sendall(piece)
        self.request.setsockopt(IPPROTO_TCP, TCP_CORK, 0)


class ImageServer(ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, line: Line, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.line, self.tls = line, tls


def tls_of(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def main(rate: str = "inf", *certificate: str) -> None:
    [tls] = [tls_of(each) for each in certificate] or [None]
    server = ImageServer(Line(float(rate)), tls)
    Thread(target=server.serve_forever, daemon=True).start()
    host, port = server.server_address
    print(f"{'https' if tls else 'http'}://{host}:{port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
