"""`collect`, killed at random moments: what is whole is never fetched again, nothing is lost.

The environment may say how often, over how many covers, and from which seed: the session `kills`
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

# Seconds of a life, of which a tenth of a second passes before the first request.
SHORTEST, LONGEST = 0.02, 1.0
# So many polls a second that there is work for all of these lives.
RATE = "16"

_log = logging.getLogger(__name__)


@define
class Lives:
    """What was requested in each life of the process, and which files it left whole."""

    emulator: CoverEmulator
    requested: list[Counter[str]] = field(factory=list)
    left: list[set[str]] = field(factory=list)

    def end(self, folder):
        images = [each.path for each in self.emulator.requests if each.endpoint == "image"]
        self.emulator.requests.clear()
        self.requested.append(Counter(images))
        self.left.append({path.name for path in folder.glob("*.png")})

    def fetched_again(self, files):
        """What was requested though it was whole, or twice in one life; `files` has the names."""
        whole = set()
        for requested, left in zip(self.requested, self.left, strict=True):
            yield from (path for path, count in requested.items() if count > 1)
            yield from (path for path in requested if files[path] in whole)
            whole = left


async def test_killed_at_random_moments(started, start, tmp_path, until):
    """However often it is killed, in the end every image is there, was fetched once but for what
    was in flight at a kill, and is what the archive's record says."""
    emulator = await start(latency=(0.02, 0.3), generation_time=(0.0, 1.5), image_size=200)
    ids = [emulator.add_job() for _ in range(COVERS)]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    folder, dice, lives = tmp_path / "covers", Random(SEED), Lives(emulator)
    arguments = ("collect", "--file", str(tmp_path / "ids.txt"), "--out", str(folder))
    _log.warning("seed %r", SEED)
    for _ in range(KILLS):
        life = dice.uniform(SHORTEST, LONGEST)
        async with started(*arguments, "--rate", RATE, KIE_BASE_URL=emulator.url) as command:
            await asyncio.sleep(life)
            command.process.kill()
            assert (await command.end()).code == -signal.SIGKILL
        await until(lambda: emulator.open_connections == 0)
        lives.end(folder)
        _log.warning("killed after %.2f s with %d images whole", life, len(lives.left[-1]))
    async with started(*arguments, "--rate", "inf", KIE_BASE_URL=emulator.url) as command:
        ended = await command.end()
    lives.end(folder)
    assert ended.code == DONE
    await check(lives, folder)


async def check(lives, folder) -> None:
    async with CoverArchive(folder) as archive:
        report, covers = await archive.verify(), await archive.saved()
    assert report.ok
    assert report.checked == len(lives.left[-1]) == 2 * COVERS == 2 * len(covers)
    files = {URL(image.url).path: image.path.name for cover in covers for image in cover.images}
    assert [*lives.fetched_again(files)] == []
    assert sum(lives.requested, Counter()).keys() == files.keys()
    assert [*folder.glob(".*.part")] == []


async def test_what_is_waited_for(until):
    """`until` asks as often as it takes."""
    answers = iter([False, False, True])
    await until(lambda: next(answers))
    assert not [*answers]
