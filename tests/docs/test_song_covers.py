"""The complete service of the documentation, on real sockets against the emulator."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn
from aiohttp import ClientSession

from kie_cover_async import CoverClient
from kie_cover_async.callbacks import sign_callback
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault

KEY = "test-webhook-hmac-key"


class Service:
    """The running service, called over HTTP."""

    def __init__(self, url, session):
        self.url, self.session = url, session

    async def submit(self, song):
        async with self.session.post(f"{self.url}/songs/{song}/cover") as response:
            return response.status, await response.json()

    async def show(self, song):
        async with self.session.get(f"{self.url}/songs/{song}/cover") as response:
            return response.status, await response.json()

    async def ended(self, song):
        """Return what the service says of a song when its cover is saved or has failed."""
        async with asyncio.timeout(20):
            while (cover := (await self.show(song))[1])["state"] == "pending":  # noqa: ASYNC110 - no event comes over HTTP
                await asyncio.sleep(0.01)
        return cover


@pytest.fixture
def run_service(example, monkeypatch, tmp_path):
    monkeypatch.setenv("COVERS_FOLDER", str(tmp_path / "covers"))

    @asynccontextmanager
    async def run_service(emulator, *, with_callbacks=False, retry_interval=60.0):
        monkeypatch.setenv("KIE_API_KEY", "example-key")
        monkeypatch.setenv("KIE_BASE_URL", emulator.url)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            if with_callbacks:
                monkeypatch.setenv("CALLBACK_URL", f"{url}/callbacks/secret")
                monkeypatch.setenv("KIE_CALLBACK_KEY", KEY)
            names = example("song_covers.py")
            names["lifespan"].__wrapped__.__globals__["RETRY_INTERVAL"] = retry_interval
            config = uvicorn.Config(names["app"], http="h11", ws="none", log_config=None)
            config.load()
            server = uvicorn.Server(config)
            server.lifespan = config.lifespan_class(config)
            await server.startup([listening])
            async with ClientSession() as session:
                yield Service(url, session)
            await server.shutdown([listening])

    return run_service


def submits(emulator):
    return sum(request.endpoint in ("generate", "createTask") for request in emulator.requests)


@pytest.mark.usefixtures("route")
async def test_cover_is_submitted_saved_and_served(run_service, emulator):
    """A submitted song gets its images, which the service serves from its own disk."""
    async with run_service(emulator) as service:
        assert await service.show("a-song") == (404, {"detail": "this song was never submitted"})
        status, submitted = await service.submit("a-song")
        cover = await service.ended("a-song")
        assert (status, cover["state"], cover["task_id"]) == (202, "saved", submitted["task_id"])
        for path in cover["images"]:
            async with service.session.get(service.url + path) as image:
                assert image.status == 200
                assert image.content_type == "image/png"
        async with service.session.get(f"{service.url}/images/songs.sqlite3") as secret:
            assert secret.status == 404


async def test_song_is_paid_for_once(run_service, emulator):
    """Ten callers that submit one song at the same time, and one later, get the same task."""
    async with run_service(emulator) as service:
        answers = await asyncio.gather(*[service.submit("a-song") for _ in range(10)])
        answers.append(await service.submit("a-song"))
        await service.ended("a-song")
    assert len({answer["task_id"] for _, answer in answers}) == submits(emulator) == 1


@pytest.mark.usefixtures("route")
async def test_callback_ends_the_wait(run_service):
    """With a key for callbacks the cover costs one poll, and a forged callback is refused."""
    async with (
        CoverEmulator(generation_time=0.2, callback_key=KEY) as emulator,
        run_service(emulator, with_callbacks=True) as service,
    ):
        _, submitted = await service.submit("a-song")
        task_id, url = submitted["task_id"], f"{service.url}/callbacks/secret"
        body = f'{{"data": {{"taskId": "{task_id}"}}}}'
        for headers, sent, status in (
            ({}, body, 401),
            (sign_callback(task_id, KEY), "{}", 400),
        ):
            async with service.session.post(url, data=sent, headers=headers) as response:
                assert response.status == status
        assert (await service.ended("a-song"))["state"] == "saved"
        # The wait polls when it begins, and again when the callback has come.
        assert emulator.poll_count(task_id) == 2


async def test_callback_without_a_key_is_not_found(run_service, emulator):
    """A service that polls has no route for callbacks."""
    async with (
        run_service(emulator) as service,
        service.session.post(f"{service.url}/covers", data="{}") as response,
    ):
        assert response.status == 404


@pytest.mark.usefixtures("route")
async def test_restarted_service_resumes(run_service, emulator):
    """A service that is stopped during a wait finds the same cover after it is started again."""
    emulator.script_song("a-song", CoverScript(statuses=["generating", "success"]))
    async with run_service(emulator) as service:
        _, submitted = await service.submit("a-song")
    async with run_service(emulator) as service:
        cover = await service.ended("a-song")
        assert (cover["state"], cover["task_id"]) == ("saved", submitted["task_id"])
    assert submits(emulator) == 1


@pytest.mark.usefixtures("route")
async def test_forgotten_submit_is_found_again(run_service, emulator):
    """A cover whose id was lost in a crash is adopted from the API's refusal to make another."""
    async with CoverClient("example-key", base_url=emulator.url) as client:
        lost = await client.generate_cover("a-song", callback_url="https://example.com/covers")
    async with run_service(emulator) as service:
        assert await service.submit("a-song") == (202, {"task_id": lost})
        assert (await service.ended("a-song"))["state"] == "saved"


async def test_failed_cover_is_reported(run_service, emulator):
    """A job that failed is shown with its reason and not tried again."""
    emulator.script_song("a-song", CoverScript(statuses=["failure"]))
    async with run_service(emulator) as service:
        await service.submit("a-song")
        cover = await service.ended("a-song")
    assert cover["state"] == "failed"
    assert "Cover generation failed" in cover["error"]


async def test_refused_submit_is_reported(run_service, emulator):
    """A submit that the API refuses is an error of the service, not of its caller."""
    emulator.fault(Fault.answer(401), endpoint="generate")
    async with run_service(emulator) as service:
        assert await service.submit("a-song") == (502, {"detail": "no cover was submitted"})
        assert (await service.show("a-song"))[0] == 404


async def test_temporary_trouble_is_tried_again(run_service, emulator, monkeypatch):
    """A cover whose images cannot be fetched stays pending until they can be fetched."""
    monkeypatch.setattr("backoff.full_jitter", lambda _: 0.0)
    emulator.fault(Fault.reset(midway=True), endpoint="image", count=8)
    async with run_service(emulator, retry_interval=0.01) as service:
        await service.submit("a-song")
        assert (await service.ended("a-song"))["state"] == "saved"
    assert len([request for request in emulator.requests if request.endpoint == "image"]) == 10
