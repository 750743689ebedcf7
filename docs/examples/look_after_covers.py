"""Check an archive, as a nightly job may do."""

import asyncio
import sys
from datetime import timedelta

from kie_cover_async.archive import CoverArchive


async def main(folder: str, table: str) -> None:
    async with CoverArchive(folder) as archive:
        for cover in await archive.expiring(within=timedelta(days=3)):
            print("not saved yet, and expiring:", cover.task_id, cover.error or "")
        report = await archive.verify()
        for finding in report.findings:
            print(finding.problem, finding.image.path)
        await archive.mark_pending({finding.task_id for finding in report.findings})
        print(await archive.export(table), "covers,", report.checked, "images")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python look_after_covers.py FOLDER TABLE")
    asyncio.run(main(*sys.argv[1:]))
