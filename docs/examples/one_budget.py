"""Two clients with one key, and so with one budget between them."""

import asyncio
import sys

from kie_cover_async import CoverClient, RequestBudget


async def main(first: str, second: str) -> None:
    budget = RequestBudget(10, per=1.0)
    async with CoverClient(budget=budget) as one, CoverClient(budget=budget) as other:
        covers = await asyncio.gather(one.wait_for_cover(first), other.wait_for_cover(second))
    for cover in covers:
        print(*cover.images, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python one_budget.py TASK_ID TASK_ID")
    asyncio.run(main(*sys.argv[1:]))
