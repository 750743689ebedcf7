"""Submit in a task of its own, so that the id is recorded even if the caller is cancelled."""

import asyncio
from collections.abc import Callable

from kie_cover_async import CoverClient

_submits: set[asyncio.Task[str]] = set()


async def submit(
    client: CoverClient, music_task_id: str, record: Callable[[str, str], object]
) -> str:
    task = asyncio.create_task(_submit_and_record(client, music_task_id, record))
    _submits.add(task)
    task.add_done_callback(_submits.discard)
    return await asyncio.shield(task)


async def _submit_and_record(
    client: CoverClient, music_task_id: str, record: Callable[[str, str], object]
) -> str:
    task_id = await client.generate_cover(music_task_id, callback_url="https://example.com/covers")
    record(music_task_id, task_id)
    return task_id
