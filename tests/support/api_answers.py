"""Answers of the API, made by hand, and what the package reads in them."""

import json
from typing import Any

from multidict import CIMultiDict

from kie_cover_async import KieCoverError
from kie_cover_async.api import CREDITS, Request, Response, download_url, parse_response
from kie_cover_async.api.market import MARKET
from kie_cover_async.api.suno import SUNO

TASK = "21aee3c3c2a01fa5e030b3799fa4dd56"
IMAGE = "https://tempfile.aiquickdraw.com/s/1753958521_6c1b3015141849d1a9bf17b738ce9347.png"
RAY = "9a0b1c2d3e4f-FRA"

CALLS: dict[str, Request[Any]] = {
    "record-info": Request(SUNO.poll, TASK),
    "generate": SUNO.submit_request("73d6128b3523a0079df10da9471017c8", "https://example.com/hook"),
    "recordInfo": Request(MARKET.poll, TASK),
    "createTask": MARKET.submit_request("73d6128b3523a0079df10da9471017c8", None),
    "credit": CREDITS,
    "download-url": download_url(IMAGE),
}

SUBMITS = ["generate", "createTask"]


def answer(body: object, status: int = 200, **headers: str) -> Response:
    """An HTTP answer: bytes are the body itself, anything else is written as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, CIMultiDict({"CF-RAY": RAY} | named), raw)


def envelope(code: object, data: object = None, msg: object = "said so") -> dict[str, object]:
    return {"code": code, "msg": msg, "data": data}


def record(**fields: object) -> dict[str, object]:
    """A finished cover's `data`, with these fields in place of its own."""
    return {"taskId": TASK, "successFlag": 1, "response": {"images": [IMAGE]}} | fields


def outcome_of(call: Request[Any] | str, what: Response) -> Any:
    """The value that the answer holds, or the error that it means, returned."""
    try:
        return parse_response(CALLS[call] if isinstance(call, str) else call, what)
    except KieCoverError as error:
        return error
