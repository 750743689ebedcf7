"""An emulator that sends callbacks, in a process of its own.

`python calling_emulator.py '{"generation_time": [5, 15], …}'` takes the settings of the emulator,
and those of its `CallbackPlan` under `callbacks`. It prints its URL, and serves until its stdin
ends. Then it prints the monotonic time at which each cover's first genuine callback was sent.
"""

import asyncio
import json
import sys
from typing import Any

from kie_cover_async.emulator import CallbackPlan, CoverEmulator


async def main(settings: dict[str, Any]) -> None:
    plan = CallbackPlan(**settings.pop("callbacks"))
    settings["generation_time"] = tuple(settings["generation_time"])
    async with CoverEmulator(price=0, callbacks=plan, **settings) as emulator:
        print(emulator.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        sent = {
            each.task_id: each.sent
            for each in reversed(emulator.callbacks)
            if each.kind == "genuine"
        }
        print(json.dumps(sent), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
