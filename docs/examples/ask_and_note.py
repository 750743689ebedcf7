"""Ask in a task of its own: the id is noted even if whoever wanted the cover is cancelled."""

import asyncio
from collections.abc import Callable

from kie_cover_async import CoverClient

_asking: set[asyncio.Task[str]] = set()


async def ask(client: CoverClient, song: str, note: Callable[[str, str], object]) -> str:
    task = asyncio.create_task(_ask_and_note(client, song, note))
    _asking.add(task)
    task.add_done_callback(_asking.discard)
    return await asyncio.shield(task)


async def _ask_and_note(client: CoverClient, song: str, note: Callable[[str, str], object]) -> str:
    task_id = await client.generate_cover(song, callback_url="https://example.com/covers")
    note(song, task_id)
    return task_id
