"""The emulated service of the soak test, in a process of its own, with all its faults.

It prints its URL. The line `restart` on its stdin stops it for two seconds. At the end of stdin it
prints how many credits it has charged, one for each cover, and exits.
"""

import asyncio
import json
import sys

from kie_cover_async.emulator import CallbackPlan, CoverEmulator, Fault

CREDITS = 10_000_000
# Shares of all answers: five in a hundred.
FAULTS = [
    (Fault.server_error(), 0.01),
    (Fault.gateway_page(), 0.01),
    (Fault.truncated_json(), 0.01),
    (Fault.reset(), 0.01),
    (Fault.reset(midway=True), 0.0095),
    (Fault.rate_limited(), 0.0005),  # each of them pauses every request
]
CALLBACKS = CallbackPlan(
    delay=(0.0, 0.5),
    late=0.05,
    lost=0.1,
    duplicated=0.1,
    wrong_signature=0.02,
    forged=0.05,
    response_timeout=5.0,
)


async def serve(callback_key: str) -> None:
    emulator = CoverEmulator(
        seed="soak",
        generation_time=(0.5, 3.0),
        visible_after=0.2,
        failure_rate=0.02,
        credits=CREDITS,
        price=1.0,
        callbacks=CALLBACKS,
        callback_key=callback_key,
        keep_requests=False,
    )
    for fault, rate in FAULTS:
        emulator.fault(fault, rate=rate)
    loop = asyncio.get_running_loop()
    async with emulator:
        say(url=emulator.url)
        while await loop.run_in_executor(None, sys.stdin.readline):
            await emulator.aclose()
            await asyncio.sleep(2)
            await emulator.start()
    say(charged=round(CREDITS - emulator.credits))


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
