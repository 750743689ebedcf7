import asyncio
import os
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest
from attrs import evolve, frozen
from support.cancellation import AS_IT_WAKES, WHILE_WAITING, InterruptedAt

from kie_cover_async import (
    ClientClosedError,
    CoverClient,
    CoverDetails,
    DownloadError,
    InvalidRequestError,
    ServerError,
    descriptors,
)
from kie_cover_async.archive import CoverArchive, SavedImage
from kie_cover_async.archive.formats import NoImageError
from kie_cover_async.archive.parts import part_files
from kie_cover_async.archive.saving import _Wanted
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.emulator.images import png


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix in {".png", ".part"})


def fetched(emulator):
    return [request.path for request in emulator.requests if request.endpoint == "image"]


async def test_a_cover_is_saved(emulator, client, archive, cover):
    """Its images lie in the folder, and what is said of them is what they are."""
    details = await cover("an-id")
    saved = await archive.save(client, details)
    assert names(archive.folder) == ["an-id-1.png", "an-id-2.png"]
    assert (saved.task_id, saved.state, saved.details) == ("an-id", "saved", details)
    assert saved.expires_at == details.expires_at
    for number, (image, url) in enumerate(zip(saved.images, details.images, strict=True), 1):
        content = image.path.read_bytes()
        assert image.path == archive.folder / f"an-id-{number}.png"
        assert (image.number, image.url) == (number, url)
        assert image.sha256 == sha256(content).hexdigest()
        assert (image.size, image.media_type) == (len(content), "image/png")
        assert (image.width, image.height) == (64, 64)
    assert await archive.find("an-id") == saved
    assert len(fetched(emulator)) == 2


async def test_nothing_is_fetched_twice(emulator, client, archive, cover):
    """What is here is not fetched again, and what is asked for at once is fetched once."""
    details = await cover()
    first, *others = await asyncio.gather(*[archive.save(client, details) for _ in range(3)])
    assert all(other == first for other in others)
    assert await archive.save(client, details) == first
    assert len(fetched(emulator)) == 2


async def test_a_whole_image_without_a_record_is_adopted(emulator, client, opened, cover):
    """Where the record is lost, the images are taken over, and read again rather than fetched."""
    details, archive = await cover(), await opened()
    saved = await archive.save(client, details)
    await archive.aclose()
    (archive.folder / "covers.sqlite3").unlink()
    archive = await opened()
    assert await archive.find(details.task_id) is None
    again = await archive.save(client, details)
    assert again.images == saved.images
    assert (await archive.verify()).ok
    assert len(fetched(emulator)) == 2


def pipe(path):
    """Nobody ever writes into it."""
    path.unlink()
    os.mkfifo(path)


def zeroed(path):
    """A page of it was never written."""
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(50) + content[150:])


SPOILT = {
    "missing": lambda path: path.unlink(),
    "altered": lambda path: path.write_bytes(path.read_bytes()[:-5] + b"12345"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "empty": lambda path: path.write_bytes(b""),
    "zeroed": zeroed,
    "a pipe": pipe,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
async def test_what_is_not_whole_is_fetched_again(emulator, client, archive, cover, spoil):
    """The one image that is not as it was is fetched, the other one is not."""
    details = await cover()
    saved = await archive.save(client, details)
    spoil(saved.images[0].path)
    assert (await archive.save(client, details)).images == saved.images
    assert (await archive.verify()).ok
    assert len(fetched(emulator)) == 3


@pytest.mark.parametrize("kind", ["missing", "cut off", "empty", "zeroed", "a pipe"])
async def test_what_is_not_whole_is_not_adopted(emulator, client, opened, cover, kind):
    """Without a record, too, the one image that is not whole is fetched."""
    details, archive = await cover(), await opened()
    saved = await archive.save(client, details)
    await archive.aclose()
    (archive.folder / "covers.sqlite3").unlink()
    SPOILT[kind](saved.images[0].path)
    archive = await opened()
    assert (await archive.save(client, details)).images == saved.images
    assert len(fetched(emulator)) == 3


async def test_an_image_of_another_kind_under_the_name(emulator, client, archive, cover):
    """A whole image whose name lies about its kind is not adopted."""
    details = await cover("an-id")
    saved = await archive.save(client, details)
    other = await cover("other")
    (archive.folder / "other-1.jpg").write_bytes(saved.images[0].path.read_bytes())
    await archive.save(client, other)
    assert len(fetched(emulator)) == 2


async def test_an_id_that_is_no_name(client, archive, cover):
    """An id that would lead out of the folder does not."""
    details = await cover("../../an.id")
    saved = await archive.save(client, details)
    assert {image.path.parent for image in saved.images} == {archive.folder}


def png_of(width):
    """A PNG that states to be so wide, and to be whole."""
    header = b"IHDR" + 2 * width.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    image = png("a", 64)
    return image[:12] + header + crc32(header).to_bytes(4, "big") + image[33:]


PASSING = {
    "cut off": Fault.truncated_json(),
    "a reset": Fault.reset(midway=True),
    "a page": Fault.gateway_page(200),
    "nothing": Fault.answer(200),
    "no image": Fault.answer(200, {"code": 404}),
    "zeros in the middle": Fault.answer(200, png("a", 64)[:100] + bytes(50) + png("a", 64)[150:]),
    "too many pixels": Fault.answer(200, png_of(50_000)),
    "a server in trouble": Fault.server_error(502, in_envelope=False),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
async def test_what_passes_is_overcome(client, emulator, archive, cover, fault):
    """A body that is no whole image is fetched again, and nothing of it stays."""
    details = await cover("an-id")
    emulator.fault(fault, endpoint="image", count=2)
    await archive.save(client, details)
    assert (await archive.verify()).ok
    assert names(archive.folder) == ["an-id-1.png", "an-id-2.png"]


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
async def test_what_is_no_image_is_not_kept(client, emulator, archive, cover, fault):
    """Where it never gets better, there is an error and no file, and the cover stays pending."""
    details = await cover()
    emulator.fault(fault, endpoint="image", rate=1.0)
    with pytest.raises(DownloadError) as caught:
        await archive.save(client, details)
    assert caught.value.task_id == details.task_id
    assert caught.value.url == details.images[0]
    assert names(archive.folder) == []
    assert [each.task_id for each in await archive.pending()] == [details.task_id]


async def test_one_error_does_not_lose_the_other_image(client, emulator, archive, cover):
    """Both are tried; what was saved is noted, and the next time only the other is fetched."""
    details = await cover("an-id")
    emulator.fault(Fault.answer(400), endpoint="image", count=1)
    with pytest.raises(DownloadError, match="the host answered 400"):
        await archive.save(client, details)
    pending = await archive.find("an-id")
    assert pending.state == "pending"
    assert len(pending.images) == 1
    emulator.requests.clear()
    assert (await archive.save(client, details)).state == "saved"
    assert len(fetched(emulator)) == 1


async def test_an_image_that_is_too_large(client, emulator, opened, cover):
    """It is given up at the limit, and not asked for again."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(200, b"\x89PNG" + bytes(1001 - 4)), endpoint="image")
    archive = await opened(max_image_bytes=1000)
    with pytest.raises(DownloadError, match="more than 1000 bytes"):
        await archive.save(client, details)
    assert names(archive.folder) == []
    await archive.save(client, details)
    assert len(fetched(emulator)) == 2


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_stale_link_is_renewed(client, emulator, archive, cover, status):
    """A link that is refused is renewed once, and the image comes from the fresh one."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(status), endpoint="image")
    saved = await archive.save(client, details)
    assert [request.endpoint for request in emulator.requests] == ["image", "download-url", "image"]
    assert "expires" in emulator.requests[-1].query
    assert saved.images[0].url == details.images[0]


async def test_a_fresh_link_is_not_renewed(client, emulator, archive, cover):
    """Where the fresh link is refused too, that is the error."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(403), endpoint="image", rate=1.0)
    with pytest.raises(DownloadError) as caught:
        await archive.save(client, details)
    assert caught.value.http_status == 403
    assert len(emulator.requests) == 3


async def test_a_link_that_cannot_be_renewed(client, emulator, archive, cover):
    """The host's answer stands, and the API's is its cause."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(404), endpoint="image")
    emulator.fault(Fault.answer(200, {"code": 422, "msg": "url is wrong"}), endpoint="download-url")
    with pytest.raises(DownloadError) as caught:
        await archive.save(client, details)
    assert caught.value.http_status == 404
    assert isinstance(caught.value.__cause__, InvalidRequestError)


async def test_renewal_that_fails_in_passing_is_the_error(client, emulator, archive, cover):
    """Without an answer of the API's nobody knows whether the image is gone."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(404), endpoint="image")
    emulator.fault(Fault.server_error(), endpoint="download-url", rate=1.0)
    with pytest.raises(ServerError):
        await archive.save(client, details)


@pytest.fixture
async def saving(client, archive, cover):
    """Saves a cover over connections that are open already."""
    await archive.save(client, await cover())
    details = await cover()
    return lambda: archive.save(client, details)


async def test_save_waits_for_a_free_descriptor(saving, open_files, until, caplog):
    """While no file can be opened an image waits, and is written as soon as one can."""
    with open_files(3):
        running = asyncio.create_task(saving())
        await until(lambda: caplog.records)
    assert "too many open files: waiting" in caplog.records[0].getMessage()
    assert len((await running).images) == 2


async def test_save_without_a_free_descriptor_fails_in_the_end(
    saving, archive, open_files, monkeypatch
):
    """The error says why; the cover is pending, and the next save brings it."""
    monkeypatch.setattr(descriptors, "_LONGEST_WAIT", 0.1)
    with open_files(3), pytest.raises(OSError, match="Too many open files"):
        await saving()
    assert len(await archive.pending()) == 1
    assert (await saving()).state == "saved"


async def test_verify_without_a_free_descriptor_blames_no_image(
    saving, archive, open_files, monkeypatch
):
    """An image that could not be opened for that reason is not called unreadable."""
    await saving()
    monkeypatch.setattr(descriptors, "_LONGEST_WAIT", 0.0)
    with open_files(3), pytest.raises(OSError, match="Too many open files"):
        await archive.verify()
    assert (await archive.verify()).ok


async def test_large_image_waits_for_a_free_descriptor(saving, emulator, open_files, until, caplog):
    """So does one that is written as it comes."""
    content = _large_png()
    emulator.fault(Fault.answer(200, content), endpoint="image", rate=1.0)
    with open_files(3):
        running = asyncio.create_task(saving())
        await until(lambda: caplog.records)
    assert [image.size for image in (await running).images] == [len(content)] * 2


async def test_so_many_at_once(client, emulator, opened, cover):
    """No more images than that are under way."""
    archive = await opened(max_concurrent_downloads=2)
    covers = [await cover() for _ in range(4)]
    emulator.fault(Fault.slow(0.1), endpoint="image", rate=1.0)
    await asyncio.gather(*[archive.save(client, details) for details in covers])
    arrivals = [request.received for request in emulator.requests]
    assert max(sum(a <= b < a + 0.1 for b in arrivals) for a in arrivals) <= 2


async def test_a_large_image_is_written_as_it_comes(client, emulator, archive, cover):
    """An image of several pieces is put together right, after a try that was cut off too."""
    details = await cover(images=1)
    content = _large_png()
    emulator.fault(Fault.answer(200, content[:4_400_000]), endpoint="image")
    emulator.fault(Fault.answer(200, content), endpoint="image")
    [image] = (await archive.save(client, details)).images
    assert image.path.read_bytes() == content
    assert image.sha256 == sha256(content).hexdigest()


class Piece(bytes):
    """Counts how many of its kind are in memory, and were at most."""

    alive = most = 0

    def __init__(self, _):
        Piece.alive += 1
        Piece.most = max(Piece.most, Piece.alive)

    def __del__(self):
        Piece.alive -= 1


class InPieces:
    """A client whose image comes two bytes at a time."""

    def __init__(self, content):
        self.content, self.downloader = content, self

    async def fetch(self, _url, receive, **_):
        return await receive(self.pieces())

    async def pieces(self):
        for start in range(0, len(self.content), 2):
            yield Piece(self.content[start : start + 2])


async def test_an_image_in_small_pieces(archive, cover):
    """However small they are, few of them are in memory, and the image is put together right."""
    details, content = await cover(images=1), _large_png(20_000)
    [image] = (await archive.save(InPieces(content), details)).images
    assert image.path.read_bytes() == content
    assert Piece.most < 1100


def _large_png(size=4_500_000):
    small, content = png("a", 1), b"IDAT" + os.urandom(size)
    data = size.to_bytes(4, "big") + content + crc32(content).to_bytes(4, "big")
    # The header of the small one, and its end.
    return small[:33] + data + small[-12:]


@pytest.mark.parametrize(
    ("details", "error"),
    [
        (CoverDetails(task_id="a", success_flag=2), ValueError),
        (CoverDetails(task_id="a", success_flag=1), ValueError),
        ({"taskId": "a"}, TypeError),
        (None, TypeError),
    ],
)
async def test_what_cannot_be_saved(client, archive, details, error):
    """Only a cover with images can be; the error names the argument."""
    with pytest.raises(error, match="details must be"):
        await archive.save(client, details)
    assert await archive.pending() == []


@frozen
class LateSave:
    """A save that has asked for both images and gets neither."""

    archive: CoverArchive
    client: CoverClient
    details: CoverDetails
    saving: asyncio.Task


@pytest.fixture
async def late(emulator, connect, archive, cover, until):
    details, client = await cover(), connect()
    emulator.fault(Fault.stall(midway=True), endpoint="image", count=2)
    saving = asyncio.create_task(archive.save(client, details))
    await until(lambda: len(emulator.requests) == 2)
    return LateSave(archive, client, details, saving)


async def test_another_archive_was_quicker(client, opened, late):
    """What this save could not have and another archive has brought meanwhile is here."""
    saved = await (await opened()).save(client, late.details)
    await late.client.aclose()
    assert await late.saving == saved
    assert await late.archive.saved() == [saved]


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"other")])
async def test_another_archive_was_quicker_in_vain(client, opened, late, spoil):
    """Whether a cover is saved hangs on what is on the disk, and not on what was noted of it."""
    saved = await (await opened()).save(client, late.details)
    spoil(saved.images[1].path)
    await late.client.aclose()
    with pytest.raises(ClientClosedError):
        await late.saving
    assert [each.task_id for each in await late.archive.pending()] == [saved.task_id]


async def test_a_disk_that_refuses(client, archive, cover):
    """What the system says is passed on, and nothing half written stays."""
    details = await cover("an-id")
    (archive.folder / "an-id-1.png").mkdir()
    with pytest.raises(OSError, match=r"an-id-1\.png"):
        await archive.save(client, details)
    assert names(archive.folder) == ["an-id-1.png", "an-id-2.png"]
    assert [image.number for image in (await archive.find("an-id")).images] == [2]


async def test_a_disk_that_takes_a_part(client, emulator, archive, cover, small_disk):
    """A disk that becomes full in the middle is what the error says, and no image that is cut off:
    it is fetched once."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(200, _large_png()), endpoint="image", rate=1.0)
    with small_disk(), pytest.raises(OSError, match=r"File too large: '.*covers/\..*\.part'"):
        await archive.save(client, details)
    assert len(fetched(emulator)) == 1
    assert names(archive.folder) == []


async def test_closing_the_client_ends_it(client, emulator, archive, cover, until):
    """A save whose client closes raises that, and leaves nothing half written."""
    details = await cover()
    emulator.fault(Fault.stall(midway=True), endpoint="image", rate=1.0)
    saving = asyncio.create_task(archive.save(client, details))
    await until(lambda: len(emulator.requests) == 2)
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await saving
    assert names(archive.folder) == []


async def test_closing_the_archive_waits(client, emulator, opened, cover, until):
    """A save that is running when the archive closes is brought to its end; none begins after."""
    details = await cover()
    emulator.fault(Fault.slow(0.1), endpoint="image", rate=1.0)
    archive = await opened()
    saves = [asyncio.create_task(archive.save(client, details)) for _ in range(2)]
    await until(lambda: emulator.requests)
    await archive.aclose()
    assert [(await save).state for save in saves] == ["saved", "saved"]
    with pytest.raises(RuntimeError, match="not open"):
        await archive.save(client, details)


@pytest.mark.parametrize("moment", [WHILE_WAITING, AS_IT_WAKES])
async def test_cancelling_at_any_moment(client, emulator, archive, moment):
    """An image that is cancelled at any of its awaits leaves nothing half written, and can be
    saved after that."""
    emulator.fault(Fault.answer(404), endpoint="image", rate=0.5)
    wait, interrupted = 0, True
    while interrupted:
        job = emulator.add_job(CoverScript(statuses=["success"], images=1))
        details = await client.get_cover_details(job)
        [url] = details.images
        image = _Wanted(task_id=job, number=1, url=url, lies_there=True)
        saving = InterruptedAt(wait, moment, archive._saver._save(client, image))
        [outcome] = await asyncio.gather(asyncio.create_task(saving.run()), return_exceptions=True)
        interrupted = saving.interrupted
        assert isinstance(outcome, (SavedImage, asyncio.CancelledError, DownloadError))
        assert not [name for name in names(archive.folder) if name.endswith(".part")]
        wait += 1
    assert wait > 4
    emulator.clear_faults()
    await archive.save(client, details)
    assert (await archive.verify()).ok


async def test_cancelling_a_save(client, emulator, archive, cover, until):
    """Both images end with it, and the next save goes on."""
    details = await cover()
    emulator.fault(Fault.stall(midway=True), endpoint="image", count=2)
    saving = asyncio.create_task(archive.save(client, details))
    await until(lambda: len(emulator.requests) == 2)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert names(archive.folder) == []
    assert (await archive.save(client, details)).state == "saved"


def test_what_was_discarded_is_not_written(tmp_path):
    """A thread that comes too late makes no file."""
    part = next(part_files(tmp_path))
    part.discard()
    with pytest.raises(NoImageError):
        part.write([b"too late"], anew=True)
    assert [*tmp_path.iterdir()] == []


@pytest.fixture
def settled_again(client, archive, cover):
    """Notes an image of a saved cover once more, as somebody whose file was another one would."""

    async def settled_again(lies_there):
        details = await cover(images=1)
        [image] = (await archive.save(client, details)).images
        image.path.unlink()
        if lies_there is not None:
            image.path.write_bytes(lies_there)
        own = evolve(image, sha256="0" * 64, size=7)
        return await archive._saver.threads.note(
            lambda record: record.settle(details, [own], saved=True)
        )

    return settled_again


async def test_another_image_in_its_place(archive, settled_again):
    """Of two that save one image in different bytes, the record has the one that lies there."""
    other = png("another", 64)
    [image] = (await settled_again(other)).images
    assert (image.sha256, image.size) == (sha256(other).hexdigest(), len(other))
    assert (await archive.verify()).ok


@pytest.mark.parametrize("lies_there", [None, b"no image"])
async def test_no_image_in_its_place(archive, settled_again, lies_there):
    """Whatever has become of it meanwhile, what was brought is noted, and `verify` finds it."""
    [image] = (await settled_again(lies_there)).images
    assert image.sha256 == "0" * 64
    [finding] = (await archive.verify()).findings
    assert finding.image == image


async def test_another_image_than_before(client, emulator, archive, cover, until):
    """What comes in the place of a lost image is noted at once: a save that is cancelled over
    another image leaves no row that contradicts its file."""
    details = await cover()
    threads = archive._saver.threads
    for image in (await archive.save(client, details)).images:
        image.path.unlink()
        wrong = evolve(image, sha256="0" * 64)
        await threads.note(lambda record, wrong=wrong: record.keep(details.task_id, wrong))
    emulator.requests.clear()
    emulator.fault(Fault.stall(midway=True), endpoint="image", count=1)
    saving = asyncio.create_task(archive.save(client, details))
    await until(lambda: any(archive.folder.glob("*.png")))
    await until(lambda: len(emulator.requests) == 2 and not threads._notes._is_busy)
    saving.cancel()
    await asyncio.wait([saving])
    assert len((await archive.verify()).findings) == 1
