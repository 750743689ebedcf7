"""The same service on FastAPI: uvicorn --app-dir docs/examples callbacks_fastapi:app"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response

from kie_cover_async import CoverClient, InvalidResponseError, SignatureError
from kie_cover_async.callbacks import CallbackInbox

CALLBACK_URL = os.environ["CALLBACK_URL"]
KEYS = [key.strip() for key in os.environ["KIE_CALLBACK_KEY"].split(",")]
MAX_BODY_BYTES = 65_536


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    inbox = CallbackInbox(KEYS)
    async with CoverClient(inbox=inbox) as client:
        yield {"covers": client, "inbox": inbox}


app = FastAPI(lifespan=lifespan)


@app.post("/songs/{music_task_id}/cover", status_code=202)
async def submit(music_task_id: str, request: Request) -> dict[str, str]:
    client: CoverClient = request.state.covers
    return {"task_id": await client.generate_cover(music_task_id, callback_url=CALLBACK_URL)}


@app.get("/covers/{task_id}")
async def show(task_id: str, request: Request) -> dict[str, tuple[str, ...]]:
    details = await request.state.covers.wait_for_cover(task_id)
    return {"images": details.images}


@app.post(urlsplit(CALLBACK_URL).path, include_in_schema=False)
async def receive_callback(request: Request) -> Response:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return Response(status_code=413)
    try:
        request.state.inbox.receive(request.headers, body)
    except InvalidResponseError:
        return Response(status_code=400)
    except SignatureError:
        return Response(status_code=401)
    return Response()
