"""Saving covers: what is fetched, kept, adopted, and given up."""

import asyncio
import os
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest
from attrs import evolve, frozen
from support.cancellation import AS_IT_WAKES, WHILE_WAITING, CancelledAt

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
from kie_cover_async.archive.covers import record_image, record_save
from kie_cover_async.archive.saving import _WantedImage
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.emulator.images import png
from kie_cover_async.ledger import Api


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix in {".png", ".part"})


def fetched(emulator):
    return [request.path for request in emulator.requests if request.endpoint == "image"]


@pytest.mark.usefixtures("route")
async def test_a_saved_cover_is_described_correctly(emulator, client, archive, cover):
    """The images are in the folder, and hash, size and format are theirs."""
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


async def test_no_image_is_fetched_twice(emulator, client, archive, cover):
    """Concurrent saves of a cover fetch each image once, and a later save fetches none."""
    details = await cover()
    first, *others = await asyncio.gather(*[archive.save(client, details) for _ in range(3)])
    assert all(other == first for other in others)
    assert await archive.save(client, details) == first
    assert len(fetched(emulator)) == 2


async def test_a_complete_image_without_a_record_is_adopted(emulator, client, opened, cover):
    """If the record is lost, the images are read again and not fetched."""
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
    """Replace the file by a pipe that no process writes to."""
    path.unlink()
    os.mkfifo(path)


def zeroed(path):
    """Replace some bytes by zeros, as if they were never written."""
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(50) + content[150:])


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "altered": lambda path: path.write_bytes(path.read_bytes()[:-5] + b"12345"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "empty": lambda path: path.write_bytes(b""),
    "zeroed": zeroed,
    "a pipe": pipe,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_a_damaged_image_is_fetched_again(emulator, client, archive, cover, damage):
    """Only the damaged image is fetched, the other is not."""
    details = await cover()
    saved = await archive.save(client, details)
    damage(saved.images[0].path)
    assert (await archive.save(client, details)).images == saved.images
    assert (await archive.verify()).ok
    assert len(fetched(emulator)) == 3


@pytest.mark.parametrize("kind", ["missing", "cut off", "empty", "zeroed", "a pipe"])
async def test_a_damaged_image_is_not_adopted(emulator, client, opened, cover, kind):
    """If the record is lost, too, a damaged image is fetched again."""
    details, archive = await cover(), await opened()
    saved = await archive.save(client, details)
    await archive.aclose()
    (archive.folder / "covers.sqlite3").unlink()
    DAMAGE[kind](saved.images[0].path)
    archive = await opened()
    assert (await archive.save(client, details)).images == saved.images
    assert len(fetched(emulator)) == 3


async def test_an_image_with_the_wrong_suffix_is_not_adopted(emulator, client, archive, cover):
    """A complete image must have the suffix of its format."""
    details = await cover("an-id")
    saved = await archive.save(client, details)
    other = await cover("other")
    (archive.folder / "other-1.jpg").write_bytes(saved.images[0].path.read_bytes())
    await archive.save(client, other)
    assert len(fetched(emulator)) == 2


async def test_an_unsafe_id_stays_in_the_folder(client, archive, cover):
    """An id with path separators names no file outside the folder."""
    details = await cover("../../an.id")
    saved = await archive.save(client, details)
    assert {image.path.parent for image in saved.images} == {archive.folder}


def png_of(width):
    """Return a complete PNG that states this width and height."""
    header = b"IHDR" + 2 * width.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    image = png("a", 64)
    return image[:12] + header + crc32(header).to_bytes(4, "big") + image[33:]


TRANSIENT = {
    "cut off": Fault.truncated_json(),
    "a reset": Fault.reset(midway=True),
    "a page": Fault.gateway_page(200),
    "nothing": Fault.answer(200),
    "no image": Fault.answer(200, {"code": 404}),
    "zeros in the middle": Fault.answer(200, png("a", 64)[:100] + bytes(50) + png("a", 64)[150:]),
    "too many pixels": Fault.answer(200, png_of(50_000)),
    "a server error": Fault.server_error(502, in_envelope=False),
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
async def test_a_transient_fault_is_retried(client, emulator, archive, cover, fault):
    """A body that is not a complete image is fetched again, and none of it is kept."""
    details = await cover("an-id")
    emulator.fault(fault, endpoint="image", count=2)
    await archive.save(client, details)
    assert (await archive.verify()).ok
    assert names(archive.folder) == ["an-id-1.png", "an-id-2.png"]


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
async def test_a_permanent_fault_leaves_the_cover_pending(client, emulator, archive, cover, fault):
    """An error is raised, no file is left, and the cover stays pending."""
    details = await cover()
    emulator.fault(fault, endpoint="image", rate=1.0)
    with pytest.raises(DownloadError) as caught:
        await archive.save(client, details)
    assert caught.value.task_id == details.task_id
    assert caught.value.url == details.images[0]
    assert names(archive.folder) == []
    assert [each.task_id for each in await archive.pending()] == [details.task_id]


async def test_one_failed_image_does_not_lose_the_other(client, emulator, archive, cover):
    """The image that was saved is recorded, and the next save fetches only the other."""
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


async def test_an_image_over_the_size_limit_is_given_up(client, emulator, opened, cover):
    """The download ends at the limit, and is not repeated."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(200, b"\x89PNG" + bytes(1001 - 4)), endpoint="image")
    archive = await opened(max_image_bytes=1000)
    with pytest.raises(DownloadError, match="more than 1000 bytes"):
        await archive.save(client, details)
    assert names(archive.folder) == []
    await archive.save(client, details)
    assert len(fetched(emulator)) == 2


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_stale_link_is_renewed(client, emulator, archive, cover, status):
    """A refused link is renewed, and the image comes from the fresh one."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(status), endpoint="image")
    saved = await archive.save(client, details)
    assert [request.endpoint for request in emulator.requests] == ["image", "download-url", "image"]
    assert "expires" in emulator.requests[-1].query
    assert saved.images[0].url == details.images[0]


async def test_a_link_is_renewed_only_once(client, emulator, archive, cover):
    """If the host refuses the fresh link, too, that is the error."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(403), endpoint="image", rate=1.0)
    with pytest.raises(DownloadError) as caught:
        await archive.save(client, details)
    assert caught.value.http_status == 403
    assert len(emulator.requests) == 3


async def test_a_link_that_the_api_does_not_renew(client, emulator, archive, cover):
    """The error is the host's answer, and its cause is the API's."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(404), endpoint="image")
    emulator.fault(Fault.answer(200, {"code": 422, "msg": "url is wrong"}), endpoint="download-url")
    with pytest.raises(DownloadError) as caught:
        await archive.save(client, details)
    assert caught.value.http_status == 404
    assert isinstance(caught.value.__cause__, InvalidRequestError)


async def test_a_failed_renewal_is_the_error(client, emulator, archive, cover):
    """Without an answer of the API it is unknown whether the image is gone."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(404), endpoint="image")
    emulator.fault(Fault.server_error(), endpoint="download-url", rate=1.0)
    with pytest.raises(ServerError):
        await archive.save(client, details)


@pytest.fixture
async def saving(client, archive, cover):
    """A function that saves a cover over connections that are already open."""
    await archive.save(client, await cover())
    details = await cover()
    return lambda: archive.save(client, details)


async def test_save_waits_for_a_free_descriptor(saving, open_files, eventually, caplog):
    """While no file can be opened, an image waits; then it is written."""
    with open_files(3):
        running = asyncio.create_task(saving())
        await eventually(lambda: caplog.records)
    assert "too many open files: waiting" in caplog.records[0].getMessage()
    assert len((await running).images) == 2


async def test_save_without_a_free_descriptor_fails_in_the_end(
    saving, archive, open_files, monkeypatch
):
    """The error says why; the cover is pending, and the next save succeeds."""
    monkeypatch.setattr(descriptors, "_LONGEST_WAIT", 0.1)
    with open_files(3), pytest.raises(OSError, match="Too many open files"):
        await saving()
    assert len(await archive.pending()) == 1
    assert (await saving()).state == "saved"


async def test_verify_without_a_free_descriptor_blames_no_image(
    saving, archive, open_files, monkeypatch
):
    """An image that cannot be opened for this reason is not reported as unreadable."""
    await saving()
    monkeypatch.setattr(descriptors, "_LONGEST_WAIT", 0.0)
    with open_files(3), pytest.raises(OSError, match="Too many open files"):
        await archive.verify()
    assert (await archive.verify()).ok


async def test_large_image_waits_for_a_free_descriptor(
    saving, emulator, open_files, eventually, caplog
):
    """An image that is written in several steps waits, too."""
    content = _large_png()
    emulator.fault(Fault.answer(200, content), endpoint="image", rate=1.0)
    with open_files(3):
        running = asyncio.create_task(saving())
        await eventually(lambda: caplog.records)
    assert [image.size for image in (await running).images] == [len(content)] * 2


async def test_concurrent_downloads_are_limited(client, emulator, opened, cover):
    """No more images than `max_concurrent_downloads` are fetched at the same time."""
    archive = await opened(max_concurrent_downloads=2)
    covers = [await cover() for _ in range(4)]
    emulator.fault(Fault.slow(0.1), endpoint="image", rate=1.0)
    await asyncio.gather(*[archive.save(client, details) for details in covers])
    arrivals = [request.received for request in emulator.requests]
    assert max(sum(a <= b < a + 0.1 for b in arrivals) for a in arrivals) <= 2


async def test_a_large_image_is_written_in_several_steps(client, emulator, archive, cover):
    """The file is correct, also after an attempt that was cut off."""
    details = await cover(images=1)
    content = _large_png()
    emulator.fault(Fault.answer(200, content[:4_400_000]), endpoint="image")
    emulator.fault(Fault.answer(200, content), endpoint="image")
    [image] = (await archive.save(client, details)).images
    assert image.path.read_bytes() == content
    assert image.sha256 == sha256(content).hexdigest()


class Piece(bytes):
    """Counts how many pieces are in memory, now and at most."""

    alive = most = 0

    def __init__(self, _):
        Piece.alive += 1
        Piece.most = max(Piece.most, Piece.alive)

    def __del__(self):
        Piece.alive -= 1


class InPieces:
    """A client whose image arrives two bytes at a time."""

    api = Api(route="suno", origin="https://api.kie.ai")

    def __init__(self, content):
        self.content, self.downloader = content, self

    async def fetch(self, _url, receive, **_):
        return await receive(self.pieces())

    async def pieces(self):
        for start in range(0, len(self.content), 2):
            yield Piece(self.content[start : start + 2])


async def test_few_small_pieces_are_kept_in_memory(archive, cover):
    """Small pieces are joined early, and the file is correct."""
    details, content = await cover(images=1), _large_png(20_000)
    [image] = (await archive.save(InPieces(content), details)).images
    assert image.path.read_bytes() == content
    assert Piece.most < 1100


def _large_png(size=4_500_000):
    small, content = png("a", 1), b"IDAT" + os.urandom(size)
    data = size.to_bytes(4, "big") + content + crc32(content).to_bytes(4, "big")
    # The header and the end of the small image.
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
async def test_details_without_images_are_rejected(client, archive, details, error):
    """The error names the argument, and nothing is recorded."""
    with pytest.raises(error, match="details must be"):
        await archive.save(client, details)
    assert await archive.pending() == []


@frozen
class LateSave:
    """A save that has requested both images and gets neither."""

    archive: CoverArchive
    client: CoverClient
    details: CoverDetails
    saving: asyncio.Task


@pytest.fixture
async def late(emulator, connect, archive, cover, eventually):
    details, client = await cover(), connect()
    emulator.fault(Fault.stall(midway=True), endpoint="image", count=2)
    saving = asyncio.create_task(archive.save(client, details))
    await eventually(lambda: len(emulator.requests) == 2)
    return LateSave(archive, client, details, saving)


async def test_images_that_another_archive_saved_count(client, opened, late):
    """A save that fails raises no error if another archive saved the images meanwhile."""
    saved = await (await opened()).save(client, late.details)
    await late.client.aclose()
    assert await late.saving == saved
    assert await late.archive.saved() == [saved]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"other")])
async def test_damaged_images_of_another_archive_do_not_count(client, opened, late, damage):
    """The files decide whether a cover is saved, not only the record."""
    saved = await (await opened()).save(client, late.details)
    damage(saved.images[1].path)
    await late.client.aclose()
    with pytest.raises(ClientClosedError):
        await late.saving
    assert [each.task_id for each in await late.archive.pending()] == [saved.task_id]


async def test_a_disk_error_is_raised(client, archive, cover):
    """The system's error is raised, no part file is left, and the other image is saved."""
    details = await cover("an-id")
    (archive.folder / "an-id-1.png").mkdir()
    with pytest.raises(OSError, match=r"an-id-1\.png"):
        await archive.save(client, details)
    assert names(archive.folder) == ["an-id-1.png", "an-id-2.png"]
    assert [image.number for image in (await archive.find("an-id")).images] == [2]


async def test_a_disk_that_fills_up_is_an_error(client, emulator, archive, cover, small_disk):
    """If the disk fills up during a download, the error says so, and not that the image is cut off;
    it is fetched once."""
    details = await cover(images=1)
    emulator.fault(Fault.answer(200, _large_png()), endpoint="image", rate=1.0)
    with small_disk(), pytest.raises(OSError, match=r"File too large: '.*covers/\..*\.part'"):
        await archive.save(client, details)
    assert len(fetched(emulator)) == 1
    assert names(archive.folder) == []


async def test_closing_the_client_ends_a_save(client, emulator, archive, cover, eventually):
    """The save raises an error, and no part file is left."""
    details = await cover()
    emulator.fault(Fault.stall(midway=True), endpoint="image", rate=1.0)
    saving = asyncio.create_task(archive.save(client, details))
    await eventually(lambda: len(emulator.requests) == 2)
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await saving
    assert names(archive.folder) == []


async def test_closing_the_archive_waits_for_saves(client, emulator, opened, cover, eventually):
    """A running save ends before the archive is closed; a later one is refused."""
    details = await cover()
    emulator.fault(Fault.slow(0.1), endpoint="image", rate=1.0)
    archive = await opened()
    saves = [asyncio.create_task(archive.save(client, details)) for _ in range(2)]
    await eventually(lambda: emulator.requests)
    await archive.aclose()
    assert [(await save).state for save in saves] == ["saved", "saved"]
    with pytest.raises(RuntimeError, match="not open"):
        await archive.save(client, details)


@pytest.mark.parametrize("moment", [WHILE_WAITING, AS_IT_WAKES])
async def test_cancelling_one_image_leaves_no_part_file(client, emulator, archive, moment):
    """After an image is cancelled at any await, its cover can be saved."""
    emulator.fault(Fault.answer(404), endpoint="image", rate=0.5)
    wait, interrupted = 0, True
    while interrupted:
        job = emulator.add_job(CoverScript(statuses=["success"], images=1))
        details = await client.get_cover_details(job)
        [url] = details.images
        image = _WantedImage(task_id=job, number=1, url=url, file_exists=True)
        saving = CancelledAt(wait, moment, archive._saver._save_image(client, image))
        [outcome] = await asyncio.gather(asyncio.create_task(saving.run()), return_exceptions=True)
        interrupted = saving.interrupted
        assert isinstance(outcome, (SavedImage, asyncio.CancelledError, DownloadError))
        assert not [name for name in names(archive.folder) if name.endswith(".part")]
        wait += 1
    assert wait > 4
    emulator.clear_faults()
    await archive.save(client, details)
    assert (await archive.verify()).ok


@pytest.mark.usefixtures("route")
async def test_cancelling_a_save(client, emulator, archive, cover, eventually):
    """Both downloads end, and the next save succeeds."""
    details = await cover()
    emulator.fault(Fault.stall(midway=True), endpoint="image", count=2)
    saving = asyncio.create_task(archive.save(client, details))
    await eventually(lambda: len(emulator.requests) == 2)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert names(archive.folder) == []
    assert (await archive.save(client, details)).state == "saved"


@pytest.fixture
def record_again(client, archive, cover):
    """A function that records an image of a saved cover again, with another hash."""

    async def record_again(file_now):
        details = await cover(images=1)
        [image] = (await archive.save(client, details)).images
        image.path.unlink()
        if file_now is not None:
            image.path.write_bytes(file_now)
        own = evolve(image, sha256="0" * 64, size=7)
        return await archive._saver.executors.batcher.submit(
            lambda database: record_save(database, details, [own], is_complete=True)
        )

    return record_again


async def test_the_record_matches_the_file_that_stayed(archive, record_again):
    """If two archives save different bytes, the record describes the file that is there."""
    other = png("another", 64)
    [image] = (await record_again(other)).images
    assert (image.sha256, image.size) == (sha256(other).hexdigest(), len(other))
    assert (await archive.verify()).ok


@pytest.mark.parametrize("file_now", [None, b"no image"])
async def test_a_file_lost_during_a_save_is_found_by_verify(archive, record_again, file_now):
    """The image is recorded as it was saved, and `verify` reports the problem."""
    [image] = (await record_again(file_now)).images
    assert image.sha256 == "0" * 64
    [finding] = (await archive.verify()).findings
    assert finding.image == image


async def test_a_replaced_image_is_recorded_immediately(
    client, emulator, archive, cover, eventually
):
    """A save that is cancelled during another image leaves no row that contradicts its file."""
    details = await cover("an-id")
    executors = archive._saver.executors
    for image in (await archive.save(client, details)).images:
        image.path.unlink()
        wrong = evolve(image, sha256="0" * 64)
        await executors.batcher.submit(
            lambda database, wrong=wrong: record_image(database, details.task_id, wrong)
        )
    emulator.requests.clear()
    emulator.fault(Fault.stall(midway=True), endpoint="image", count=1)
    saving = asyncio.create_task(archive.save(client, details))
    await eventually(lambda: len(emulator.requests) == 2)
    async with asyncio.timeout(30):
        while all(image.sha256 == "0" * 64 for image in (await archive.find("an-id")).images):
            pass
    saving.cancel()
    await asyncio.wait([saving])
    assert len((await archive.verify()).findings) == 1
