"""Tests of the service: covers take minutes, the tests take none."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cover_service import make_app

from kie_cover_async.emulator import CoverEmulator

Service = TestClient[web.Request, web.Application]
pytestmark = pytest.mark.usefixtures("instant_time")


@pytest.fixture
async def service(cover_emulator: CoverEmulator) -> AsyncIterator[Service]:
    # The service makes its own client; the environment points it to the emulator.
    async with TestClient(TestServer(make_app())) as service:
        yield service


@pytest.mark.cover_emulator(generation_time=47)
async def test_cover_is_shown_when_it_is_done(service: Service) -> None:
    await service.post("/songs/my-song/cover")
    await asyncio.sleep(40)
    assert (await service.get("/songs/my-song/cover")).status == 202
    await asyncio.sleep(20)
    answer = await service.get("/songs/my-song/cover")
    assert answer.status == 200
    assert len((await answer.json())["images"]) == 2


async def test_refusal_loses_no_cover(service: Service, cover_emulator: CoverEmulator) -> None:
    cover_emulator.script_song("my-song", "missing, pending, generating, 429, 500, success")
    await service.post("/songs/my-song/cover")
    await asyncio.sleep(60)
    assert (await service.get("/songs/my-song/cover")).status == 200
    endpoints = [request.endpoint for request in cover_emulator.requests]
    assert endpoints == ["generate"] + 6 * ["record-info"]


async def test_failure_is_reported(service: Service, cover_emulator: CoverEmulator) -> None:
    cover_emulator.script_song("my-song", "generating, failure")
    await service.post("/songs/my-song/cover")
    await asyncio.sleep(60)
    answer = await service.get("/songs/my-song/cover")
    assert answer.status == 502
    assert await answer.json() == {"error": "Cover generation failed"}


async def test_wait_ends_in_a_timeout(service: Service, cover_emulator: CoverEmulator) -> None:
    cover_emulator.script_song("my-song", "generating")  # and so on
    await service.post("/songs/my-song/cover")
    await asyncio.sleep(20 * 60)
    assert (await service.get("/songs/my-song/cover")).status == 504


async def test_song_is_paid_for_once(service: Service, cover_emulator: CoverEmulator) -> None:
    for _ in range(3):
        await service.post("/songs/my-song/cover")
    await asyncio.sleep(60)
    assert [request.endpoint for request in cover_emulator.requests].count("generate") == 1


async def test_unknown_song_is_not_found(service: Service) -> None:
    assert (await service.get("/songs/my-song/cover")).status == 404
