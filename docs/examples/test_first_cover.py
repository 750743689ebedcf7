"""A first test: `wait_for_cover` goes on after a refusal."""

from kie_cover_async import CoverClient
from kie_cover_async.emulator import CoverEmulator
from kie_cover_async.testing import InstantTimeLoop


async def test_cover_arrives_in_spite_of_a_refusal(
    cover_emulator: CoverEmulator, cover_client: CoverClient, instant_time: InstantTimeLoop
) -> None:
    task_id = cover_emulator.add_job("pending, generating, 429, success")
    cover = await cover_client.wait_for_cover(task_id)
    assert len(cover.images) == 2
    assert cover_emulator.poll_count(task_id) == 4
    assert instant_time.elapsed > 5  # seconds on the loop's clock, not of real time
