"""The examples of the page on several processes."""

import runpy
from pathlib import Path

from support.redis_server import needs_redis

from kie_cover_async.emulator import CoverEmulator

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@needs_redis
async def test_covers_are_waited_for_with_a_shared_limit(redis, monkeypatch, capsys):
    """The example prints the images of each cover."""
    monkeypatch.setenv("REDIS_URL", redis.url)
    monkeypatch.setenv("KIE_API_KEY", "example-key")
    async with CoverEmulator(generation_time=0.0) as emulator:
        monkeypatch.setenv("KIE_BASE_URL", emulator.url)
        example = runpy.run_path(str(EXAMPLES / "shared_rate_limit.py"))
        await example["main"]([emulator.add_job(), emulator.add_job()])
        assert capsys.readouterr().out.count(emulator.image_url) == 4
