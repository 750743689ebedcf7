"""Wait for many covers and save each as it completes; a restart continues where it stopped."""

import asyncio
import sys

from kie_cover_async import CoverClient, CoverOutcome, KieCoverError
from kie_cover_async.archive import CoverArchive, is_final


async def save(client: CoverClient, archive: CoverArchive, outcome: CoverOutcome) -> None:
    try:
        saved = await archive.save(client, outcome.result())
    except KieCoverError as error:
        # After a wrong key, an empty account or a network error the next run tries again.
        if is_final(error, outcome.details):
            await archive.mark_failed(outcome.task_id, error)
        print(outcome.task_id, error, file=sys.stderr)
    else:
        print(*(image.path for image in saved.images), sep="\n")


async def main(folder: str, *task_ids: str) -> None:
    async with CoverClient() as client, CoverArchive(folder) as archive:
        await archive.add(task_ids)  # from here on no id is lost
        waiting = [cover.task_id for cover in await archive.pending()]
        async with asyncio.TaskGroup() as saving, client.wait_for_covers(waiting) as outcomes:
            async for outcome in outcomes:
                saving.create_task(save(client, archive, outcome))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python save_many.py FOLDER [TASK_ID...]")
    asyncio.run(main(*sys.argv[1:]))
