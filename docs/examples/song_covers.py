"""A complete service on FastAPI: it submits songs, waits, saves the images, and resumes.

uvicorn --app-dir docs/examples song_covers:app
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse

from kie_cover_async import (
    CoverAlreadyExistsError,
    CoverClient,
    InvalidResponseError,
    KieCoverError,
    SignatureError,
)
from kie_cover_async.archive import CoverArchive, is_final
from kie_cover_async.callbacks import CallbackInbox

FOLDER = Path(os.environ.get("COVERS_FOLDER", "covers"))
# The API requires a callback URL. Without a key for its signatures the service polls.
CALLBACK_URL = os.environ.get("CALLBACK_URL", "https://example.com/covers")
KEYS = [key.strip() for key in os.environ.get("KIE_CALLBACK_KEY", "").split(",") if key.strip()]
RETRY_INTERVAL = 60.0
log = logging.getLogger("covers")


class SongTable:
    """Which task makes the cover of which song, on disk."""

    def __init__(self, path: Path) -> None:
        # Each statement is a transaction of its own: it is on disk when `execute` returns.
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS songs (music_task_id TEXT PRIMARY KEY, task_id TEXT)"
        )

    def find(self, music_task_id: str) -> str | None:
        query = "SELECT task_id FROM songs WHERE music_task_id = ?"
        row = self._connection.execute(query, [music_task_id]).fetchone()
        return row[0] if row else None

    def add(self, music_task_id: str, task_id: str) -> None:
        self._connection.execute("INSERT INTO songs VALUES (?, ?)", [music_task_id, task_id])

    def task_ids(self) -> list[str]:
        return [task_id for (task_id,) in self._connection.execute("SELECT task_id FROM songs")]

    def close(self) -> None:
        self._connection.close()


class Covers:
    """Submits each song once, and saves each cover in the background."""

    def __init__(self, client: CoverClient, archive: CoverArchive, songs: SongTable) -> None:
        self._client, self._archive, self._songs = client, archive, songs
        self._submits: dict[str, asyncio.Task[str]] = {}
        self._saves: set[asyncio.Task[None]] = set()

    async def resume(self) -> None:
        """Go on with everything that an earlier process left unfinished."""
        await self._archive.add(self._songs.task_ids())
        for cover in await self._archive.pending():
            self._start(self._save(cover.task_id))

    async def submit(self, music_task_id: str) -> str:
        """Return the id of the task that makes the song's cover; pay for one if there is none."""
        if task_id := self._songs.find(music_task_id):
            return task_id
        if music_task_id not in self._submits:
            # In a task of its own: if the caller goes away, the id is still noted.
            submit = asyncio.create_task(self._submit(music_task_id))
            self._submits[music_task_id] = submit
            submit.add_done_callback(lambda _: self._submits.pop(music_task_id))
        return await asyncio.shield(self._submits[music_task_id])

    async def _submit(self, music_task_id: str) -> str:
        try:
            task_id = await self._client.generate_cover(music_task_id, callback_url=CALLBACK_URL)
        except CoverAlreadyExistsError as error:
            # A process that was killed before it noted the id paid for this one.
            if error.existing_task_id is None:
                raise
            task_id = error.existing_task_id
        self._songs.add(music_task_id, task_id)
        await self._archive.add([task_id])
        self._start(self._save(task_id))
        return task_id

    def _start(self, save: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(save)
        self._saves.add(task)
        task.add_done_callback(self._saves.discard)

    async def _save(self, task_id: str) -> None:
        while True:
            details = None
            try:
                details = await self._client.wait_for_cover(task_id, timeout=None)
                await self._archive.save(self._client, details)
                return
            except KieCoverError as error:
                log.warning("cover %s: %s", task_id, error)
                if is_final(error, details):
                    await self._archive.mark_failed(task_id, error)
                    return
            # A wrong key, an empty account or a broken line: the cover stays pending.
            await asyncio.sleep(RETRY_INTERVAL)

    async def show(self, music_task_id: str) -> dict[str, Any] | None:
        """Return what is known of a song's cover, or `None` if the song was never submitted."""
        task_id = self._songs.find(music_task_id)
        cover = await self._archive.find(task_id) if task_id else None
        if cover is None:
            return None
        images = [f"/images/{image.path.name}" for image in cover.images]
        return {"task_id": task_id, "state": cover.state, "error": cover.error, "images": images}

    async def aclose(self) -> None:
        """Finish the submits, since they are paid for; the next process resumes the waits."""
        await asyncio.gather(*self._submits.values(), return_exceptions=True)
        for save in self._saves:
            save.cancel()
        await asyncio.gather(*self._saves, return_exceptions=True)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    inbox = CallbackInbox(KEYS) if KEYS else None
    async with CoverClient(inbox=inbox) as client, CoverArchive(FOLDER) as archive:
        songs = SongTable(FOLDER / "songs.sqlite3")
        covers = Covers(client, archive, songs)
        await covers.resume()
        yield {"covers": covers, "inbox": inbox}
        await covers.aclose()
        songs.close()


def find_covers(request: Request) -> Covers:
    covers: Covers = request.state.covers
    return covers


app = FastAPI(lifespan=lifespan)
CoversOfApp = Annotated[Covers, Depends(find_covers)]


@app.post("/songs/{music_task_id}/cover", status_code=202)
async def submit(music_task_id: str, covers: CoversOfApp) -> dict[str, str]:
    try:
        return {"task_id": await covers.submit(music_task_id)}
    except KieCoverError as error:
        log.warning("song %s: %s", music_task_id, error)
        raise HTTPException(503 if error.retryable else 502, "no cover was submitted") from error


@app.get("/songs/{music_task_id}/cover")
async def show(music_task_id: str, covers: CoversOfApp) -> dict[str, Any]:
    if (cover := await covers.show(music_task_id)) is None:
        raise HTTPException(404, "this song was never submitted")
    return cover


@app.get("/images/{name}")
async def image(name: str) -> FileResponse:
    path = FOLDER / name
    if path.suffix not in {".png", ".jpg", ".webp"} or not path.is_file():
        raise HTTPException(404, "there is no such image")
    return FileResponse(path)


@app.post(urlsplit(CALLBACK_URL).path, include_in_schema=False)
async def receive_callback(request: Request) -> Response:
    body = await request.body()  # the proxy in front limits its size
    inbox: CallbackInbox | None = request.state.inbox
    if inbox is None:
        return Response(status_code=404)
    try:
        inbox.receive(request.headers, body)
    except InvalidResponseError:
        return Response(status_code=400)
    except SignatureError:
        return Response(status_code=401)
    return Response()
