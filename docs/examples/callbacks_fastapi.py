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
LARGEST_BODY = 65_536


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    inbox = CallbackInbox(KEYS)
    async with CoverClient(inbox=inbox) as client:
        yield {"covers": client, "inbox": inbox}


app = FastAPI(lifespan=lifespan)


@app.post("/songs/{song}/cover", status_code=202)
async def ask(song: str, request: Request) -> dict[str, str]:
    return {"cover": await request.state.covers.generate_cover(song, callback_url=CALLBACK_URL)}


@app.get("/covers/{cover}")
async def cover(cover: str, request: Request) -> dict[str, tuple[str, ...]]:
    details = await request.state.covers.wait_for_cover(cover)
    return {"images": details.images}


@app.post(urlsplit(CALLBACK_URL).path, include_in_schema=False)
async def called_back(request: Request) -> Response:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            return Response(status_code=413)
    try:
        request.state.inbox.receive(request.headers, body)
    except InvalidResponseError:
        return Response(status_code=400)
    except SignatureError:
        return Response(status_code=401)
    return Response()
