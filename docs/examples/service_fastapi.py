"""The same service on FastAPI: uvicorn --app-dir docs/examples service_fastapi:app"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from caller_answers import answer_to
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from kie_cover_async import CoverClient, KieCoverError


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, CoverClient]]:
    async with CoverClient() as client:
        yield {"covers": client}


async def find_client(request: Request) -> CoverClient:
    client: CoverClient = request.state.covers
    return client


Covers = Annotated[CoverClient, Depends(find_client)]
app = FastAPI(lifespan=lifespan)


@app.post("/songs/{music_task_id}/cover", status_code=202)
async def submit(music_task_id: str, covers: Covers) -> dict[str, str]:
    callback_url = "https://example.com/covers"
    return {"task_id": await covers.generate_cover(music_task_id, callback_url=callback_url)}


@app.get("/covers/{task_id}")
async def show(task_id: str, covers: Covers) -> dict[str, str | tuple[str, ...]]:
    details = await covers.wait_for_cover(task_id, timeout=20.0)
    return {"state": "done", "images": details.images}


@app.exception_handler(KieCoverError)
async def error_as_answer(_: Request, error: KieCoverError) -> JSONResponse:
    status, answer = answer_to(error)
    return JSONResponse(answer, status)
