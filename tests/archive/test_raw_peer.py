"""An image host that breaks the protocol, byte for byte, as docs/reliability.md lists it."""

import gzip
import re
import struct
import zlib

import pytest
from support.raw_peer import REQUEST, RESET, SILENCE, RawPeer, Repeat, drop_by_drop
from support.reliability_page import outcome_of, table

from kie_cover_async import (
    CoverClient,
    CoverDetails,
    CoverResponse,
    InvalidRequestError,
    RetryPolicy,
)
from kie_cover_async.archive import CoverArchive
from kie_cover_async.emulator.images import png

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
LARGEST = 8 * MIB
IMAGE = png("a", 64)
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ZEROS = Repeat(bytes(64 * KIB))


def answer(body=IMAGE, fields=b"", *, status=b"200 OK", length=None):
    """Return a complete answer, or one that announces another length."""
    size = len(body) if length is None else length
    head = b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n" % (status, fields, size)
    return head + body


PNG_START, PNG_END = IMAGE[:33], IMAGE[-12:]


def image_of(size):
    """Yield a PNG of this many bytes, piece by piece."""
    pixels = size - len(PNG_START) - len(PNG_END) - 12
    pieces, rest = divmod(pixels, 64 * KIB)
    yield answer(PNG_START + struct.pack(">I4s", pixels, b"IDAT"), length=size)
    checksum = zlib.crc32(b"IDAT")
    for piece in [bytes(64 * KIB)] * pieces:
        checksum = zlib.crc32(piece, checksum)
        yield piece
    yield bytes(rest) + struct.pack(">I", zlib.crc32(bytes(rest), checksum)) + PNG_END


def bomb(compress, start=b""):
    """Return 16 MiB compressed to about 16 KiB."""
    encoding = b"Content-Encoding: %s\r\n" % (b"gzip" if compress is gzip.compress else b"deflate")
    return answer(compress(start + bytes(16 * MIB)), encoding)


def redirect(location):
    return answer(b"", b"Location: %s\r\n" % location, status=b"302 Found")


PACKED = b"Content-Encoding: gzip\r\n"
PEERS = {
    "hangs up": [],
    "is silent": [SILENCE],
    "resets the connection": [RESET],
    "speaks another protocol": [b"SSH-2.0-OpenSSH\r\n\r\n"],
    "speaks TLS": [bytes.fromhex("15030300020228")],
    "sends the image alone": [IMAGE],
    "sends a header line without an end": [HEAD + b"X: ", Repeat(bytes(KIB))],
    "sends header lines without an end": [HEAD, Repeat(b"X: x\r\n" * KIB)],
    "sets 10,000 cookies": [answer(fields=b"Set-Cookie: a=b\r\n" * 10_000)],
    "sends a header a byte a second": drop_by_drop(answer()),
    "says 103 again and again": [Repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n", pause=10.0)],
    "names a file elsewhere": [
        answer(fields=b"Content-Disposition: attachment; filename=../../a.sh\r\n")
    ],
    "says that it is a page": [answer(fields=b"Content-Type: text/html\r\n")],
    "sends a page": [answer(b"<!DOCTYPE html><title>Not Found</title>")],
    "sends nothing": [answer(b"")],
    "sends no body where there is none": [answer(b"", status=b"304 Not Modified")],
    "sends a part of it": [answer(IMAGE[:50], status=b"206 Partial Content")],
    "sends half of it, and says that it is all": [answer(IMAGE[:50])],
    "announces less than it sends": [answer(length=50)],
    "announces more than it sends, and hangs up": [answer(length=5000)],
    "announces more than it sends, and is silent": [answer(length=5000), SILENCE],
    "resets the connection in the body": [answer(length=5000), 0.1, RESET],
    "sends it without a length, and hangs up": [HEAD + b"\r\n" + IMAGE],
    "sends half of it without a length, and hangs up": [HEAD + b"\r\n" + IMAGE[:50]],
    "sends it in chunks": [CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(IMAGE), IMAGE)],
    "sends it in chunks, but for the last": [CHUNKED + b"%x\r\n%s\r\n" % (len(IMAGE), IMAGE)],
    "sends a chunk size that is not a number": [CHUNKED + b"ZZ\r\n" + IMAGE],
    "sends it, and another one": [answer() + answer(b"another")],
    "sends it, and bytes after its end": [answer(IMAGE + b"surplus")],
    "sends it 200 bytes a second": drop_by_drop(b"".join(image_of(10 * KIB)), 200),
    "sends it a byte a second": [answer(b"", length=len(IMAGE)), *drop_by_drop(IMAGE)],
    "sends a byte a second without an end": [
        answer(PNG_START, length=GIB),
        Repeat(b"\0", pause=1.0),
    ],
    "sends an image as large as may be": [*image_of(LARGEST), SILENCE],
    "sends an image a byte larger": [*image_of(LARGEST + 1), SILENCE],
    "announces 1 GiB, and sends it": [answer(PNG_START, length=GIB), ZEROS],
    "sends 1 GiB in chunks": [CHUNKED, Repeat(b"10000\r\n" + bytes(64 * KIB) + b"\r\n")],
    "sends 1 GiB without saying so": [HEAD + b"\r\n" + PNG_START, ZEROS],
    "compresses it, unasked": [answer(gzip.compress(IMAGE), PACKED)],
    "says gzip, and sends it as it is": [answer(fields=PACKED)],
    "sends half of what it compressed": [answer(gzip.compress(IMAGE)[:60], PACKED)],
    "sends a gzip bomb": [bomb(gzip.compress)],
    "sends a deflate bomb that begins as an image": [bomb(zlib.compress, PNG_START)],
    "redirects to itself": [redirect(b"/an-image.png")],
    "redirects to itself under other names": [redirect(b"?again")],
    "redirects to a private address": [redirect(b"https://10.0.0.1/an-image.png")],
    "redirects to itself, by https": [redirect(b"https://127.0.0.1/an-image.png")],
    "redirects to plain http elsewhere": [redirect(b"http://example.com/an-image.png")],
    "redirects to a file": [redirect(b"file:///etc/passwd")],
    "redirects to bytes that are not text": [redirect(b"\xff\xfe")],
}
ROWS = table("## A host of images that breaks the rules")


def test_the_page_lists_every_peer():
    """The rows of the page are the peers of this module, in the same order."""
    assert [row["the host"] for row in ROWS] == list(PEERS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["the host"])
@pytest.mark.usefixtures("bounded")
async def test_an_image_is_saved_completely_or_not_at_all(instant_time, tmp_path, eventually, row):
    """The page says for each peer whether the image is saved, or which error is raised."""
    async with RawPeer.of([REQUEST, *PEERS[row["the host"]]]) as peer:
        seen = await saved_from(peer, tmp_path)
        await eventually(lambda: peer.open_connections == 0)
    assert seen == row["outcome"]
    # aiohttp repeats a GET itself if a connection broke before a complete header.
    assert len(peer.requests) <= 6
    assert peer.bytes_sent < 3 * LARGEST
    assert not any(re.search(b"(?i)authorization|cookie", request) for request in peer.requests)


class Client(CoverClient):
    """A client whose API renews no link."""

    async def get_download_url(self, _):
        raise InvalidRequestError(code=422)


async def saved_from(peer, folder):
    """Save an image of this host, check what is in the folder, and return the outcome."""
    response = CoverResponse(images=(f"{peer.url}/an-image.png",))
    details = CoverDetails(task_id="an-id", success_flag=1, response=response)
    once = RetryPolicy(max_attempts=1)
    archive = CoverArchive(folder, max_image_bytes=LARGEST)
    async with archive, Client("a-key", base_url=peer.url, retry=once) as client:
        seen = await outcome_of(archive.save(client, details))
        assert (await archive.find("an-id")).state == ("saved" if seen == "value" else "pending")
        assert (await archive.verify()).ok
    files = {path.name for path in folder.iterdir()}
    assert files == {".in-use", "covers.sqlite3"} | ({"an-id-1.png"} if seen == "value" else set())
    return seen
