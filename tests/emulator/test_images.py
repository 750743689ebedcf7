import struct
import zlib
from itertools import pairwise

import pytest

from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.emulator.images import png


def decoded(image: bytes) -> tuple[int, int, bytes]:
    """Width, height and unpacked rows of a PNG, with its checksums tested on the way."""
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(image):
        [length] = struct.unpack_from(">I", image, at)
        kind, content = image[at + 4 : at + 8], image[at + 8 : at + 8 + length]
        [checksum] = struct.unpack_from(">I", image, at + 8 + length)
        assert checksum == zlib.crc32(kind + content)
        chunks[kind] = content
        at += length + 12
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *kind = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert kind == [8, 2, 0, 0, 0]
    return width, height, zlib.decompress(chunks[b"IDAT"])


@pytest.mark.parametrize("size", [1, 2, 64, 300])
def test_an_image_is_a_valid_png(size):
    """An image is a PNG with three bytes per pixel, each row after a zero for "no filter"."""
    width, height, rows = decoded(png("name", size))
    assert (width, height, len(rows)) == (size, size, size * (1 + 3 * size))
    assert set(rows[:: 1 + 3 * size]) == {0}


def test_an_image_is_a_diagonal_gradient():
    """Each row is the one above, shifted by a pixel."""
    _, _, pixels = decoded(png("name", 32))
    rows = [pixels[at + 1 : at + 97] for at in range(0, len(pixels), 97)]
    assert all(below[:-3] == above[3:] for above, below in pairwise(rows))
    assert rows[0][:3] != rows[-1][-3:]


def test_images_differ():
    """Each name always has the same image, different from the others."""
    assert len({png(str(number), 8) for number in range(200)}) == 200
    assert png("name", 8) == png("name", 8)


async def images_of(caller, **script):
    task_id = caller.emulator.add_job(CoverScript(seconds=0, **script))
    return (await caller.record(task_id))["data"]["response"]["images"]


async def test_images_are_on_the_second_origin(start):
    """A cover's images are on the second origin, with a length, of the configured size."""
    caller = await start(image_size=10)
    bodies = []
    for url in await images_of(caller):
        assert url.startswith(caller.emulator.image_url + "/s/")
        async with caller.session.get(url) as answer:
            bodies.append(await answer.read())
            assert answer.headers["Content-Type"] == "image/png"
            assert answer.headers["Content-Length"] == str(len(bodies[-1]))
            assert "Set-Cookie" not in answer.headers
    assert [decoded(body)[:2] for body in bodies] == [(10, 10), (10, 10)]
    assert bodies[0] != bodies[1]


async def test_images_refuse_keys(caller):
    """The image host refuses any request with an Authorization header."""
    [url] = await images_of(caller, images=1)
    async with caller.session.get(url, headers={"Authorization": ""}) as answer:
        assert (answer.status, await answer.read()) == (403, b"")


async def test_an_unknown_image_is_404(caller):
    """An unknown image is HTTP 404."""
    async with caller.session.get(caller.emulator.image_url + "/s/1_a.png") as answer:
        assert answer.status == 404


async def test_image_requests_are_recorded_and_may_have_faults(caller):
    """Image requests are recorded with the job's id, and faults can be for it."""
    [url] = await images_of(caller, images=1)
    task_id = caller.emulator.requests[0].task_id
    caller.emulator.fault(Fault.answer(403, b""), endpoint="image", task_id=task_id)
    statuses = []
    for _ in range(2):
        async with caller.session.get(url) as answer:
            statuses.append(answer.status)
    assert statuses == [403, 200]
    seen = caller.emulator.requests[1:]
    assert [(request.endpoint, request.task_id) for request in seen] == [("image", task_id)] * 2


async def test_a_truncated_image_is_half_the_image(caller):
    """A truncated image is a complete HTTP answer with half of the image."""
    [url] = await images_of(caller, images=1)
    caller.emulator.fault(Fault.truncated_json(), endpoint="image")
    sizes = []
    for _ in range(2):
        async with caller.session.get(url) as answer:
            sizes.append(len(await answer.read()))
    assert sizes[0] == sizes[1] // 2
