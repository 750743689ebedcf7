"""The types that a user of the package sees; mypy reads this file, and nothing runs it.

A call that must be refused has a `type: ignore`, which mypy reports if it is not needed.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import assert_never, assert_type

from aiohttp import web

from kie_cover_async import (
    AdaptiveSchedule,
    CoverClient,
    CoverDetails,
    CoverFailedError,
    CoverOutcome,
    CoverState,
    CoverTimeoutError,
    ExponentialSchedule,
    KieCoverError,
    RateLimiter,
    RetryPolicy,
    Schedule,
    structure_details,
    unstructure_details,
)
from kie_cover_async.archive import ArchivedCover, CoverArchive, SavedImage, is_final
from kie_cover_async.callbacks import (
    CallbackInbox,
    CoverCallback,
    SongCallbackUrls,
    parse_callback,
)
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault
from kie_cover_async.events import (
    CoverPolled,
    Event,
    RequestFinished,
    RequestsPaused,
    RetryScheduled,
    StateChanged,
    WaitFinished,
    WaitStarted,
)
from kie_cover_async.jobs import make_covers, settle_song
from kie_cover_async.ledger import Api, Claim, Ledger, Song, SongOutcome, SongState


async def single_calls(client: CoverClient) -> None:
    assert_type(await client.get_cover_details("id"), CoverDetails)
    assert_type(await client.wait_for_cover("id", timeout=None), CoverDetails)
    assert_type(await client.generate_cover("song", callback_url="https://example.com"), str)
    assert_type(
        await client.generate_and_wait("song", callback_url="https://example.com"), CoverDetails
    )
    assert_type(await client.get_credits(), float)
    assert_type(await client.get_download_url("https://example.com/a.png"), str)
    async with client as entered:
        assert_type(entered, CoverClient)


async def refused_calls(client: CoverClient) -> None:
    await client.get_cover_details(1)  # type: ignore[arg-type]
    await client.wait_for_cover("id", 60.0)  # type: ignore[call-arg]
    await client.wait_for_cover("id", schedule=6.0)  # type: ignore[arg-type]
    client.wait_for_covers([1])  # type: ignore[list-item]
    CoverClient("key", "https://example.com")  # type: ignore[call-arg]
    CoverClient(rate_limiter=9)  # type: ignore[arg-type]


async def details_are_typed(details: CoverDetails) -> None:
    assert_type(details.state, CoverState)
    assert_type(details.images, tuple[str, ...])
    assert_type(details.is_success, bool)
    assert_type(details.parent_task_id, str | None)
    assert_type(details.create_time, datetime | None)
    assert_type(details.generation_time, timedelta | None)
    assert_type(structure_details(unstructure_details(details)), CoverDetails)
    details.task_id = "another"  # type: ignore[misc]


async def outcomes_are_typed(client: CoverClient, more: AsyncIterator[str]) -> None:
    async with client.check_covers(["first", "second"], ordered=True) as outcomes:
        async for outcome in outcomes:
            assert_type(outcome, CoverOutcome)
            assert_type(outcome.task_id, str)
            assert_type(outcome.ok, bool)
            assert_type(outcome.result(), CoverDetails)
            if outcome.error is not None:
                assert_type(outcome.error, KieCoverError)
            if outcome.details is not None:
                assert_type(outcome.details, CoverDetails)
    async for outcome in client.wait_for_covers(more):
        match outcome.error:
            case CoverFailedError(details=details):
                assert_type(details, CoverDetails)
            case CoverTimeoutError(polls=polls, details=last):
                assert_type(polls, int)
                assert_type(last, CoverDetails | None)
            case error:
                assert_type(error, KieCoverError | None)


def errors_are_typed(error: KieCoverError) -> None:
    assert_type(error.task_id, str | None)
    assert_type(error.request_id, str | None)
    assert_type(error.transient, bool)
    assert_type(error.retryable, bool)
    assert_type(error.maybe_accepted, bool)


def every_event_is_handled(event: Event) -> None:
    match event:
        case RequestFinished() | RetryScheduled() | RequestsPaused():
            assert_type(event, RequestFinished | RetryScheduled | RequestsPaused)
        case WaitStarted() | CoverPolled() | StateChanged() | WaitFinished():
            assert_type(event.task_id, str)
        case _:
            assert_never(event)


class EverySecond:
    def delay(self, age: float, pressure: float) -> float:
        return pressure


def policies_are_accepted() -> None:
    schedules: list[Schedule] = [EverySecond(), ExponentialSchedule(), AdaptiveSchedule()]
    for schedule in schedules:
        assert_type(schedule.delay(1.0, 1.0), float)
        CoverClient(schedule=schedule)
    CoverClient(
        retry=RetryPolicy(max_attempts=2),
        rate_limiter=RateLimiter(9, per=1.0),
        inbox=CallbackInbox(["key"]),
        observer=[every_event_is_handled],
    )


async def archive_is_typed(archive: CoverArchive, client: CoverClient, cover: CoverDetails) -> None:
    saved = await archive.save(client, cover)
    assert_type(saved, ArchivedCover)
    for image in saved.images:
        assert_type(image, SavedImage)
        assert_type(image.path, Path)
    assert_type(await archive.find("id"), ArchivedCover | None)
    assert_type(await archive.find_song("id"), Song | None)
    ledger: Ledger = archive.ledger
    assert_type(await ledger.claim("id", Api(route="suno", origin="https://a")), Claim | None)
    assert_type([song async for song in archive.songs()], list[Song])
    assert_type(await ledger.counts(), Mapping[SongState, int])
    assert_type(await settle_song(client, archive, "song", task_id="id"), Song)
    secrets = await ledger.callback_secrets()
    urls = SongCallbackUrls("https://example.com/covers", secrets)
    inbox = CallbackInbox()
    async with make_covers(
        client, archive, ["song"], callback_url=urls, inbox=inbox, max_submits=1, on_update=print
    ) as outcomes:
        assert_type([outcome async for outcome in outcomes], list[SongOutcome])
    assert_type(is_final(CoverTimeoutError(polls=1, waited=1.0), cover), bool)


def callbacks_are_typed(inbox: CallbackInbox) -> None:
    assert_type(inbox.receive({}, b"{}"), CoverCallback)
    assert_type(parse_callback(b"{}"), CoverCallback)
    assert_type(inbox.routes("/callbacks"), list[web.RouteDef])
    urls = SongCallbackUrls("https://example.com/callbacks", ["a secret of the ledger"])
    assert_type(inbox.routes("/callbacks", urls), list[web.RouteDef])
    assert_type(urls.song_of("token"), str | None)


async def emulator_is_typed() -> None:
    async with CoverEmulator(generation_time=(1.0, 2.0)) as emulator:
        assert_type(emulator, CoverEmulator)
        assert_type(emulator.url, str)
        assert_type(emulator.add_job(CoverScript(statuses=["429", "success"])), str)
        emulator.fault(Fault.rate_limited(retry_after=1), count=2)
