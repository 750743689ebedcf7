"""The services on aiohttp.web and FastAPI, each on a port of its own."""

import asyncio
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import uvicorn
from aiohttp import ClientSession, web

from kie_cover_async import (
    ApiError,
    AuthenticationError,
    ClientClosedError,
    CoverAlreadyExistsError,
    CoverDetails,
    CoverFailedError,
    CoverTimeoutError,
    InvalidRequestError,
    InvalidTaskIdError,
    RateLimitedError,
    TaskNotFoundError,
    TransportError,
)
from kie_cover_async.emulator import CoverScript


@asynccontextmanager
async def on_aiohttp(example):
    runner = web.AppRunner(example("service_aiohttp.py")["make_app"]())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def on_fastapi(example):
    app = example("service_fastapi.py")["app"]
    config = uvicorn.Config(app, http="h11", ws="none", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await server.startup([listening])
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            await server.shutdown([listening])


@pytest.fixture
async def stack():
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def caller(stack):
    """A session that calls the service and is closed before the service."""
    async with ClientSession() as session:
        yield session


@pytest.fixture(params=[on_aiohttp, on_fastapi])
async def url(request, stack, emulator, example):
    return await stack.enter_async_context(request.param(example))


async def test_cover_is_submitted_and_fetched(url, caller):
    """A submit returns an id, and a request for that id returns the images."""
    async with caller.post(f"{url}/songs/a-song/cover") as submitted:
        assert submitted.status == 202
        cover = (await submitted.json())["task_id"]
    async with caller.get(f"{url}/covers/{cover}") as answer:
        assert answer.status == 200
        assert len((await answer.json())["images"]) == 2


async def test_failed_cover_is_reported(url, caller, emulator):
    """A failed job is a good answer: its state, with the reason."""
    cover = emulator.add_job(CoverScript(statuses=["failure"]))
    async with caller.get(f"{url}/covers/{cover}") as answer:
        assert answer.status == 200
        assert await answer.json() == {"state": "failed", "why": "Cover generation failed"}


async def test_second_submit_of_a_song_is_refused(url, caller):
    """A second submit is refused with the id of the first cover, and is not paid for."""
    async with caller.post(f"{url}/songs/a-song/cover") as first:
        cover = (await first.json())["task_id"]
    async with caller.post(f"{url}/songs/a-song/cover") as second:
        assert second.status == 409
        assert (await second.json())["task_id"] == cover


async def test_callers_share_their_polls(url, caller, emulator):
    """Three callers that wait for the same cover cost no more polls than one."""
    cover = emulator.add_job(CoverScript(statuses=["generating", "success"]))

    async def fetch():
        async with caller.get(f"{url}/covers/{cover}") as answer:
            return answer.status

    assert await asyncio.gather(fetch(), fetch(), fetch()) == [200, 200, 200]
    assert emulator.poll_count(cover) == 2


async def test_closing_the_service_ends_its_waits(emulator, example, caller):
    """On aiohttp.web a caller is answered immediately when the service closes."""
    cover = emulator.add_job(CoverScript(end="never"))
    async with on_aiohttp(example) as url:
        fetching = asyncio.create_task(caller.get(f"{url}/covers/{cover}"))
        async with asyncio.timeout(5):
            while not emulator.poll_count(cover):  # noqa: ASYNC110 - the emulator has no event for a poll
                await asyncio.sleep(0.005)
        closed = time.monotonic()
    async with await fetching as answer:
        assert answer.status == 503
    assert time.monotonic() - closed < 5


ANSWERS = {
    202: [CoverTimeoutError(polls=3, waited=20.0)],
    200: [CoverFailedError(details=CoverDetails(task_id="a-cover", success_flag=3))],
    400: [InvalidTaskIdError(argument="task_id", given="''"), InvalidRequestError(code=422)],
    404: [TaskNotFoundError(code=200)],
    409: [CoverAlreadyExistsError(code=409)],
    500: [AuthenticationError(code=401, msg="secret"), ApiError(code=505, msg="secret")],
    502: [TransportError(reason="secret", maybe_accepted=True)],
    503: [RateLimitedError(code=429), TransportError(reason="secret"), ClientClosedError()],
}


@pytest.mark.parametrize(
    ("status", "error"),
    [(status, error) for status, errors in ANSWERS.items() for error in errors],
    ids=str,
)
def test_each_error_has_an_answer(example, status, error):
    """Each error has a status, and no answer shows what the API said to the service."""
    answered, answer = example("caller_answers.py")["answer_to"](error)
    assert answered == status
    assert "secret" not in str(answer)
