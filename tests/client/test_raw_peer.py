"""Below the emulator: what a server can do that a web framework cannot do wrong."""

import asyncio
import gzip
import zlib
from functools import cache

import pytest
from support.raw_peer import REQUEST, RESET, SILENCE, RawPeer, Repeat, drop_by_drop
from support.reliability_page import outcome_of, table

from kie_cover_async import RetryPolicy, TransportError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"code":200,"data":1.5}'
ONCE = RetryPolicy(max_attempts=1)


def answer(body=BODY, fields=b"", status=b"200 OK"):
    """A complete answer with these header lines."""
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return b"HTTP/1.1 " + status + b"\r\n" + fields + length + body


def announced(size, fields=b""):
    """The header of an answer whose body has this size."""
    return HEAD + fields + b"Content-Length: %d\r\n\r\n" % size


@cache
def bomb(encoding):
    """Return a response of 64 MiB in a few hundred KiB, or one that only claims an encoding."""
    compressed = {
        "gzip": lambda zeros: gzip.compress(zeros, 1),
        "deflate": lambda zeros: zlib.compress(zeros, 1),
        "bare deflate": lambda zeros: zlib.compress(zeros, 1, -15),
    }.get(encoding, lambda zeros: zeros[:KIB])(bytes(64 * MIB))
    return answer(compressed, b"Content-Encoding: %s\r\n" % encoding.encode().split()[-1])


OK = answer()
PEERS = {
    "hangs up": [],
    "is silent": [SILENCE],
    "resets the connection": [RESET],
    "speaks another protocol": [b"SSH-2.0-OpenSSH\r\n\r\n"],
    "speaks TLS": [bytes.fromhex("15030300020228")],
    "speaks HTTP/2": [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18)],
    "sends the body alone": [BODY],
    "sends half a status line, and hangs up": [b"HTTP/1.1 20"],
    "sends half a status line, and is silent": [b"HTTP/1.1 20", SILENCE],
    "sends a status line without a number": [b"HTTP/1.1 OK\r\n\r\n"],
    "sends a status of six digits": [answer(status=b"200200 OK")],
    "sends a header without a colon": [HEAD + b"no header at all\r\n\r\n"],
    "sends a header line of 20 KB": [HEAD + b"X: " + b"x" * 20_000 + b"\r\n\r\n"],
    "sends a header line without an end": [HEAD + b"X: ", Repeat(bytes(KIB))],
    "sends header lines without an end": [HEAD, Repeat(b"X: x\r\n" * KIB)],
    "sends a NUL in a header": [answer(fields=b"X: \x00\r\n")],
    "sends a header that is not text": [answer(fields=b"X: \xff\xfe\r\ncf-ray: \xff\r\n")],
    "sends a header of two lines": [answer(fields=b"X: a\r\n b\r\n")],
    "sets 100 cookies": [answer(fields=b"Set-Cookie: a=%s\r\n" % (b"b" * 60) * 100)],
    "sets 10,000 cookies": [answer(fields=b"Set-Cookie: a=b\r\n" * 10_000)],
    "announces an endless number of bytes": [
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"
    ],
    "announces less than nothing": [HEAD + b"Content-Length: -1\r\n\r\n" + BODY],
    "announces two lengths": [answer(fields=b"Content-Length: 5\r\n")],
    "announces a length, and chunks": [answer(fields=b"Transfer-Encoding: chunked\r\n")],
    "sends less than announced, and hangs up": [announced(100), BODY],
    "sends less than announced, and is silent": [announced(100), BODY, SILENCE],
    "resets the connection in the body": [announced(100), BODY, 0.1, RESET],
    "announces 1 GiB, and sends it": [announced(GIB), Repeat(bytes(64 * KIB))],
    "sends 1 GiB in chunks": [CHUNKED, Repeat(b"10000\r\n" + bytes(64 * KIB) + b"\r\n")],
    "sends 1 GiB without saying so": [HEAD + b"\r\n", Repeat(bytes(64 * KIB))],
    "sends a gzip bomb": [bomb("gzip")],
    "sends a deflate bomb": [bomb("deflate")],
    "sends a deflate bomb without a header": [bomb("bare deflate")],
    "says gzip, and sends something else": [answer(fields=b"Content-Encoding: gzip\r\n")],
    "says br, and sends something else": [bomb("br")],
    "says zstd, and sends something else": [bomb("zstd")],
    "sends half of what it compressed": [
        answer(gzip.compress(BODY)[:20], b"Content-Encoding: gzip\r\n")
    ],
    "sends a chunk size that is not a number": [CHUNKED + b"ZZ\r\n" + BODY + b"\r\n"],
    "sends a second chunk size that is not a number": [CHUNKED + b"17\r\n" + BODY + b"\r\nZZ\r\n"],
    "sends a chunk shorter than its size": [CHUNKED + b"FFFF\r\n" + BODY],
    "sends a chunk longer than its size": [CHUNKED + b"2\r\n" + BODY + b"\r\n0\r\n\r\n"],
    "sends a chunk size past all numbers": [CHUNKED + b"F" * 17 + b"\r\n" + BODY, SILENCE],
    "sends a chunk size without an end": [CHUNKED, Repeat(b"0" * KIB, pause=0.5)],
    "sends trailers without an end": [CHUNKED + b"0\r\n", Repeat(b"X: x\r\n" * KIB, pause=0.5)],
    "sends a byte a second, the header first": drop_by_drop(OK),
    "sends a byte a second of the body": [announced(len(BODY)), *drop_by_drop(BODY), SILENCE],
    "sends the right answer, and more": [OK + b"666"],
    "sends the right answer twice": [OK + OK],
    "sends the right answer in pieces": [OK[:9], 1.0, OK[9:-5], 1.0, OK[-5:]],
    "says 100 and 103 before the answer": [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK
    ],
    "says 103 again and again": [Repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 99, pause=0.5)],
    "switches protocols": [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", SILENCE],
    "redirects": [answer(b"", fields=b"Location: http://127.0.0.1:9/\r\n", status=b"302 Found")],
    "sends a body where there is none": [answer(status=b"204 No Content")],
    "says HTTP/1.0, and hangs up after the body": [b"HTTP/1.0 200 OK\r\n\r\n" + BODY],
}
PASSING = ("`TransportError`", "`TransportError` by timeout", "`InvalidResponseError`")
ROWS = table("## A server that breaks the rules")


def test_the_page_has_every_peer():
    """Each peer here has its row on the page, and each row there its peer, in the same order."""
    assert [row["the server"] for row in ROWS] == list(PEERS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["the server"])
@pytest.mark.usefixtures("bounded")
async def test_a_broken_response_ends_as_the_page_says(
    instant_time, play, connect, eventually, row
):
    """Whatever a server sends, the request ends in time as the page says."""
    peer = await play(PEERS[row["the server"]])
    client = connect(peer, retry=ONCE, request_timeout=30.0)
    started = instant_time.elapsed
    assert await outcome_of(client.get_credits()) == row["outcome"]
    assert instant_time.elapsed - started <= 30.0
    # aiohttp repeats a GET by itself where a connection broke before a whole header came.
    assert len(peer.requests) <= 2
    assert peer.bytes_sent < 16 * MIB
    await client.aclose()
    await eventually(lambda: peer.open_connections == 0)
    assert client._transport.polls.places._free == client._max_concurrent_requests


FLOODS = [b"HTTP/1.1 103 Early Hints\r\n\r\n", CHUNKED, b""]


@pytest.mark.parametrize("head", FLOODS, ids=["103", "chunk size", "status line"])
@pytest.mark.usefixtures("bounded")
async def test_a_flood_does_not_delay_the_request_timeout(play, connect, head):
    """An endless fast body ends at the request timeout by the real clock."""
    peer = await play([head, Repeat(head if head in FLOODS[:1] else b"0" * KIB)])
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(TransportError):
        await connect(peer, retry=ONCE, request_timeout=0.2).get_credits()
    assert loop.time() - started < 2


SURPLUS = answer(b'{"code":200,"data":666}')


@pytest.mark.parametrize("pause", [0.0, 0.5], ids=["immediately", "later"])
async def test_unrequested_answer_is_not_read(instant_time, play, connect, pause):
    """What a server sends beyond its answer is not read as the answer to the next request."""
    peer = await play([OK, pause, SURPLUS, REQUEST, SURPLUS, SILENCE], [OK, REQUEST, OK, SILENCE])
    client = connect(peer, retry=ONCE)
    for _ in range(3):
        assert await client.get_credits() == 1.5
        await asyncio.sleep(1.0)
    assert (peer.connections, len(peer.requests)) == (2, 3)


async def test_late_answer_of_another_id_is_refused(
    instant_time, play, connect, make_session, eventually
):
    """An external session reuses such a connection, so the record of another id is refused."""
    records = [
        answer(b'{"code":200,"data":{"taskId":"%s","successFlag":2}}' % name)
        for name in (b"a", b"a", b"b", b"b")
    ]
    peer = await play([records[0], 0.1, records[1], *_in_turn(records[2:]), SILENCE])
    client = connect(peer, session=make_session())
    assert (await client.get_cover_details("a")).task_id == "a"
    await asyncio.sleep(1.0)
    assert (await client.get_cover_details("b")).task_id == "b"
    await eventually(lambda: len(peer.requests) == 3)
    assert peer.connections == 1


def _in_turn(answers):
    return [step for each in answers for step in (REQUEST, each)]


@pytest.mark.parametrize("ending", [[], [RESET]], ids=["close", "reset"])
@pytest.mark.parametrize("asked", [[], [REQUEST]], ids=["idle", "as it is asked"])
async def test_request_is_repeated_if_a_kept_connection_ends(
    instant_time, play, connect, ending, asked
):
    """A request on a kept connection that ends before the answer's first byte is repeated."""
    peer = await play([OK, *asked, *ending], [OK, SILENCE])
    client = connect(peer, retry=ONCE)
    assert await client.get_credits() == 1.5
    await asyncio.sleep(1.0)
    assert await client.get_credits() == 1.5
    assert peer.connections == 2


async def test_a_server_that_greets_is_asked_once(instant_time, play, connect):
    """A server that speaks first, on every connection, is not connected to again and again."""
    peer = RawPeer.of([b"220 ready\r\n", REQUEST, SILENCE])
    async with peer:
        with pytest.raises(TransportError):
            await connect(peer, retry=ONCE).get_credits()
    assert peer.connections <= 2


async def test_a_wait_survives_all_broken_responses(instant_time, play, connect):
    """A wait continues through all of them in turn, and returns its cover."""
    done = (
        b'{"code":200,"data":{"taskId":"id","successFlag":1,"response":{"images":["http://a/b"]}}}'
    )
    passing = [row["the server"] for row in ROWS if row["outcome"] in PASSING]
    peer = await play(*map(PEERS.get, passing), [answer(done)])
    details = await connect(peer, request_timeout=30.0).wait_for_cover("id", timeout=None)
    assert details.is_success
