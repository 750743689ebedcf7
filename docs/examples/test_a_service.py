"""A test of a service: its cover arrives in spite of a refusal and a reset."""

from kie_cover_async import CoverClient, ExponentialSchedule, RetryPolicy
from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault


async def first_image(client: CoverClient, music_task_id: str) -> str:
    cover = await client.generate_and_wait(music_task_id, callback_url="https://example.com/covers")
    return cover.images[0]


async def test_image_arrives_in_spite_of_faults() -> None:
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
            assert (await first_image(client, "my-song")).startswith(emulator.image_url)
