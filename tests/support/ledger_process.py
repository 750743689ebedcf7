"""Use a ledger in another process: `python ledger_process.py MODULE:FUNCTION ARGUMENT ACTION ID…`.

ACTION is `claim`, `record` or `wait`.

The function opens the ledger, as an async context manager, by the argument. After each action a
line is printed, and at the end the process stays until its input ends.
"""

import asyncio
import sys
from pathlib import Path
from pkgutil import resolve_name

from kie_cover_async.ledger import Api, Ledger

API = Api(route="market", origin="https://api.example.com")


async def act(ledger: Ledger, action: str, song: str) -> None:
    """Claim the song; `record` and `wait` store the id `task-of-SONG`, and `wait` waits for it."""
    claim = await ledger.claim(song, API)
    if claim is not None and action != "claim":
        await ledger.record_id(song, f"task-of-{song}", API)
    if action == "wait":
        await ledger.start_wait(song, f"task-of-{song}")
    print(song if claim is not None else "-", flush=True)  # noqa: T201 - the test reads it


async def main(opener: str, argument: str, action: str, *songs: str) -> None:
    async with resolve_name(opener)(argument) as ledger:
        for song in songs:
            await act(ledger, action, song)
        print("done", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.read)


sys.path.append(str(Path(__file__).parents[1]))
asyncio.run(main(*sys.argv[1:]))
