"""`collect`, killed at random moments: complete images are never fetched again or lost.

The environment may set the number of kills, the number of covers and the seed: the session `kills`
of nox has more of them than the default run.
"""

import asyncio
import logging
import os
import signal
from collections import Counter
from random import Random

from attrs import define, field
from yarl import URL

from kie_cover_async.archive import CoverArchive
from kie_cover_async.cli.output import DONE
from kie_cover_async.emulator import CoverEmulator

KILLS = int(os.environ.get("KILLS", "4"))
COVERS = int(os.environ.get("COVERS", "40"))
SEED = os.environ.get("SEED", "by default")

# Seconds of a run, of which a tenth of a second passes before the first request.
SHORTEST, LONGEST = 0.02, 1.0
# Polls per second, so few that there is work for all runs.
RATE = "16"

_log = logging.getLogger(__name__)


@define
class Runs:
    """The requests of each run of the command, and the complete files that it left."""

    emulator: CoverEmulator
    requested: list[Counter[str]] = field(factory=list)
    left: list[set[str]] = field(factory=list)

    def end(self, folder):
        images = [each.path for each in self.emulator.requests if each.endpoint == "image"]
        self.emulator.requests.clear()
        self.requested.append(Counter(images))
        self.left.append({path.name for path in folder.glob("*.png")})

    def fetched_again(self, files):
        """Yield what was requested although it was complete, or twice in one run."""
        complete = set()
        for requested, left in zip(self.requested, self.left, strict=True):
            yield from (path for path, count in requested.items() if count > 1)
            yield from (path for path in requested if files[path] in complete)
            complete = left


async def test_killed_runs_fetch_every_image_and_none_twice(started, start, tmp_path, eventually):
    """In the end every image is there and is what the archive's record says. An image is
    fetched again only if its download was in progress at a kill."""
    emulator = await start(latency=(0.02, 0.3), generation_time=(0.0, 1.5), image_size=200)
    ids = [emulator.add_job() for _ in range(COVERS)]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    folder, rng, runs = tmp_path / "covers", Random(SEED), Runs(emulator)
    arguments = ("collect", "--file", str(tmp_path / "ids.txt"), "--out", str(folder))
    _log.warning("seed %r", SEED)
    for _ in range(KILLS):
        duration = rng.uniform(SHORTEST, LONGEST)
        async with started(*arguments, "--rate", RATE, KIE_BASE_URL=emulator.url) as command:
            await asyncio.sleep(duration)
            command.process.kill()
            assert (await command.end()).code == -signal.SIGKILL
        await eventually(lambda: emulator.open_connections == 0)
        runs.end(folder)
        _log.warning("killed after %.2f s with %d images complete", duration, len(runs.left[-1]))
    async with started(*arguments, "--rate", "inf", KIE_BASE_URL=emulator.url) as command:
        ended = await command.end()
    runs.end(folder)
    assert ended.code == DONE
    await check(runs, folder)


async def check(runs, folder) -> None:
    async with CoverArchive(folder) as archive:
        report, covers = await archive.verify(), await archive.saved()
    assert report.ok
    assert report.checked == len(runs.left[-1]) == 2 * COVERS == 2 * len(covers)
    files = {URL(image.url).path: image.path.name for cover in covers for image in cover.images}
    assert [*runs.fetched_again(files)] == []
    assert sum(runs.requested, Counter()).keys() == files.keys()
    assert [*folder.glob(".*.part")] == []


async def test_until_polls_its_condition(eventually):
    """`eventually` polls as often as necessary."""
    answers = iter([False, False, True])
    await eventually(lambda: next(answers))
    assert not [*answers]
