"""`kie-cover listen`: callbacks, a line for each, for as long as its terminal is open."""

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from attrs import frozen
from rich.text import Text

from kie_cover_async import CoverClient
from kie_cover_async.callbacks import CallbackInbox, CoverCallback
from kie_cover_async.settings import API_KEY_VARIABLE
from kie_cover_async.validation import short_repr

from .board import watched
from .callback_keys import CALLBACK_KEY_VARIABLE, callback_keys
from .connection import connected
from .many import outcome_fields, outcome_text
from .output import Refused, one_line, say
from .reception import Reception
from .serving import Address, is_a_host, is_a_path, serving

Write = Callable[[str | Text], None]


@frozen(kw_only=True)
class ListenSettings:
    """What the command was asked for."""

    host: str
    port: int
    path: str
    base_url: str | None
    as_json: bool


async def hear(settings: ListenSettings) -> NoReturn:
    """Listen until it is cancelled; raises `Refused` where that cannot be had."""
    address = _address(settings)
    keys = callback_keys()
    reception = Reception(CallbackInbox(keys or None))
    async with (
        _polling(settings.base_url) as client,
        serving(reception.receive, address) as url,
    ):
        say(f"Callbacks are heard at {url} until Ctrl-C.")
        if not keys:
            say(f"Anybody may send them: {CALLBACK_KEY_VARIABLE} has no key.")
        if client is None:
            say(f"What they claim is not confirmed: {API_KEY_VARIABLE} has no key.")
        try:
            with watched(reception) as write:
                if client is None:
                    await _pass_on(reception, write, as_json=settings.as_json)
                else:
                    await _confirm(client, reception, write, as_json=settings.as_json)
        finally:
            say(reception.summary())


def _address(settings: ListenSettings) -> Address:
    if not is_a_host(settings.host):
        raise Refused(f"--host must be such as 127.0.0.1, not {short_repr(settings.host)}")
    if not is_a_path(settings.path):
        raise Refused(f"--path must be such as /kie/callback, not {short_repr(settings.path)}")
    return Address(settings.host, settings.port, settings.path)


async def _pass_on(reception: Reception, write: Write, *, as_json: bool) -> NoReturn:
    while True:
        callback = await reception.next()
        write(json.dumps(_claimed(callback)) if as_json else _claimed_text(callback))


async def _confirm(
    client: CoverClient, reception: Reception, write: Write, *, as_json: bool
) -> NoReturn:
    async with client.check_covers(_task_ids(reception)) as outcomes:
        while True:
            outcome = await anext(outcomes)
            # Two callbacks with different words may both have been waiting.
            if not reception.knows_the_end(outcome.task_id):
                line = {**outcome_fields(outcome), "confirmed": reception.count(outcome)}
                write(json.dumps(line) if as_json else outcome_text(outcome))


async def _task_ids(reception: Reception) -> AsyncIterator[str]:
    while True:
        yield (await reception.next()).task_id


def _claimed(callback: CoverCallback) -> dict[str, object]:
    """With the images under a name that nobody takes for that of a result."""
    return {
        "taskId": callback.task_id,
        "code": callback.code,
        "msg": callback.msg,
        "claimedImages": callback.images,
        "confirmed": False,
    }


def _claimed_text(callback: CoverCallback) -> Text:
    images = "" if callback.images is None else f", claims {' '.join(callback.images)}"
    said = f"says {callback.code} {callback.msg}{images}"
    return Text(f"{one_line(callback.task_id)}  {one_line(said)}")


@asynccontextmanager
async def _polling(base_url: str | None) -> AsyncIterator[CoverClient | None]:
    """A client, if there is a key for one."""
    if os.environ.get(API_KEY_VARIABLE):
        async with connected(base_url) as client:
            yield client
    else:
        yield None
