"""`kie-cover emulator`: the API in miniature, for as long as its terminal is open."""

import asyncio
from collections.abc import Iterator
from math import inf

from attrs import frozen

from kie_cover_async.emulator import CallbackPlan, CoverEmulator, Fault, Limits
from kie_cover_async.validation import short_repr

from .callback_keys import callback_keys
from .output import Refused, emit, emit_json, refusing, say

KEY = "emulated"
_CALLBACK_URL = "http://127.0.0.1:8080/kie/callback"

_FAULTS = (
    Fault.rate_limited(),
    Fault.server_error(500),
    Fault.gateway_page(502),
    Fault.reset(midway=True),
    Fault.truncated_json(),
)


@frozen(kw_only=True)
class EmulatorSettings:
    """What the command was asked for."""

    port: int
    generation_time: str
    failure_rate: float
    stuck_rate: float
    fault_rate: float
    limits: bool
    seed: str
    callbacks: CallbackPlan


async def emulate(settings: EmulatorSettings, *, as_json: bool) -> int:
    """Emulate until it is cancelled; raises `Refused` where the port cannot be had."""
    _check(settings)
    with refusing():
        emulator = CoverEmulator(
            port=settings.port,
            seed=settings.seed,
            generation_time=seconds_or_range(settings.generation_time),
            failure_rate=settings.failure_rate,
            stuck_rate=settings.stuck_rate,
            limits=Limits() if settings.limits else None,
            callbacks=settings.callbacks,
            callback_key=next(iter(callback_keys()), None),
            keep_requests=False,
        )
    for fault, rate in zip(_FAULTS, fault_rates(settings.fault_rate), strict=True):
        emulator.fault(fault, rate=rate)
    try:
        await emulator.start()
    except OSError as error:
        raise Refused(f"cannot listen on port {settings.port}: {error.strerror}") from None
    try:
        _announce(emulator, as_json=as_json)
        for_ever: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        return await for_ever
    finally:
        await emulator.aclose()


def _check(settings: EmulatorSettings) -> None:
    """Refuse by the options' names what the emulator would by those of its own arguments."""
    if settings.failure_rate + settings.stuck_rate > 1:
        raise Refused("--failure-rate and --stuck-rate must be at most 1 together")
    try:
        settings.seed.encode()
    except UnicodeEncodeError:
        raise Refused(f"--seed must be UTF-8, not {short_repr(settings.seed)}") from None


def seconds_or_range(text: str) -> tuple[float, float]:
    """`5`, or `2-8`; raises `Refused`."""
    try:
        low, _, high = text.partition("-")
        first, last = float(low), float(high or low)
    except ValueError:
        first, last = inf, -inf
    if not 0 <= first <= last < inf:
        raise Refused(f"--generation-time must be seconds, such as 5 or 2-8, not {text!r}")
    return (first, last)


def fault_rates(total: float) -> Iterator[float]:
    """Chances for rules that are asked one after the other: their faults are equally frequent."""
    share = total / len(_FAULTS)
    for at in range(len(_FAULTS)):
        # Of the last, what is left by rounding may be a hair more than all.
        yield min(share / (1 - at * share), 1.0)


def _announce(emulator: CoverEmulator, *, as_json: bool) -> None:
    environment = {"KIE_BASE_URL": emulator.url, "KIE_API_KEY": KEY}
    if as_json:
        emit_json({"url": emulator.url, "imageUrl": emulator.image_url, "environment": environment})
        return
    say("The API is emulated here until Ctrl-C. In another terminal:")
    for name, value in environment.items():
        emit(f"export {name}={value}")
    say(f"And then, for instance: kie-cover generate some-song --callback-url {_CALLBACK_URL}")
    say("Who listens there: kie-cover listen")
