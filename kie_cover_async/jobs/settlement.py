"""`settle_song`: a person names the id of a song, which is polled before it is stored."""

from kie_cover_async.archive import CoverArchive
from kie_cover_async.client import CoverClient
from kie_cover_async.ledger import SettlementError, Song


async def settle_song(
    client: CoverClient, archive: CoverArchive, music_task_id: str, *, task_id: str
) -> Song:
    """Make a song submitted under this id, if one poll shows that it can be the song's.

    The other decisions need no poll: see `Ledger.settle`, which `archive.ledger` has.

    Raises:
        SettlementError: The cover has failed or belongs to another song, or the song is unknown or
            being submitted. Nothing was changed.
        TaskNotFoundError: The API of this client has no record of the id.
    """
    details = await client.get_cover_details(task_id)
    if details.parent_task_id not in (None, music_task_id):
        reason = f"cover {task_id} belongs to another song, {details.parent_task_id}"
        raise SettlementError(music_task_id, reason)
    if details.state.is_failure:
        raise SettlementError(music_task_id, f"cover {task_id} has failed")
    return await archive.ledger.settle(music_task_id, task_id=task_id, api=client.api)
