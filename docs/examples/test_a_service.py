"""A service's own test: its cover comes although the API refuses and resets on the way."""

from kie_cover_async import CoverClient, ExponentialSchedule, RetryPolicy
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault


async def picture_of(client: CoverClient, song: str) -> str:
    cover = await client.generate_and_wait(song, callback_url="https://example.com/covers")
    return cover.images[0]


async def test_a_picture_comes_in_spite_of_everything() -> None:
    async with CoverEmulator() as emulator:
        emulator.script_song("my-song", CoverScript(statuses=["missing", "generating", "success"]))
        emulator.fault(Fault.rate_limited(), count=1)
        emulator.fault(Fault.reset(), endpoint="record-info", count=1)
        async with CoverClient(
            "any-key-will-do",
            base_url=emulator.url,
            schedule=ExponentialSchedule(initial_delay=0.05),
            retry=RetryPolicy(initial_delay=0.05),
        ) as client:
            assert (await picture_of(client, "my-song")).startswith(emulator.image_url)
